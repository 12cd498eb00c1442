"""Backbones to pre-train: timm's, by name, from random or pretrained weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clever_hub.backends.timm import BackboneError, build_backbone, embedding_length
from clever_hub.errors import ConfigError

_RGB = 3


def create_backbone(
    architecture: str,
    model_args: dict[str, Any] | None = None,
    drop_path: float = 0.0,
    *,
    pretrained: bool = False,
) -> nn.Module:
    """Build a timm backbone with pooled features.

    Args:
        architecture: A name in timm, such as ``"resnet18"``.
        model_args: Arguments for ``timm.create_model``, plain JSON.
        drop_path: Stochastic depth rate, for training only; no part of the shipped model.
        pretrained: Start from timm's own weights instead of random ones.

    Returns:
        A module that maps (batch, 3, height, width) to (batch, num_features).

    Raises:
        ConfigError: When timm does not know the name, refuses an argument, has no weights for it
            or cannot get them.

    Example:
        >>> create_backbone("resnet18").num_features
        512
    """
    try:
        return build_backbone(architecture, model_args, drop_path=drop_path, pretrained=pretrained)
    except BackboneError as error:
        if pretrained and error.key == "model_args":
            raise ConfigError(
                f"backbone.init: timm: no weights for {architecture} with model_args {model_args}: "
                f"{error.__cause__} They come from the Hub once, then from its cache; or start "
                "from random or from a clever model, by name or folder"
            ) from error
        raise ConfigError(f"backbone.{error}") from error


# Keys of a model's provenance that go into that of a run which starts from it.
_HISTORY = ("method", "data", "teacher", "epochs", "hours", "imported", "start")
_OPEN = "apache-2.0"  # that of a run from random weights


def start_backbone(
    architecture: str, model_args: dict[str, Any], drop_path: float, init: str
) -> tuple[nn.Module, dict[str, Any]]:
    """A backbone with the weights that a run starts from.

    Args:
        architecture: A name in timm.
        model_args: Arguments for ``timm.create_model``.
        drop_path: Stochastic depth rate.
        init: ``random``, ``timm``, or a clever model as ``clever_hub.from_pretrained`` takes it.

    Returns:
        The backbone, and the origin of its weights for the provenance: ``init`` (the model's name
        when a folder was given) and, unless they are random, ``name``. timm's weights add
        ``tensors_sha256``. A clever model adds ``weights_sha256``, the hash of its file, and its
        own ``method``, ``data``, ``teacher``, ``epochs``, ``hours``, ``imported`` and ``start`` if
        it has them. ``license`` and ``data_terms`` are there where they are others than a run's.

    Raises:
        ConfigError: When the clever model has another architecture, or does not fit.
        ModelNotFoundError: When there is no such model.
    """
    if init == "random":
        return create_backbone(architecture, model_args, drop_path), {"init": init}
    if init == "timm":
        backbone = create_backbone(architecture, model_args, drop_path, pretrained=True)
        source: Any = backbone.pretrained_cfg
        name = f"{source.get('architecture', architecture)}.{source.get('tag', '')}".rstrip(".")
        digest = tensors_sha256(backbone.state_dict())
        origin = {"init": init, "name": name, "tensors_sha256": digest}
        return backbone, origin | terms_of(source.get("license") or "unknown")
    return _from_clever_model(architecture, model_args, drop_path, init)


def _from_clever_model(
    architecture: str, model_args: dict[str, Any], drop_path: float, init: str
) -> tuple[nn.Module, dict[str, Any]]:
    from clever_hub.pretrained import from_pretrained

    model = from_pretrained(init)
    config = model.config
    if config.architecture != architecture:
        raise ConfigError(
            f"backbone.init: {init} is a {config.architecture}, but backbone.architecture is "
            f"{architecture}. Set it to {config.architecture}, or start from another model"
        )
    if config.projection:
        raise ConfigError(
            f"backbone.init: {init} has a projection after its pooled features, as `clever-hub "
            "split` writes it, which a run would not train. Start from the model that was split"
        )
    backbone = create_backbone(architecture, model_args, drop_path)
    try:
        backbone.load_state_dict(model.backbone.state_dict(), strict=True)
    except RuntimeError as error:
        raise ConfigError(
            f"backbone.init: the weights of {init} do not fit {architecture} with backbone."
            f"model_args {model_args}; its own are {dict(config.model_args)}: {error}"
        ) from error
    assert model.source is not None
    return backbone, {
        # The provenance is published, so it holds the model's name and not the folder's path.
        "init": config.name if Path(init).expanduser().is_dir() else init,
        "name": config.name,
        "weights_sha256": model.source.weights_sha256,
        **{key: config.provenance[key] for key in _HISTORY if key in config.provenance},
        **terms_of(config.license, config.data_terms),
    }


def terms_of(license_: str, data_terms: str = "") -> dict[str, str]:
    """The terms of weights that are told of with what is made from them.

    Args:
        license_: SPDX identifier of their licence.
        data_terms: Terms of the data that they were trained on.

    Returns:
        ``license`` and ``data_terms``, where they are others than a run's.

    Example:
        >>> terms_of("cc-by-nc-4.0"), terms_of("apache-2.0")
        ({'license': 'cc-by-nc-4.0'}, {})
    """
    terms = {} if license_ == _OPEN else {"license": license_}
    return terms | ({"data_terms": data_terms} if data_terms else {})


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names; it does not depend on the file that holds them.

    ``weights_sha256`` is the hash of a weights file instead.

    Args:
        state: Tensors by name.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> import torch
        >>> tensors_sha256({"a": torch.zeros(2)})[:8]
        '50edc262'
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def checkpoint_gradients(backbone: nn.Module, architecture: str) -> None:
    """Make a backbone recompute activations in the backward pass, which saves memory.

    Args:
        backbone: Changed in place.
        architecture: Its name, for errors.

    Raises:
        ConfigError: When timm does not support it for this architecture.
    """
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        raise ConfigError(
            f"backbone.gradient_checkpointing: timm has none for {architecture}. Remove the key"
        ) from error


def count_batches_once(backbone: nn.Module) -> None:
    """Update BatchNorm's running statistics once per batch under gradient checkpointing.

    Otherwise the recomputation in the backward pass would update them a second time.

    Args:
        backbone: Changed in place; its BatchNorm layers are already those of the training.
    """
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_hold)
            module.register_forward_hook(_release, always_call=True)


_HELD = "_momentum_of_the_first_pass"


def _hold(norm: nn.Module, _: object) -> None:
    assert isinstance(norm, _BatchNorm)
    if torch._C._current_graph_task_id() != -1:  # in a backward pass
        setattr(norm, _HELD, norm.momentum)
        norm.momentum = 0.0


def _release(norm: nn.Module, *_: object) -> None:
    assert isinstance(norm, _BatchNorm)
    if hasattr(norm, _HELD):
        norm.momentum = getattr(norm, _HELD)
        delattr(norm, _HELD)
        if norm.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.sub_(1)


def check_size(backbone: nn.Module, what: str, size: int) -> None:
    """Check that a backbone turns images of a size into embeddings.

    Args:
        backbone: The backbone, in eval mode.
        what: Names the backbone and the setting of the size in the error.
        size: Side of the square images, in pixels.

    Raises:
        ConfigError: When it does not take such images, or its output is no embedding.
    """
    try:
        with torch.no_grad():
            device = next(backbone.parameters()).device
            shape = tuple(backbone(torch.zeros(1, 3, size, size, device=device)).shape)
    except Exception as error:  # a backbone may raise anything
        if (channels := _input_channels(backbone, size)) != _RGB:
            raise ConfigError(
                f"{what} takes images of {channels} channels, and models here take RGB: grey "
                "photos are converted, their three channels being the same. Leave in_chans out of "
                "model_args (of a recipe: backbone.model_args)"
            ) from error
        raise ConfigError(
            f"{what} takes no RGB images of {size} x {size} pixels ({error}). For several sizes, a "
            "vision transformer needs model_args (of a recipe: backbone.model_args): "
            "{img_size: ..., dynamic_img_size: true}"
        ) from error
    expected = (1, embedding_length(backbone))
    if shape != expected:
        raise ConfigError(
            f"{what}: expected an embedding of shape {expected}, got {shape}. Use a backbone with "
            "pooled features, and do not change its pooling"
        )


@torch.no_grad()
def _input_channels(backbone: nn.Module, size: int) -> int:
    """How many channels the images have that a backbone takes; 3 where it takes none."""
    convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    if first is None:
        return _RGB
    try:  # a stem may rearrange its images before the first convolution
        backbone(torch.zeros(1, first.in_channels, size, size, device=first.weight.device))
    except Exception:  # noqa: BLE001 -- a backbone may raise anything
        return _RGB
    return first.in_channels
