"""BatchNorm with the statistics of the whole batch over all processes."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from clever_hub.errors import ConfigError
from clever_training.runtime.gathering import stacked, world_size

M = TypeVar("M", bound=nn.Module)


def normalize(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    """A training pass of BatchNorm over all processes; it updates the running statistics.

    Args:
        norm: The layer.
        inputs: This process's share, (batch, channels, …); of the same size in every process.

    Returns:
        The normalised inputs; gradients flow to all processes.
    """
    result, mean, variance = _Normalize.apply(inputs, norm.weight, norm.bias, norm.eps)
    if norm.running_mean is not None and norm.running_var is not None:
        count = inputs.numel() // inputs.shape[1] * world_size()
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * count / max(1, count - 1), momentum)
    normalized: Tensor = result
    return normalized


class _Normalize(torch.autograd.Function):
    """BatchNorm by torch's own kernels, with an exchange of statistics between them.

    Each kernel passes over the map once. The same in differentiable operations takes about twenty
    passes, which take as long as all convolutions of a ResNet-50 together.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.stack(torch.batch_norm_update_stats(inputs.float(), None, None, 0.0))
        means, variances = stacked(own).unbind(dim=1)  # (processes, channels) each
        mean = means.mean(dim=0)
        # Not the mean of squares minus the square of the mean, which would lose precision.
        variance = (variances + (means - mean).square()).mean(dim=0)
        result: Tensor = torch.native_batch_norm(
            inputs, weight, bias, mean, variance, False, 0.0, eps
        )[0]
        ctx.save_for_backward(inputs, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, variance = ctx.saved_tensors
        # Σ grad · normalised and Σ grad of every channel, over this process's photos.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            grad, inputs, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = stacked(torch.stack([of_weight, of_bias])).sum(dim=0)
        # The direct gradient, and the gradient through the statistics, which depend on the photos
        # of all processes: grad · direct + inputs · slope + offset.
        scale = torch.rsqrt(variance + ctx.eps)
        direct = scale if weight is None else scale * weight
        count = inputs.numel() // inputs.shape[1] * world_size()
        slope = -direct / count * scale * sums[0]
        offset = -direct / count * sums[1] - slope * mean
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        through = torch.addcmul(offset.view(shape), inputs, slope.view(shape))
        through = through.addcmul_(grad, direct.view(shape))
        needed = (None, None) if weight is None else (of_weight, of_bias)
        return through.to(inputs.dtype), *needed, None


class _Shared:
    """Use the statistics of all processes in training, else the layer's own forward pass."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- torch's name
        assert isinstance(self, _BatchNorm)
        if not self.training or world_size() == 1:
            result: Tensor = super().forward(input)  # type: ignore[misc]
            return result
        result = normalize(self, input)
        if isinstance(self, BatchNormAct2d):
            result = self.act(self.drop(result))
        return result


class SharedBatchNorm1d(_Shared, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over all processes."""


class SharedBatchNorm2d(_Shared, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over all processes."""


class SharedBatchNormAct2d(_Shared, BatchNormAct2d):
    """BatchNorm with activation of timm over all processes."""


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SharedBatchNorm1d,
    nn.BatchNorm2d: SharedBatchNorm2d,
    BatchNormAct2d: SharedBatchNormAct2d,
}


def share_batch_norm(module: M, device: torch.device) -> M:
    """Make every BatchNorm of a module take its statistics over all processes.

    On accelerators this is torch's SyncBatchNorm (timm's for its layers with an activation), which
    does not take CPU tensors; on the CPU the layers here do the same. Names and values of
    parameters and buffers do not change. With one process nothing changes.

    Args:
        module: The module, not wrapped yet.
        device: Where it will run.

    Returns:
        The module, or its replacement.

    Raises:
        ConfigError: On the CPU, for unknown kinds of BatchNorm.

    Example:
        >>> type(share_batch_norm(nn.BatchNorm1d(4), torch.device("cpu"))).__name__
        'BatchNorm1d'
    """
    if world_size() == 1:
        return module
    if device.type != "cpu":
        shared: M = convert_sync_batchnorm(module)
        return shared
    for part in module.modules():
        if type(part) in _SHARED:
            part.__class__ = _SHARED[type(part)]
        elif isinstance(part, _BatchNorm) and type(part) not in _SHARED.values():
            raise ConfigError(
                f"{type(part).__name__}: its statistics cannot be shared by processes on the CPU. "
                "Use one process, a GPU, or a backbone with plain BatchNorm"
            )
    return module
