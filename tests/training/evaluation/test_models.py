"""What can be measured: the split is kept, random twins are reproducible, names are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, ModelNotFoundError
from clever_training.evaluation.models import (
    ModelFeatures,
    PixelFeatures,
    load_extractor,
    random_model,
    random_twin,
)


def test_features_are_the_models_embedding_and_parts_its_split(tiny_model: CleverModel) -> None:
    extractor = ModelFeatures(tiny_model, "tiny")
    images = torch.randn(3, 3, 32, 32)
    features = extractor.embed(images.numpy())
    with torch.inference_mode():
        out = tiny_model(images)
    for part in ("full", "invariant", "equivariant"):
        np.testing.assert_allclose(
            features[:, extractor.parts[part]], getattr(out, part), rtol=1e-5, atol=1e-6
        )


def test_a_model_folder_and_its_copy_in_memory_have_one_identity(
    tiny_model: CleverModel, tmp_path: Path
) -> None:
    folder = tiny_model.save_pretrained(tmp_path / "model")
    loaded = load_extractor(str(folder))
    assert loaded.identity == ModelFeatures(tiny_model, "other name").identity
    assert loaded.describe()["weights_sha256"] is not None


def test_a_random_twin_has_the_same_split_and_is_made_by_its_seed(tiny_model: CleverModel) -> None:
    original = ModelFeatures(tiny_model, "tiny")
    state = torch.random.get_rng_state()
    twins = [random_twin(original, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is left alone
    identities = [twin.identity for twin in twins if twin is not None]
    assert identities[0] == identities[1]
    assert len({*identities, original.identity}) == 3
    assert twins[0] is not None
    assert twins[0].parts == original.parts


@pytest.mark.parametrize("trained", [True, False, None])
def test_the_recipe_says_whether_the_split_was_trained(
    tiny_config: ModelConfig, trained: bool | None
) -> None:
    recipe: dict[str, Any] = {"method": "clever-dino"}
    if trained is not None:
        recipe["recipe"] = {"method": {"equivariance": trained}}
    model = CleverModel(replace(tiny_config, provenance=recipe))
    features = ModelFeatures(model, "tiny")
    assert features.describe()["split_trained"] is trained
    assert features.describe()["method"] == "clever-dino"
    twin = random_twin(features, 0)
    assert twin is not None
    assert twin.describe()["split_trained"] is None
    assert twin.describe()["method"] is None
    assert isinstance(twin, ModelFeatures)
    assert twin.model.config.provenance == {}, "that of the trained weights is not its own"


@pytest.mark.parametrize(
    ("views", "told"),
    [
        ({"strategy": "caug"}, "caug"),
        ({"strategy": "caug", "aug": None}, "caug"),
        ({"strategy": "caug", "aug": "mine:augment"}, "mine:augment"),
        ({}, None),
    ],
)
def test_an_augmentation_of_ones_own_replaces_the_strategy(
    tiny_config: ModelConfig, views: dict[str, Any], told: str | None
) -> None:
    model = CleverModel(replace(tiny_config, provenance={"recipe": {"views": views}}))
    assert ModelFeatures(model, "tiny").describe()["views"] == told


def test_a_changed_weight_changes_the_identity(tiny_config: ModelConfig) -> None:
    model = CleverModel(tiny_config)
    before = ModelFeatures(model, "tiny").identity
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert ModelFeatures(model, "tiny").identity != before


def test_a_model_without_an_equivariant_part_has_only_the_full_one(
    tiny_config: ModelConfig,
) -> None:
    config = ModelConfig.from_dict({**tiny_config.to_dict(), "invariant_dim": 96})
    assert list(ModelFeatures(CleverModel(config), "dino").parts) == ["full"]


def test_a_crop_smaller_than_the_resize_is_not_cropped_twice(tiny_config: ModelConfig) -> None:
    content = tiny_config.to_dict()
    content["preprocessing"]["resize_size"] = 40
    content.pop("pretrained_cfg")
    extractor = ModelFeatures(CleverModel(ModelConfig.from_dict(content)), "tiny")
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    prepared = extractor.prepare(Image.fromarray(pixels))
    mean, std = (np.asarray(getattr(extractor.preprocessing, key)) for key in ("mean", "std"))
    np.testing.assert_allclose(prepared.transpose(1, 2, 0), (pixels / 255 - mean) / std, rtol=1e-4)


def test_pixels_are_averaged_squares() -> None:
    board = np.zeros((64, 64, 3), np.uint8)
    board[:, ::2] = 200  # stripes one pixel wide vanish into their mean
    extractor = PixelFeatures(PreprocessingConfig(64, 64, mean=(0.0,) * 3, std=(1.0,) * 3), 16)
    features = extractor.embed(extractor.prepare(Image.fromarray(board))[None])
    assert features.shape == (1, 768)
    np.testing.assert_allclose(features, 100 / 255, rtol=1e-6)


VIT = ModelConfig(
    name="clever-vit",
    architecture="test_vit",
    model_args={"img_size": 32, "patch_size": 8},
    num_features=64,
    invariant_dim=51,
    preprocessing=PreprocessingConfig(32, 32),
)


def test_last_blocks_end_with_the_models_own_embedding() -> None:
    torch.manual_seed(0)
    model = CleverModel(VIT).eval()
    images = torch.randn(2, 3, 32, 32)
    extractor = ModelFeatures(model, "vit", last_blocks=4)
    features = extractor.embed(images.numpy())
    assert features.shape == (2, 256)
    with torch.inference_mode():
        out = model(images)
    invariant = features[:, extractor.parts["invariant"]]
    equivariant = features[:, extractor.parts["equivariant"]]
    np.testing.assert_allclose(invariant[:, -51:], out.invariant, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(equivariant[:, -13:], out.equivariant, rtol=1e-4, atol=1e-5)
    assert extractor.identity != ModelFeatures(model, "vit").identity


def test_last_blocks_of_another_split_have_another_identity() -> None:
    """Their columns stand in another order; those of the last block alone do not."""
    torch.manual_seed(0)
    models = [CleverModel(VIT), CleverModel(replace(VIT, invariant_dim=32))]
    models[1].load_state_dict(models[0].state_dict())

    def identities(last_blocks: int) -> tuple[set[str], set[str]]:
        own = [ModelFeatures(model, "vit", last_blocks=last_blocks) for model in models]
        twins = [twin for one in own if (twin := random_twin(one, 0)) is not None]
        assert len(twins) == len(own)
        return {one.identity for one in own}, {twin.identity for twin in twins}

    assert [len(found) for found in identities(1)] == [1, 1], "what is cached stays valid"
    assert [len(found) for found in identities(2)] == [2, 2]
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    one, other = (ModelFeatures(model, "vit", last_blocks=2).embed(images) for model in models)
    assert not np.allclose(one, other)
    np.testing.assert_allclose(np.sort(one), np.sort(other), atol=1e-6)


def test_last_blocks_of_a_resnet_are_refused(tiny_model: CleverModel) -> None:
    with pytest.raises(ConfigError, match="vision transformer"):
        ModelFeatures(tiny_model, "tiny", last_blocks=4)


def test_last_blocks_of_what_has_no_class_token_are_refused() -> None:
    averaged = replace(VIT, model_args={**VIT.model_args, "global_pool": "avg"})
    with pytest.raises(ConfigError, match="expected one whose embedding is its class token"):
        ModelFeatures(CleverModel(averaged), "vit", last_blocks=2)
    without = replace(averaged, model_args={**averaged.model_args, "class_token": False})
    with pytest.raises(ConfigError, match="it pools by 'avg'"):
        ModelFeatures(CleverModel(without), "vit", last_blocks=2)


def test_last_blocks_of_a_split_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="has a projection, as `clever-hub split` makes"):
        ModelFeatures(CleverModel(replace(VIT, projection=True)), "vit", last_blocks=2)


def test_more_last_blocks_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--last-blocks 20: vit, a test_vit, has \d+ blocks"):
        ModelFeatures(CleverModel(VIT), "vit", last_blocks=20)


def test_another_size_shows_the_same_content_in_other_pixels(tiny_config: ModelConfig) -> None:
    content = tiny_config.to_dict()
    content["preprocessing"]["resize_size"] = 40
    content.pop("pretrained_cfg")
    model = CleverModel(ModelConfig.from_dict(content))
    own, larger = ModelFeatures(model, "tiny"), ModelFeatures(model, "tiny", image_size=48)
    assert (larger.preprocessing.resize_size, larger.preprocessing.crop_size) == (60, 48)
    assert larger.describe()["input_size"] == 48
    assert larger.identity != own.identity
    assert ModelFeatures(model, "tiny", image_size=32).identity == own.identity
    twin = random_twin(larger, 0)
    assert twin is not None
    assert twin.preprocessing == larger.preprocessing
    with torch.inference_mode():
        expected = model(torch.ones(1, 3, 48, 48)).full
    np.testing.assert_allclose(larger.embed(np.ones((1, 3, 48, 48), np.float32)), expected, 1e-4)


def test_a_size_that_the_model_does_not_take_is_refused() -> None:
    fixed = replace(VIT, model_args={**VIT.model_args, "dynamic_img_size": False})
    with pytest.raises(ConfigError, match=r"--image-size: vit, a test_vit, takes no .* 48 x 48"):
        ModelFeatures(CleverModel(fixed), "vit", image_size=48)


def test_a_random_timm_model_needs_no_weights() -> None:
    extractor = load_extractor("random:timm:test_resnet")
    assert list(extractor.parts) == ["full"]
    assert extractor.describe()["dims"] == {"full": 96}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("pixels:big", ConfigError),
        ("random:timm:no_such_net", ModelNotFoundError),
        ("no-such-model", ModelNotFoundError),
    ],
)
def test_names_that_lead_nowhere_are_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        load_extractor(name)


@pytest.mark.parametrize(
    ("architecture", "features"), [("resnet18", 512), ("convnext_atto", 320), ("regnetx_002", 368)]
)
def test_all_branches_of_a_random_network_speak(architecture: str, features: int) -> None:
    """Those of ResNets start at 0, ConvNeXt's at 1e-6: what is left hardly sees a photo."""
    preprocessing = PreprocessingConfig(32, 32)
    config = ModelConfig(
        name="x",
        architecture=architecture,
        num_features=features,
        invariant_dim=features // 2,
        preprocessing=preprocessing,
    )
    backbone = random_model(config, 0).backbone
    weights = [p for name, p in backbone.named_parameters() if not name.endswith("bias")]
    assert min(float(p.detach().abs().max()) for p in weights) > 1e-3
    # The middle of the photo counts, which a ResNet's shortcuts alone do not see.
    plain, other = torch.zeros(2, 1, 3, 32, 32)
    other[..., 13:16, 13:16] = 1.0
    with torch.no_grad():
        assert (backbone(plain) - backbone(other)).abs().max() > 1e-3
