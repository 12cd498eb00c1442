"""Frozen BatchNorm as part of the convolution before it.

With frozen statistics it is an affine map of each channel: behind a convolution a factor on its
weights, and a bias. So a pass through memory is saved in either direction, which is what networks
of cheap convolutions spend their time on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from clever_training.model.freezing import FrozenBatchNorm


class FoldedBatchNorm(FrozenBatchNorm):
    """A frozen BatchNorm whose affine map the convolution before it has done already."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's name
        """What is left of it: dropout and activation of timm's BatchNorm."""
        for name in ("drop", "act"):
            if name in self._modules:
                input = self.get_submodule(name)(input)  # noqa: A001
        return input


class Folding:
    """Comes before a kind of convolution: weights and bias with those of the norm behind it."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution and the affine map of its norm."""
        own: dict[str, Any] = self.__dict__
        norm, weight, bias = own["_norm"], own["_parameters"]["weight"], own["_parameters"]["bias"]
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.__dict__["eps"])
        shift = norm.bias - norm.running_mean * scale
        # An attribute of its own hides a parameter of the same name while it is there.
        own["weight"] = weight * scale.view(-1, 1, 1, 1)
        own["bias"] = shift if bias is None else shift + bias * scale
        try:
            result: Tensor = super().forward(input)  # type: ignore[misc]
        finally:
            del own["weight"], own["bias"]
        return result


def fold_frozen_batch_norm(backbone: nn.Module, size: int) -> nn.Module:
    """Let convolutions do what the frozen BatchNorm right behind them does.

    Names and values of parameters and buffers stay; results agree to rounding.

    Args:
        backbone: Changed in place; one without frozen BatchNorm stays as it is.
        size: Side of images that it takes: one pass shows which norm follows which convolution.

    Returns:
        The backbone.

    Example:
        >>> import timm
        >>> from clever_training.model.freezing import freeze_batch_norm
        >>> network = timm.create_model("resnet18", num_classes=0)
        >>> freeze_batch_norm(network)
        >>> type(fold_frozen_batch_norm(network, 64).bn1).__name__
        'FoldedBatchNorm'
    """
    if any(isinstance(part, FrozenBatchNorm) for part in backbone.modules()):
        for conv, norm in _pairs(backbone, size):
            conv.__dict__["_norm"] = norm  # no submodule: its parameters are the norm's own
            conv.__class__ = _folding(type(conv))  # type: ignore[arg-type]
            norm.__class__ = FoldedBatchNorm
    return backbone


@cache
def _folding(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    made: type[nn.Conv2d] = type(f"Folding{kind.__name__}", (Folding, kind), {})
    return made


@torch.no_grad()
def _pairs(backbone: nn.Module, size: int) -> list[tuple[nn.Conv2d, FrozenBatchNorm]]:
    """Each norm whose input is what a convolution has just given out, both used once."""
    last: list[tuple[nn.Conv2d, Tensor]] = []
    calls: dict[nn.Module, int] = {}
    found: dict[nn.Conv2d, FrozenBatchNorm] = {}

    def after(conv: Any, _: object, output: Tensor) -> None:
        last[:] = [(conv, output)]
        calls[conv] = calls.get(conv, 0) + 1

    def before(norm: Any, arguments: tuple[Tensor, ...]) -> None:
        calls[norm] = calls.get(norm, 0) + 1
        if last and arguments[0] is last[0][1]:
            found[last[0][0]] = norm

    hooks = []
    for part in backbone.modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(after))
        elif isinstance(part, FrozenBatchNorm):
            hooks.append(part.register_forward_pre_hook(before))
    was_training = backbone.training
    backbone.eval()
    backbone(torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device))
    backbone.train(was_training)
    for hook in hooks:
        hook.remove()
    return [pair for pair in found.items() if calls[pair[0]] == calls[pair[1]] == 1]
