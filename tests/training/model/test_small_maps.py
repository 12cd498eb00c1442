"""The faster convolution is the convolution: outputs, gradients, names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clever_training.model.small_maps import SmallMapConv2d, SmallMapPointwise, speed_up_small_maps


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (9, 9), (1, 2), (3, 2), (8, 9)], ids=str
)
@pytest.mark.parametrize(
    "shape",
    [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0)],
    ids=["plain", "strided", "pointwise", "shortcut"],
)
@pytest.mark.parametrize("bias", [False, True])
def test_outputs_and_gradients_agree(
    size: tuple[int, int], shape: tuple[int, int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, *shape, bias=bias)
    quick = nn.Conv2d(5, 7, *shape, bias=bias)
    quick.load_state_dict(plain.state_dict())
    speed_up_small_maps(quick)
    assert type(quick) is not nn.Conv2d
    results = []
    for conv in (plain, quick):
        pixels = torch.randn(
            4, 5, *size, generator=torch.Generator().manual_seed(1), requires_grad=True
        )
        output = conv(pixels.contiguous(memory_format=torch.channels_last))
        output.square().sum().backward()
        results.append((output.detach(), pixels.grad, *(p.grad for p in conv.parameters())))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_have_the_strides_of_their_weights(layout: torch.memory_format) -> None:
    # DistributedDataParallel warns of others, and copies them.
    conv = speed_up_small_maps(nn.Conv2d(5, 7, 1)).to(memory_format=layout)
    conv(torch.ones(2, 5, 3, 3).contiguous(memory_format=layout)).sum().backward()
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()


def test_other_convolutions_stay() -> None:
    module = nn.ModuleDict(
        {
            "plain": nn.Conv2d(4, 4, 3, padding=1),
            "strided": nn.Conv2d(4, 4, 3, padding=1, stride=2),
            "shortcut": nn.Conv2d(4, 4, 1, stride=2),
            "pointwise": nn.Conv2d(4, 4, 1),
            "grouped": nn.Conv2d(4, 4, 3, padding=1, groups=2),
            "dilated": nn.Conv2d(4, 4, 3, padding=1, dilation=2),
            "unpadded": nn.Conv2d(4, 4, 3),
            "reflecting": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            "uneven": nn.Conv2d(4, 4, 3, padding=1, stride=(1, 2)),
            "padded": nn.Conv2d(4, 4, 1, padding=1),
        }
    )
    names = list(module.state_dict())
    speed_up_small_maps(module)
    changed = {key: type(conv) for key, conv in module.items() if type(conv) is not nn.Conv2d}
    quick = {
        "plain": SmallMapConv2d,
        "strided": SmallMapConv2d,
        "shortcut": SmallMapPointwise,
        "pointwise": SmallMapPointwise,
    }
    assert changed == quick
    assert list(module.state_dict()) == names
