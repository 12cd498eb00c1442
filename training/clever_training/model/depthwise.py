"""Faster gradients of depthwise convolutions on a CPU, which EfficientNets and MobileNets have.

oneDNN computes every depthwise convolution fast, but two of its gradients only for some shapes; for
the others it falls back to code that takes 10 to 100 times as long, and most of a training step:

- In bf16, the gradient of the input under a stride. It is a convolution with stride 1: of the
  output's gradient, zeros put between its pixels, with the kernel turned by 180°.
- The gradient of a kernel wider than 3. Each of its columns is independent of the others, so it is
  put together from the gradients of kernels 3 wide, each of a strip of the input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# The widest kernel whose gradient oneDNN computes fast.
_WIDTH = 3


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise ``Conv2d`` whose gradients are fast for every kernel and stride."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution."""
        assert isinstance(self.padding, tuple)
        return _convolve(input, self, (self.padding[0], self.padding[1]))


class DepthwiseConv2dSame(Conv2dSame):
    """The same, padded as TensorFlow does it."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution."""
        padded = pad_same(input, list(self.kernel_size), list(self.stride))
        return _convolve(padded, self, (0, 0))


def speed_up_depthwise(module: nn.Module) -> nn.Module:
    """Let every depthwise convolution of a module have fast gradients on a CPU.

    Names and values of the parameters stay as they are; results agree to rounding. There are no
    second derivatives.

    Args:
        module: Changed in place.

    Returns:
        The module.

    Example:
        >>> conv = speed_up_depthwise(nn.Conv2d(8, 8, 5, padding=2, groups=8))
        >>> conv(torch.zeros(1, 8, 6, 6)).shape
        torch.Size([1, 8, 6, 6])
    """
    kinds: dict[type[nn.Module], type[nn.Conv2d]] = {
        nn.Conv2d: DepthwiseConv2d,
        Conv2dSame: DepthwiseConv2dSame,
    }
    for part in module.modules():
        kind = kinds.get(type(part))
        if kind is not None and isinstance(part, nn.Conv2d) and _gains(part):
            part.__class__ = kind
    return module


def _gains(conv: nn.Conv2d) -> bool:
    """Whether it is depthwise, and oneDNN is slow at one of its gradients."""
    depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
    plain = conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    if not depthwise or not plain or isinstance(conv.padding, str):
        return False
    # A kernel that does not reach its neighbours would leave pixels out.
    covered = all(k >= s for k, s in zip(conv.kernel_size, conv.stride, strict=True))
    inside = all(p < k for k, p in zip(conv.kernel_size, conv.padding, strict=True))
    return covered and inside and (conv.kernel_size[1] > _WIDTH or max(conv.stride) > 1)


def _convolve(input: Tensor, conv: nn.Conv2d, padding: tuple[int, int]) -> Tensor:  # noqa: A002 -- torch's name
    weight, bias = conv.weight, conv.bias
    if torch.is_autocast_enabled("cpu"):
        # As autocast does with a convolution; it does not look into a function of one's own.
        dtype = torch.get_autocast_dtype("cpu")
        input, weight = input.to(dtype), weight.to(dtype)  # noqa: A001 -- torch's name
        bias = None if bias is None else bias.to(dtype)
    output: Tensor = _Depthwise.apply(input, weight, bias, conv.stride, padding)
    return output


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution: torch's own forward, other gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,  # noqa: A002 -- torch's name
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(input, weight, bias, stride, padding, 1, weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_input = _gradient_of_input(gradient, pixels, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(gradient, pixels, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(dim=(0, 2, 3))
        return of_input, of_weight, of_bias, None, None


def _gradient_of_input(
    gradient: Tensor,
    pixels: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    if max(stride) == 1 or gradient.dtype == torch.float32:
        native: Tensor = _native(gradient, pixels, weight, stride, padding)[0]
        return native
    height, width = (
        size + 2 * pad - kernel + 1
        for size, pad, kernel in zip(pixels.shape[2:], padding, weight.shape[2:], strict=True)
    )
    spread = _zeros(gradient, height, width)
    rows, columns = gradient.shape[2:]
    last_row, last_column = (rows - 1) * stride[0], (columns - 1) * stride[1]
    spread[:, :, : last_row + 1 : stride[0], : last_column + 1 : stride[1]] = gradient
    turned = weight.flip(2, 3)
    around = [kernel - 1 - pad for kernel, pad in zip(weight.shape[2:], padding, strict=True)]
    return F.conv2d(spread, turned, None, 1, around, 1, weight.shape[0])


def _gradient_of_weight(
    gradient: Tensor,
    pixels: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    kernel = weight.shape[3]
    if kernel <= _WIDTH:
        native: Tensor = _native(gradient, pixels, weight, stride, padding, of_weight=True)[1]
        return native
    found = torch.empty_like(weight)
    # Only the shape of the weight counts here, and its layout: of another one oneDNN makes copies.
    narrow = _empty(weight, (*weight.shape[:3], _WIDTH), _layout(pixels))
    # A kernel that is taller than the map is slow as well, unless the map is padded before.
    tall = padding[0] if pixels.shape[2] < weight.shape[2] else 0
    height, reach = pixels.shape[2] + 2 * tall, (gradient.shape[3] - 1) * stride[1] + _WIDTH
    for column in sorted({min(start, kernel - _WIDTH) for start in range(0, kernel, _WIDTH)}):
        # The columns that these three of the kernel meet; beyond the edges there are zeros.
        first = column - padding[1]
        start, end = max(first, 0), min(first + reach, pixels.shape[3])
        whole = tall == 0 and end - start == reach
        strip = (_like if whole else _zeros)(pixels, height, reach)
        strip[:, :, tall : height - tall, start - first : end - first] = pixels[..., start:end]
        part = _native(gradient, strip, narrow, stride, (padding[0] - tall, 0), of_weight=True)[1]
        found[..., column : column + _WIDTH] = part
    return found


def _native(
    gradient: Tensor,
    pixels: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    *,
    of_weight: bool = False,
) -> Any:
    """Those of torch itself: of the input, or of the weight."""
    return torch.ops.aten.convolution_backward(
        *(gradient, pixels, weight, None, stride, padding, (1, 1), False, (0, 0)),
        weight.shape[0],
        (not of_weight, of_weight, False),
    )


def _zeros(like: Tensor, height: int, width: int) -> Tensor:
    """An empty tensor with the same batch, channels, dtype and layout."""
    return _like(like, height, width).zero_()


def _like(like: Tensor, height: int, width: int) -> Tensor:
    return _empty(like, (*like.shape[:2], height, width), _layout(like))


def _empty(like: Tensor, shape: tuple[int, ...], layout: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def _layout(pixels: Tensor) -> torch.memory_format:
    last = pixels.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
