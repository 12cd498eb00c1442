"""The faster convolution is the convolution: outputs, gradients, names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clever_training.small_maps import SmallMapConv2d, speed_up_small_maps


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_agree(size: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    quick = nn.Conv2d(5, 7, 3, padding=1, bias=bias)
    quick.load_state_dict(plain.state_dict())
    speed_up_small_maps(quick)
    results = []
    for conv in (plain, quick):
        pixels = torch.randn(
            4, 5, size, size, generator=torch.Generator().manual_seed(1), requires_grad=True
        )
        output = conv(pixels.contiguous(memory_format=torch.channels_last))
        output.square().sum().backward()
        results.append((output.detach(), pixels.grad, *(p.grad for p in conv.parameters())))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_only_plain_3x3_convolutions_change() -> None:
    module = nn.ModuleDict(
        {
            "plain": nn.Conv2d(4, 4, 3, padding=1),
            "strided": nn.Conv2d(4, 4, 3, padding=1, stride=2),
            "grouped": nn.Conv2d(4, 4, 3, padding=1, groups=2),
            "pointwise": nn.Conv2d(4, 4, 1),
        }
    )
    names = list(module.state_dict())
    speed_up_small_maps(module)
    assert [key for key, conv in module.items() if isinstance(conv, SmallMapConv2d)] == ["plain"]
    assert list(module.state_dict()) == names
