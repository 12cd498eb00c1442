"""Backbones to pre-train: timm's, by name."""

from __future__ import annotations

import math
from typing import Any

import timm
from torch import nn

from clever_hub.errors import ConfigError, suggest


def create_backbone(
    architecture: str, model_args: dict[str, Any] | None = None, drop_path: float = 0.0
) -> nn.Module:
    """Build a timm backbone with random weights and pooled features.

    Args:
        architecture: A name in timm, such as ``"resnet18"``.
        model_args: Arguments for ``timm.create_model``, plain JSON.
        drop_path: Stochastic depth rate, for training only; no part of the shipped model.

    Returns:
        A module that maps (batch, 3, height, width) to (batch, num_features).

    Raises:
        ConfigError: When timm does not know the name or refuses an argument.

    Example:
        >>> create_backbone("resnet18").num_features
        512
    """
    if not timm.is_model(architecture):
        hint = suggest(architecture, timm.list_models(f"{architecture[:3]}*"))
        raise ConfigError(
            f"backbone.architecture: timm has no model {architecture!r}. {hint[:300]}"
        )
    extra: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    try:
        backbone = timm.create_model(
            architecture, pretrained=False, num_classes=0, **(model_args or {}), **extra
        )
    except Exception as error:  # timm raises whatever its arguments lead to
        raise ConfigError(
            f"backbone.model_args: timm cannot build {architecture} with {model_args}: {error}"
        ) from error
    assert isinstance(backbone, nn.Module)
    return backbone


def embedding_length(backbone: nn.Module) -> int:
    """Length of the embedding that a timm backbone gives.

    Args:
        backbone: Built by ``create_backbone``.

    Returns:
        timm's ``head_hidden_size`` for the few that keep a hidden layer, else ``num_features``.
    """
    length = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    assert isinstance(length, int)
    return length


def invariant_length(num_features: int, split_ratio: float) -> int:
    """⌊ratio · d⌋, guarded against 0.8 · 5 = 4.000…1 and its kind.

    Args:
        num_features: d, the length of the embedding.
        split_ratio: The share of the invariant part, in (0, 1).

    Returns:
        The invariant part's length.

    Example:
        >>> invariant_length(2048, 0.8), invariant_length(512, 0.8), invariant_length(192, 0.8)
        (1638, 409, 153)
    """
    return math.floor(num_features * split_ratio + 1e-9)
