"""Pretrained networks by name, timm's and clever models, with what each of them was made with.

Size, interpolation, mean, standard deviation and pooling belong to weights: a network that is fed
or read otherwise than it was trained is another, worse one.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config

from clever_hub.backends.timm import (
    BackboneError,
    build_backbone,
    embedding_length,
    other_crop,
    trained_pooling,
)
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelNotFoundError
from clever_hub.pretrained import from_pretrained

TIMM = "timm:"


def load_pretrained(specification: str, device: str | None = None) -> CleverModel:
    """A pretrained network, in eval mode.

    Args:
        specification: ``timm:NAME`` for pretrained weights of timm; else a clever model as
            ``clever_hub.from_pretrained`` takes it.
        device: Where to compute; None is the CPU.

    Returns:
        The model; that of timm has no equivariant part.

    Raises:
        ModelNotFoundError: When there is no such model, or its weights cannot be had.
    """
    if specification.startswith(TIMM):
        return _timm_model(specification.removeprefix(TIMM), device)
    return from_pretrained(specification, device=device)


def pretrained_config(specification: str) -> ModelConfig:
    """What a pretrained network is and how its images are prepared.

    Args:
        specification: As ``load_pretrained`` takes it; of timm without loading any weights.

    Raises:
        ModelNotFoundError: When there is no such model.
    """
    if specification.startswith(TIMM):
        return timm_config(specification.removeprefix(TIMM))
    return from_pretrained(specification).config


def timm_config(name: str, model_args: dict[str, Any] | None = None) -> ModelConfig:
    """A config for a timm model: its own preprocessing and pooling, and no equivariant part.

    Warns where timm prepares photos otherwise than by a centre crop.

    Args:
        name: A name in timm, with or without a tag.
        model_args: Further arguments for ``timm.create_model``.

    Returns:
        The config.

    Raises:
        ModelNotFoundError: When timm has no such model.

    Example:
        >>> timm_config("tf_efficientnet_lite0").preprocessing.mean
        (0.5, 0.5, 0.5)
    """
    arguments = {**trained_pooling(name), **(model_args or {})}
    try:
        # Built on the meta device, since only its sizes are needed.
        with torch.device("meta"):
            backbone = build_backbone(name, arguments)
    except BackboneError as error:
        raise ModelNotFoundError(f"timm:{name}: {error}") from error
    data = resolve_data_config({}, model=backbone)  # type: ignore[no-untyped-call]
    if words := other_crop(data):
        warnings.warn(f"timm:{name}: {words}", stacklevel=2)
    size = int(data["input_size"][-1])
    width = embedding_length(backbone)
    return ModelConfig(
        name=name,
        architecture=name.partition(".")[0],
        model_args=arguments,
        num_features=width,
        invariant_dim=width,
        preprocessing=PreprocessingConfig(
            # Rounded as timm does, which pads where its crop is the larger one.
            resize_size=max(size, math.floor(size / data["crop_pct"])),
            crop_size=size,
            interpolation=data["interpolation"],
            mean=data["mean"],
            std=data["std"],
        ),
        license=timm_license(name),
    )


def timm_license(name: str) -> str:
    """The licence of a timm model's weights.

    Args:
        name: A name in timm, with or without a tag.

    Returns:
        An SPDX identifier; ``unknown`` where timm has none.

    Example:
        >>> timm_license("resnet18.a1_in1k"), timm_license("no_such_model")
        ('apache-2.0', 'unknown')
    """
    return str(getattr(timm.get_pretrained_cfg(name), "license", None) or "unknown")


def _timm_model(name: str, device: str | None) -> CleverModel:
    config = timm_config(name)
    try:
        backbone = build_backbone(name, config.model_args, pretrained=True)
    except BackboneError as error:
        raise ModelNotFoundError(
            f"timm:{name}: its pretrained weights cannot be loaded ({error.__cause__}). Without a "
            f"network only cached weights can; random:timm:{name} needs no weights"
        ) from error
    model = CleverModel(config)
    model.backbone.load_state_dict(backbone.state_dict(), strict=True)
    return model.to(torch.device(device or "cpu")).eval()
