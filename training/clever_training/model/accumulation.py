"""A batch larger than memory: the backbone takes it in parts, the losses take it whole.

Summing the gradients of small batches, as is usual, changes every loss that compares photos with
each other: negatives, variances and covariances, and CLeVER's orthogonality, the absolute value of
a mean over the batch. Here each part passes the backbone without keeping activations, heads and
losses work on the embeddings of all, and the backward pass computes each part's activations again.
So loss and gradients are those of the whole batch whatever the objective, at the price of a second
forward pass of the student's backbone, and there is one exchange of gradients per step however many
parts there are. The idea is GradCache's (Gao et al. 2021, https://arxiv.org/abs/2101.06983).
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
    """Let a backbone take each batch in equal parts, one after another.

    Args:
        backbone: Changed in place; its parameters keep their names.
        parts: How many.

    Raises:
        ConfigError: When it has BatchNorm, whose statistics would be those of a part.
    """
    if parts == 1:
        return
    norms = [name for name, part in backbone.named_modules() if isinstance(part, _BatchNorm)]
    if norms:
        raise ConfigError(
            f"run.accumulation: {parts}, but the backbone has BatchNorm ({norms[0]} and "
            f"{len(norms) - 1} more), whose statistics would be those of a part of the batch: "
            "another loss. Use a backbone without it, such as vit_small_patch16_224, or more "
            "processes, over which BatchNorm is shared"
        )
    # Not by assignment: releases of torch differ in whether forward is typed as a method.
    object.__setattr__(backbone, "forward", partial(_in_parts, backbone.forward, parts))


def _in_parts(forward: Callable[..., Any], parts: int, images: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.cat([forward(part) for part in images.chunk(parts)])
    # Drop path draws the same again: the generator's state is kept with each part.
    return torch.cat(
        [checkpoint(forward, part, use_reentrant=False) for part in images.chunk(parts)]
    )
