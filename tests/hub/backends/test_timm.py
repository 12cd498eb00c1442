"""The one builder of timm backbones: what it builds, how long its embedding is, what it refuses."""

from __future__ import annotations

import pytest
import torch

from clever_hub.backends.timm import (
    BackboneError,
    build_backbone,
    embedding_length,
    faster_in_channels_last,
)


@pytest.mark.parametrize(
    "architecture",
    # MobileNetV3 and GhostNet keep a hidden layer behind timm's num_features.
    ["test_resnet", "test_vit", "test_efficientnet", "mobilenetv3_small_050", "ghostnet_050"],
)
def test_the_embedding_has_the_length_that_is_said(architecture: str) -> None:
    backbone = build_backbone(architecture).eval()
    size = 160 if architecture == "test_vit" else 64
    with torch.no_grad():
        shape = backbone(torch.zeros(1, 3, size, size)).shape
    assert shape == (1, embedding_length(backbone))


def test_stochastic_depth_is_set_and_no_part_of_the_weights() -> None:
    from timm.layers.drop import DropPath

    plain, dropping = build_backbone("resnet18"), build_backbone("resnet18", drop_path=0.2)
    rates = [module.drop_prob for module in dropping.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2)
    assert not any(isinstance(module, DropPath) for module in plain.modules())
    assert dropping.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("architecture", "model_args", "key", "message"),
    [
        ("resnet81", {}, "architecture", "has no model 'resnet81'. Did you mean 'resnet"),
        ("hf-hub:somebody/model", {}, "architecture", "has no model"),
        ("resnet18", {"nonsense": 1}, "model_args", "timm cannot build resnet18 with {'nonsense'"),
        ("resnet18.no_such_tag", {}, "model_args", "no_such_tag"),
    ],
)
def test_what_timm_cannot_build_is_refused_with_the_argument_at_fault(
    architecture: str, model_args: dict[str, object], key: str, message: str
) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        build_backbone(architecture, model_args)
    assert caught.value.key == key


def test_weights_that_cannot_be_downloaded_keep_their_reason() -> None:
    with pytest.raises(BackboneError, match="model_args") as caught:
        build_backbone("test_resnet", pretrained=True)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("architecture", "faster"),
    [
        ("efficientnet_lite0", True),
        ("mobilenetv3_small_050", True),
        ("tf_efficientnetv2_b0", False),  # dense 3×3 kernels in its first stages
        ("resnet10t", False),
        ("convnext_atto", False),
        ("vit_tiny_patch16_224", False),
    ],
)
def test_only_networks_of_depthwise_kernels_get_channels_last(
    architecture: str, faster: bool
) -> None:
    with torch.device("meta"):
        assert faster_in_channels_last(build_backbone(architecture)) is faster
