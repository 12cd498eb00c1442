"""timm's backbones: the one place that builds them and knows how long their embedding is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from clever_hub.backends import own
from clever_hub.errors import CleverError, suggest


class BackboneError(CleverError):
    """timm cannot build a backbone.

    Callers turn it into their own error: the architecture may come from a config, a recipe or the
    command line.

    Attributes:
        key: Which argument is wrong: ``"architecture"`` or ``"model_args"``.
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
) -> nn.Module:
    """Build a timm model without its classifier.

    Args:
        architecture: A name in timm, such as ``"resnet18"`` or ``"resnet18.a1_in1k"``, or of a
            backbone of this package, ``"vmamba_tiny"``.
        model_args: Arguments for ``timm.create_model``, plain JSON.
        drop_path: Stochastic depth rate, in [0, 1).
        pretrained: Load timm's own weights instead of initialising random ones.

    Returns:
        A module that maps (batch, 3, height, width) to (batch, ``embedding_length``).

    Raises:
        BackboneError: When timm does not know the name (``key`` is ``"architecture"``), or refuses
            an argument or cannot get the weights (``"model_args"``, with timm's exception as the
            cause).

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
            architecture, pretrained=pretrained, num_classes=0, **options, **extra
        )
    except Exception as error:  # the exception depends on the architecture and its arguments
        raise BackboneError(
            "model_args", f"timm cannot build {architecture} with {options}: {error}"
        ) from error
    assert isinstance(backbone, nn.Module)
    return backbone


def embedding_length(backbone: nn.Module) -> int:
    """Length of the embedding that a timm model without a classifier gives.

    Args:
        backbone: Built by ``build_backbone``.

    Returns:
        timm's ``head_hidden_size`` for the few models that keep a hidden layer of their head
        (MobileNetV3 and others), else ``num_features``.
    """
    length = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    assert isinstance(length, int)
    return length
