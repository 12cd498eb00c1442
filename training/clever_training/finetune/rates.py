"""Learning rates that fall from the head to the first layer of the backbone."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn

from clever_hub.transformers import CleverForImageClassification
from clever_training.finetune.settings import FinetuneSettings

# timm's modules of self-attention, by the names of their classes: Attention, WindowAttention,
# HaloAttn, XCA, GPSA … Those that weigh channels, maps or pooled features are parts of ConvNets.
_ATTENTION = re.compile("attention|attn|XCA|GPSA|MHSA", re.IGNORECASE)
_OTHER = re.compile("pool|^Split|^Selective|^(Light)?(Channel|Spatial)Attn", re.IGNORECASE)


def parameter_groups(
    model: CleverForImageClassification, settings: FinetuneSettings
) -> list[dict[str, Any]]:
    """Parameters with their learning rate and weight decay.

    The last block has the head's rate times the layer decay, the block below times its square. A
    norm alone above the last block has the head's rate, as in BEiT.

    Args:
        model: The network; if its backbone is frozen, only the head requires gradients.
        settings: Learning rate and decays.

    Returns:
        Groups for an optimiser: the head first, then the backbone's layers.
    """
    rate, head = settings.learning_rate, model.clever_head
    groups: list[dict[str, Any]] = [
        {"params": [head.weight], "lr": rate, "weight_decay": settings.weight_decay},
        {"params": [head.bias], "lr": rate, "weight_decay": 0.0},
    ]
    if settings.freeze:
        return groups
    layers = _layers(model.backbone, settings.weight_decay)
    decay = settings.decay_for(_is_transformer(model.backbone, layers))
    return groups + [
        {"params": layer["params"], "weight_decay": layer["weight_decay"], "lr": rate * decay**down}
        for layer in layers
        for down in [layer["down"]]
    ]


def is_transformer(backbone: nn.Module) -> bool:
    """Whether half of a backbone's layers, or more, have self-attention; the stem does not count.

    A ConvNet with attention in its last stage, such as MobileNetV4 hybrid, is none.

    Args:
        backbone: A network of timm, or another.

    Example:
        >>> import timm
        >>> [is_transformer(timm.create_model(name)) for name in ("test_vit", "test_efficientnet")]
        [True, False]
    """
    return _is_transformer(backbone, _layers(backbone, 0.0))


def describe_rates(groups: Sequence[dict[str, Any]]) -> str:
    """The range of the learning rates, in a line.

    Args:
        groups: As from ``parameter_groups``; of an optimiser whose schedule has begun, ``lr`` is
            that of the moment and ``initial_lr`` the highest.

    Example:
        >>> describe_rates([{"lr": 0.001}, {"lr": 0.0009}, {"lr": 0.0001}])
        'learning rate 0.001 at the head, falling to 0.0001 at the first layer'
    """
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    if min(rates) == rates[0]:
        return f"learning rate {rates[0]:.3g}"
    return (
        f"learning rate {rates[0]:.3g} at the head, falling to {min(rates):.3g} at the first layer"
    )


def _layers(backbone: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Timm's groups of a backbone's parameters, and how many layers down from the head each is."""
    kept = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    layers: list[dict[str, Any]] = param_groups_layer_decay(
        backbone, weight_decay=weight_decay, no_weight_decay_list=kept, layer_decay=0.5
    )
    for layer in layers:
        layer["down"] = round(-math.log2(layer.pop("lr_scale")))
    top = [parameter for layer in layers if layer["down"] == 0 for parameter in layer["params"]]
    # timm counts from the last layer, which it takes for the head; here that is usually a block.
    if any(parameter.ndim > 1 for parameter in top):
        for layer in layers:
            layer["down"] += 1
    return layers


def _is_transformer(backbone: nn.Module, layers: list[dict[str, Any]]) -> bool:
    attending = {
        id(parameter)
        for module in backbone.modules()
        for name in [type(module).__name__]
        if _ATTENTION.search(name) and not _OTHER.search(name)
        for parameter in module.parameters()
    }
    every = {layer["down"] for layer in layers}
    found = {
        layer["down"]
        for layer in layers
        if any(id(parameter) in attending for parameter in layer["params"])
    }
    return bool(found) and 2 * len(found) >= len(every) - 1
