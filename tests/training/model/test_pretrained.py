"""Networks with weights are fed and read as these were trained, in runs and in measurements."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from clever_hub.backends.timm import trained_pooling
from clever_hub.errors import ConfigError, ModelNotFoundError
from clever_training.evaluation.models import load_extractor
from clever_training.model.normalization import preprocessing, resolved
from clever_training.model.pretrained import pretrained_config, timm_config
from clever_training.recipe.schema import Recipe
from tests.training.data.test_teacher import write_teacher

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _recipe(**backbone: object) -> Recipe:
    return Recipe.parse({"name": "mine", "backbone": {"architecture": "test_resnet", **backbone}})


def test_timm_models_have_a_normalisation_and_a_size_of_their_own() -> None:
    config = timm_config("tf_efficientnet_lite0")
    own = config.preprocessing
    assert (own.mean, own.std, own.crop_size) == ((0.5,) * 3, (0.5,) * 3, 224)
    assert (config.num_features, config.equivariant_dim) == (1280, 0)
    assert timm_config("resnet18").preprocessing.mean == IMAGENET[0]
    with pytest.raises(ModelNotFoundError, match=r"no model 'resnet19'.*resnet18"):
        timm_config("resnet19")


def test_dinov3_is_pooled_by_the_token_that_it_was_trained_by() -> None:
    """Timm's default is the average of the patches; convolutional ones have no token."""
    name = "vit_small_patch16_dinov3.lvd1689m"
    assert timm.create_model(name, num_classes=0).global_pool == "avg"
    assert timm_config(name).model_args == {"global_pool": "token"}
    assert trained_pooling("convnext_tiny.dinov3_lvd1689m") == {}
    assert trained_pooling("vit_small_patch14_dinov2") == {}
    extractor = load_extractor(f"random:timm:{name}")
    assert extractor.model.backbone.global_pool == "token"  # type: ignore[attr-defined]


def test_weights_that_timm_squashes_photos_for_are_said_to_be() -> None:
    name = "convnext_tiny.in12k_ft_in1k_384"
    told = rf"timm:{name}: .* timm squashes them .*\(crop_mode 'squash'\)"
    with pytest.warns(UserWarning, match=told):
        assert timm_config(name).preprocessing.crop_size == 384


def test_a_crop_larger_than_the_resize_takes_the_whole_shortest_side() -> None:
    """Timm resizes to 389 pixels and pads them to 448; here nothing is padded."""
    own = timm_config("volo_d4_448").preprocessing
    assert (own.resize_size, own.crop_size) == (448, 448)


def test_random_weights_are_normalised_as_imagenet() -> None:
    recipe = resolved(_recipe())
    assert (recipe.backbone.mean, recipe.backbone.std) == IMAGENET
    assert (recipe.image_size, recipe.backbone.interpolation) == (224, "bicubic")


def test_a_name_of_timm_as_the_start_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"init=timm and backbone\.architecture=resnet18"):
        resolved(_recipe(init="timm:resnet18"))


def test_a_run_takes_the_normalisation_of_what_it_starts_from(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path)
    recipe = resolved(_recipe(init=str(folder)))
    assert recipe.backbone.mean == (0.5, 0.5, 0.5)
    assert recipe.backbone.std == (0.25, 0.25, 0.25)
    assert (recipe.backbone.interpolation, recipe.image_size) == ("bilinear", 32)
    # What a model is made of says the same, with the size that the recipe resolves to.
    assert preprocessing(recipe).mean == pretrained_config(str(folder)).preprocessing.mean
    timms = resolved(
        Recipe.parse(
            {"name": "a", "backbone": {"architecture": "tf_efficientnet_lite0", "init": "timm"}}
        )
    )
    assert timms.backbone.std == (0.5, 0.5, 0.5)


def test_what_a_recipe_says_itself_stays(tmp_path: Path) -> None:
    folder = write_teacher(tmp_path)
    recipe = _recipe(init=str(folder), mean=(0.1, 0.2, 0.3))
    found = resolved(recipe.model_copy(update={"image_size": 48}))
    assert found.backbone.mean == (0.1, 0.2, 0.3)
    assert found.backbone.std == (0.25, 0.25, 0.25)
    sized = Recipe.parse({**_recipe(init=str(folder)).model_dump(), "image_size": 48})
    assert resolved(sized) == sized


def test_a_run_that_goes_on_keeps_what_it_began_with(tmp_path: Path) -> None:
    """The model that it started from may be gone, or be another one by now."""
    folder = write_teacher(tmp_path / "teacher")
    begun = resolved(_recipe(init=str(folder)))
    folder.rename(tmp_path / "gone")
    assert resolved(_recipe(init=str(folder)), begun) == begun


def test_a_recipe_that_was_written_and_read_again_is_resolved() -> None:
    recipe = resolved(_recipe())
    again = Recipe.parse(recipe.model_dump(mode="json"))
    assert resolved(again) == again == recipe
    assert torch.tensor(again.backbone.mean).shape == (3,)
