"""Differentiable collectives.

All objectives follow one convention: each process returns the loss of the *whole* batch, and the
gradients of the processes are averaged afterwards, as DistributedDataParallel does. The gradient of
a process's tensor is therefore the sum of the gradients from all processes. Without a process group
every function here but ``stacked`` returns its argument.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_photos(
    views: Float[Tensor, "views batch dim"],
) -> Float[Tensor, "views whole_batch dim"]:
    """Gather vectors of the photos of all processes, process by process; differentiable.

    Args:
        views: Vectors of this process's photos; every process must have as many.

    Returns:
        Vectors of all photos.

    Example:
        >>> gather_photos(torch.zeros(2, 8, 4)).shape
        torch.Size([2, 8, 4])
    """
    if world_size() == 1:
        return views
    result: Tensor = _Gather.apply(views)
    return result


def average(value: Tensor) -> Tensor:
    """The mean of a tensor over the processes; differentiable.

    Args:
        value: A tensor of the same shape in every process.

    Returns:
        A new tensor, the same in every process.

    Example:
        >>> average(torch.tensor(3.0))
        tensor(3.)
    """
    if world_size() == 1:
        return value
    result: Tensor = _Sum.apply(value)
    return result / world_size()


def from_first_process(value: Tensor) -> Tensor:
    """Send the first process's tensor to all, such as random numbers; not differentiable.

    Args:
        value: A tensor of the same shape in every process; overwritten in all but the first.

    Returns:
        The same tensor.
    """
    if world_size() > 1:
        dist.broadcast(value, src=0)
    return value


def stacked(value: Tensor) -> Tensor:
    """Stack a tensor of every process; not differentiable. It needs a process group.

    Args:
        value: A tensor of the same shape and dtype in every process.

    Returns:
        All of them in the order of the processes, along a new first dimension.
    """
    return torch.stack(_of_all(value))


def _of_all(value: Tensor) -> list[Tensor]:
    value = value.contiguous()
    parts = [torch.empty_like(value) for _ in range(world_size())]
    dist.all_gather(parts, value)
    return parts


# Up to this size one gather plus a local sum is faster than gloo's all-reduce, which takes two
# round trips.
_FEW = 1 << 14


def _total(value: Tensor) -> Tensor:
    if value.numel() <= _FEW:
        return stacked(value).sum(dim=0)
    total = value.contiguous().clone()
    dist.all_reduce(total)
    return total


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, views: Tensor) -> Tensor:
        ctx.batch = views.shape[1]
        return torch.cat(_of_all(views), dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _total(grad)[:, dist.get_rank() * ctx.batch :][:, : ctx.batch]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 -- the interface's
        return _total(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ARG004 -- the interface's
        return _total(grad)
