"""Faster convolutions on a CPU for the smallest maps: what ResNets end in at up to 64 pixels.

oneDNN takes a matrix product per photo for the weights' gradient there, whose inner dimension is
the handful of pixels of a map: several times slower than the arithmetic. With so few pixels every
pixel that comes out is exactly one product over the batch, of the pixels that its kernel meets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Stride, and the sides of the maps that it pays on.
_SIDES = {1: (1, 2), 2: (2, 3)}


class SmallMapConv2d(nn.Conv2d):
    """A 3×3 ``Conv2d`` that takes a product for each pixel of its output where that is faster."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution."""
        height, width = input.shape[-2:]
        stride = self.stride[0]
        if height != width or height not in _SIDES[stride]:
            return super().forward(input)
        side = (height - 1) // stride + 1
        pixels = input.permute(0, 2, 3, 1)  # no copy when channels_last
        if stride == 1:
            # Every pixel meets every other: one product for all, (batch, in·n) by (out·n, in·n).
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
            rows = [_met(place, height) for place in range(side)]
            flat = torch.cat(
                [
                    pixels[:, of_row, of_column].flatten(1)
                    @ self.weight[:, :, row, column].permute(0, 2, 3, 1).flatten(1).T
                    for of_row, row in rows
                    for of_column, column in rows
                ],
                dim=1,
            )
        result: Tensor = flat.view(-1, side, side, self.out_channels).permute(0, 3, 1, 2)
        return result if self.bias is None else result + self.bias[:, None, None]


class SmallMapShortcut(nn.Conv2d):
    """A 1×1 ``Conv2d`` of stride 2 that leaves pixels out before, not in, the convolution."""

    def forward(self, input: Float[Tensor, "batch channels height width"]) -> Tensor:  # noqa: A002 -- torch's name
        """The convolution."""
        if max(input.shape[-2:]) > max(_SIDES[2]):
            return super().forward(input)
        return F.conv2d(input[:, :, ::2, ::2], self.weight, self.bias)


def speed_up_small_maps(module: nn.Module) -> nn.Module:
    """Let every convolution of a module, of the kinds that ResNets have, be faster where it can.

    Names and values of the parameters stay as they are; results agree to rounding.

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
    return SmallMapShortcut if shape == ((1, 1), (2, 2), (0, 0)) else None


def _met(place: int, side: int) -> tuple[slice, slice]:
    """What a kernel of stride 2 meets, in one direction: pixels, and under which of its entries."""
    first, last = max(0, 2 * place - 1), min(side, 2 * place + 2)
    return slice(first, last), slice(first - 2 * place + 1, last - 2 * place + 1)
