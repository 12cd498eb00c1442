"""Features of places are the backbone's own, at every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("timm")

from clever_hub.backends.dense import DenseModel, dense_map, whole_places
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError


def make(architecture: str, width: int, **model_args: object) -> CleverModel:
    torch.manual_seed(0)
    config = ModelConfig(
        name="tiny",
        architecture=architecture,
        num_features=width,
        invariant_dim=width * 4 // 5,
        preprocessing=PreprocessingConfig(64, 64),
        model_args=dict(model_args),
    )
    return CleverModel(config).eval()


def vit(**more: object) -> CleverModel:
    sizes = {"img_size": 64, "patch_size": 16, "depth": 2, "embed_dim": 48, "num_heads": 3}
    return make("vit_tiny_patch16_224", 48, **sizes, **more)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)


def test_tokens_at_the_own_size_are_those_of_the_embedding(pixels: np.ndarray) -> None:
    model = vit()
    dense = DenseModel(model)
    with torch.inference_mode():
        features = model.backbone.forward_features(torch.from_numpy(pixels))  # type: ignore[operator]
    found = dense(pixels)
    assert found.shape == (2, 4, 4, 48)
    torch.testing.assert_close(found.flatten(1, 2), features[:, 1:])
    assert dense.parts == {
        "full": slice(0, 48),
        "invariant": slice(0, 38),
        "equivariant": slice(38, 48),
    }


def test_a_cnn_gives_its_last_map_whose_mean_is_the_embedding(pixels: np.ndarray) -> None:
    model = make("resnet18", 512)
    found = DenseModel(model)(pixels)
    assert found.shape == (2, 2, 2, 512)
    with torch.inference_mode():
        torch.testing.assert_close(found.mean(dim=(1, 2)), model.backbone(torch.from_numpy(pixels)))


@pytest.mark.parametrize("dynamic", [False, True])
def test_other_shapes_resample_the_positions(dynamic: bool, pixels: np.ndarray) -> None:
    model = vit(dynamic_img_size=dynamic)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = DenseModel(model)
    wide = np.concatenate([pixels, pixels], axis=3)
    assert dense(wide).shape == (2, 4, 8, 48)
    assert dense(pixels).shape == (2, 4, 4, 48)
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_both_ways_of_resampling_agree(pixels: np.ndarray) -> None:
    wide = np.concatenate([pixels, pixels], axis=3)
    first, second = (DenseModel(vit(dynamic_img_size=dynamic))(wide) for dynamic in (False, True))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


def test_keys_are_those_of_the_last_block(pixels: np.ndarray) -> None:
    model = vit()
    dense = DenseModel(model, "keys")
    seen: list[torch.Tensor] = []
    backbone: Any = model.backbone
    block = backbone.blocks[-1]
    block.norm1.register_forward_hook(lambda *call: seen.append(call[-1]))
    found = dense(pixels)
    with torch.inference_mode():
        keys = block.attn.qkv(seen[0])[:, 1:, 48:96]
    torch.testing.assert_close(found.flatten(1, 2), keys)
    assert dense.parts == {"full": slice(0, 48)}


def test_what_comes_before_a_projection_has_no_parts(pixels: np.ndarray) -> None:
    config = ModelConfig(
        name="projected",
        architecture="resnet18",
        num_features=512,
        invariant_dim=409,
        preprocessing=PreprocessingConfig(64, 64),
        projection=True,
    )
    dense = DenseModel(CleverModel(config))
    assert dense(pixels).shape == (2, 2, 2, 512)
    assert dense.parts == {"full": slice(0, 512)}


def test_what_has_no_places_is_refused() -> None:
    with pytest.raises(ConfigError, match="keys need a vision transformer"):
        DenseModel(make("resnet18", 512), "keys")
    with pytest.raises(ConfigError, match="a shorter side of 8 pixels"):
        DenseModel(make("resnet18", 512)).size_for(100, 50, 8)
    flat = torch.nn.Module()
    flat.forward_features = lambda x: x.flatten(1)  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="gives a tensor of shape"):
        dense_map(flat, torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("photo", "short", "stride", "expected"),
    [
        ((854, 480), 480, 8, (832, 480)),
        ((480, 854), 480, 8, (480, 832)),
        ((854, 480), 240, 16, (416, 240)),
        ((100, 100), 64, 16, (64, 64)),
        ((854, 480), 224, 14, (392, 224)),
        ((60, 50), 32, 8, (32, 32)),
    ],
)
def test_sizes_are_whole_places(
    photo: tuple[int, int], short: int, stride: int, expected: tuple[int, int]
) -> None:
    assert whole_places(*photo, short, stride) == expected
