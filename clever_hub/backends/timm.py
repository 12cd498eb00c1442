"""timm's backbones: the one place that builds them and knows how long their embedding is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn

from clever_hub.backends import own
from clever_hub.errors import CleverError, suggest

# Weights of kernels that are neither 1×1 nor depthwise: those of a MobileNet's first layer.
DENSE_SHARE = 0.01
# DINOv3's vision transformers were trained by their class token, but timm builds them with the
# average of its Eva class (https://github.com/huggingface/pytorch-image-models/issues/2681).
_TOKEN_POOLED = re.compile(r"vit_.*_dinov3.*")
# What timm's crop_mode does to a photo that is not square, where it does not cut its centre out.
_CROP_MODES = {"squash": "squashes them to a square", "border": "pads them to a square"}


class BackboneError(CleverError):
    """timm cannot build a backbone.

    Callers turn it into their own error: the architecture may come from a config, a recipe or the
    command line.

    Attributes:
        key: Which argument is wrong: ``"architecture"``, ``"model_args"`` or ``"projection"``.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key


def build_backbone(
    architecture: str,
    model_args: Mapping[str, Any] | None = None,
    *,
    drop_path: float = 0.0,
    pretrained: bool = False,
    projection: int = 0,
) -> nn.Module:
    """Build a timm model whose classifier is left out, or is a projection of the embedding.

    Args:
        architecture: A name in timm, such as ``"resnet18"`` or ``"resnet18.a1_in1k"``, or of a
            backbone of this package, ``"vmamba_tiny"``.
        model_args: Arguments for ``timm.create_model``, plain JSON.
        drop_path: Stochastic depth rate, in [0, 1).
        pretrained: Load timm's own weights instead of initialising random ones.
        projection: Length of the projected embedding; 0 leaves the embedding as it is.

    Returns:
        A module that maps (batch, 3, height, width) to (batch, ``embedding_length``).

    Raises:
        BackboneError: When timm does not know the name (``key`` is ``"architecture"``), refuses an
            argument or cannot get the weights (``"model_args"``, with timm's exception as the
            cause), or builds no place for a projection (``"projection"``).

    Example:
        >>> embedding_length(build_backbone("resnet18"))
        512
    """
    own.register(architecture)
    if not timm.is_model(architecture):
        known = [*timm.list_models(f"{architecture[:3].lower()}*"), *own.OWN_BACKBONES]
        hint = suggest(architecture.lower(), known)
        raise BackboneError(
            "architecture",
            f"timm {timm.__version__} has no model {architecture!r}. {hint[:300]}",
        )
    options = dict(model_args or {})
    extra: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        backbone = timm.create_model(
            architecture, pretrained=pretrained, num_classes=projection, **options, **extra
        )
    except Exception as error:  # the exception depends on the architecture and its arguments
        raise BackboneError(
            "model_args", f"timm cannot build {architecture} with {options}: {error}"
        ) from error
    assert isinstance(backbone, nn.Module)
    if projection:
        _check_projection(backbone, architecture)
    return backbone


def trained_pooling(architecture: str) -> dict[str, Any]:
    """Arguments for ``timm.create_model`` that pool as the published weights were trained.

    Args:
        architecture: A name in timm, with or without a tag.

    Returns:
        None of them where timm's default is right.

    Example:
        >>> trained_pooling("vit_small_patch16_dinov3.lvd1689m"), trained_pooling("resnet18")
        ({'global_pool': 'token'}, {})
    """
    return {"global_pool": "token"} if _TOKEN_POOLED.fullmatch(architecture) else {}


def other_crop(data: Mapping[str, Any]) -> str | None:
    """What is to be said where timm prepares photos otherwise than by a centre crop.

    Args:
        data: What ``timm.data.resolve_data_config`` returned.

    Returns:
        A sentence; None for the centre crop, which is the only one here.

    Example:
        >>> other_crop({"crop_mode": "center"}) is None
        True
    """
    if (done := _CROP_MODES.get(str(data.get("crop_mode")))) is None:
        return None
    return (
        f"Photos that are not square are cut to their centre here; timm {done} for these weights "
        f"(crop_mode {data['crop_mode']!r}), so embeddings and figures differ from timm's"
    )


def classifier_name(backbone: nn.Module) -> str | None:
    """Where a timm model applies its one linear classifier.

    Args:
        backbone: Built with a classifier.

    Returns:
        The module's name, such as ``"fc"``; None for a classifier that is something else, such as
        the two of a distilled transformer.

    Example:
        >>> classifier_name(timm.create_model("resnet18"))
        'fc'
    """
    model: Any = backbone
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None
    if not isinstance(classifier, nn.Linear) or classifier.bias is None:
        return None
    if classifier.in_features != embedding_length(backbone):
        return None
    names: dict[Any, str] = {module: name for name, module in backbone.named_modules()}
    return names[classifier]


def _check_projection(backbone: nn.Module, architecture: str) -> None:
    if classifier_name(backbone) is None:
        raise BackboneError(
            "projection",
            f"expected a network whose classifier is one linear layer with a bias on the pooled "
            f"embedding, as most have; {architecture} has another",
        )


def faster_in_channels_last(backbone: nn.Module) -> bool:
    """Whether a CPU computes a network faster, or as fast, on images in ``torch.channels_last``.

    It does where every kernel larger than 1×1 but the first layer's is depthwise, as in
    EfficientNet and MobileNet: such weights need no other order. Weights of other kernels would
    be put in order again for every batch (ResNets: 0.8 to 1.3 times as fast).

    Args:
        backbone: Built by ``build_backbone``.

    Returns:
        True for the two families for which it was measured (``benchmarks/channels_last.py``).

    Example:
        >>> faster_in_channels_last(build_backbone("efficientnet_lite0"))
        True
        >>> faster_in_channels_last(build_backbone("resnet18"))
        False
    """
    if not isinstance(backbone, (EfficientNet, MobileNetV3)):
        return False
    convolutions = [part for part in backbone.modules() if isinstance(part, nn.Conv2d)]
    wide = [one for one in convolutions if max(one.kernel_size) > 1]
    dense = sum(one.weight.numel() for one in wide if one.groups < one.in_channels)
    return dense < DENSE_SHARE * sum(one.weight.numel() for one in convolutions)


def embedding_length(backbone: nn.Module) -> int:
    """Length of the embedding that a timm model gives before its classifier.

    Args:
        backbone: Built by ``build_backbone``.

    Returns:
        timm's ``head_hidden_size`` for the few models that keep a hidden layer of their head
        (MobileNetV3 and others), else ``num_features``.
    """
    length = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    assert isinstance(length, int)
    return length
