"""Faster convolutions on a CPU for small feature maps: the last stages of ResNets at up to 64 px.

For the gradient of the weights oneDNN computes one matrix product per photo, whose inner dimension
is the few pixels of a map. That takes several times longer than the arithmetic needs. Here each
output pixel is one product over the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Stride of a 3×3 convolution, and the sides of maps for which this is faster.
_SIDES = {1: (1, 2), 2: (2, 3)}
# The largest side, after the stride, for which this is faster for a 1×1 convolution.
_POINTWISE_SIDE = 4


class SmallMapConv2d(nn.Conv2d):
    """A 3×3 ``Conv2d`` that computes one product per output pixel where that is faster."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution."""
        height, width = input.shape[-2:]
        stride = self.stride[0]
        if height != width or height not in _SIDES[stride]:
            return super().forward(input)
        side = (height - 1) // stride + 1
        pixels = input.permute(0, 2, 3, 1)  # no copy when channels_last
        if stride == 1:
            # The kernel covers all n pixels: one product, (batch, in·n) by (out·n, in·n).
            matrix = torch.cat(
                [
                    self.weight[:, :, 1 - row : 1 - row + side, 1 - column : 1 - column + side]
                    .permute(0, 2, 3, 1)
                    .flatten(1)
                    for row in range(side)
                    for column in range(side)
                ]
            )
            flat = pixels.flatten(1) @ matrix.T
        else:
            places = [_met(place, height) for place in range(side)]
            flat = torch.cat(
                [
                    pixels[:, of_row, of_column].flatten(1)
                    @ self.weight[:, :, row, column].permute(0, 2, 3, 1).flatten(1).T
                    for of_row, row in places
                    for of_column, column in places
                ],
                dim=1,
            )
        rows = flat.view(-1, side, side, self.out_channels)
        return _as_map(rows if self.bias is None else rows + self.bias)


class SmallMapPointwise(nn.Conv2d):
    """A 1×1 ``Conv2d`` that is one product over all pixels of the batch where that is faster."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution."""
        # Pixels that the stride skips are dropped before the convolution.
        pixels = input[:, :, :: self.stride[0], :: self.stride[0]]
        if max(pixels.shape[-2:]) > _POINTWISE_SIDE:
            return super().forward(input)
        # The gradient gets the weight's strides, or several processes would copy it.
        weight = self.weight if self.weight.stride(3) == 1 else self.weight.permute(0, 2, 3, 1)
        return _as_map(F.linear(pixels.permute(0, 2, 3, 1), weight.flatten(1), self.bias))


def _as_map(rows: Float[Tensor, "batch height width channels"]) -> Tensor:
    """The channels moved forward, with the strides of gradients of maps of that size."""
    if rows.shape[1:3] == (1, 1):
        # For maps of one pixel channels_last differs only in the strides. Where those of a map and
        # its gradient differ, torch's BatchNorm takes ten times as long.
        return rows.flatten(1)[:, :, None, None]
    return rows.permute(0, 3, 1, 2)


def speed_up_small_maps(module: nn.Module) -> nn.Module:
    """Replace the convolutions of a module by faster ones for small feature maps.

    Names and values of the parameters do not change; results are equal up to rounding.

    Args:
        module: Changed in place.

    Returns:
        The module.

    Example:
        >>> conv = speed_up_small_maps(nn.Conv2d(8, 8, 3, padding=1))
        >>> conv(torch.zeros(1, 8, 2, 2)).shape
        torch.Size([1, 8, 2, 2])
    """
    for part in module.modules():
        if type(part) is nn.Conv2d and (kind := _kind(part)):
            part.__class__ = kind
    return module


def _kind(conv: nn.Conv2d) -> type[nn.Conv2d] | None:
    if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        return None
    shape = (conv.kernel_size, conv.stride, conv.padding)
    if shape in (((3, 3), (1, 1), (1, 1)), ((3, 3), (2, 2), (1, 1))):
        return SmallMapConv2d
    pointwise = conv.kernel_size == (1, 1) and conv.padding == (0, 0)
    return SmallMapPointwise if pointwise and conv.stride[0] == conv.stride[1] else None


def _met(place: int, side: int) -> tuple[slice, slice]:
    """For a kernel of stride 2 in one direction: the pixels it covers, and its entries for them."""
    first, last = max(0, 2 * place - 1), min(side, 2 * place + 2)
    return slice(first, last), slice(first - 2 * place + 1, last - 2 * place + 1)
