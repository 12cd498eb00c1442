"""Batches larger than memory: the backbone takes them in parts, the losses as a whole.

The usual sum of the gradients of small batches changes every loss that compares photos with each
other: negatives, variances and covariances, and CLeVER's orthogonality, which is the absolute value
of a mean over the batch. Here each part passes through the backbone without keeping activations.
Heads and losses work on all embeddings, and the backward pass computes each part's activations
again. Loss and gradients are thus those of the whole batch for any objective. The price is a second
forward pass of the student's backbone; gradients are exchanged once per step. The idea is
GradCache's (Gao et al. 2021, https://arxiv.org/abs/2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from clever_hub.errors import ConfigError


def take_in_parts(backbone: nn.Module, parts: int) -> None:
    """Make a backbone take each batch in equal parts, one after another.

    Args:
        backbone: Changed in place; its parameters keep their names.
        parts: Number of parts.

    Raises:
        ConfigError: When the backbone has BatchNorm, whose statistics would be those of a part.
    """
    if parts == 1:
        return
    norms = [name for name, part in backbone.named_modules() if isinstance(part, _BatchNorm)]
    if norms:
        raise ConfigError(
            f"run.accumulation: {parts}, but the backbone has BatchNorm ({norms[0]} and "
            f"{len(norms) - 1} more), whose statistics would be those of a part of the batch, "
            "which changes the loss. Use a backbone without it, such as vit_small_patch16_224, or "
            "more processes, which share BatchNorm's statistics"
        )
    # setattr, since releases of torch differ in whether forward is typed as a method.
    object.__setattr__(backbone, "forward", partial(_in_parts, backbone.forward, parts))


def _in_parts(forward: Callable[..., Any], parts: int, images: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.cat([forward(part) for part in images.chunk(parts)])
    # The generator's state is kept with each part, so that drop path drops the same again.
    return torch.cat(
        [checkpoint(forward, part, use_reentrant=False) for part in images.chunk(parts)]
    )
