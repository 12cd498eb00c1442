"""The faster depthwise convolution is the convolution: outputs, gradients, names."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from clever_training.model.depthwise import (
    DepthwiseConv2d,
    DepthwiseConv2dSame,
    speed_up_depthwise,
)

KERNELS = [(3, 2, 1), (3, 2, 0), (5, 1, 2), (5, 2, 2), (5, 2, 0), (7, 1, 3), (7, 2, 3), (5, 3, 4)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def gradients(conv: nn.Module, pixels: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of every parameter."""
    pixels = pixels.detach().clone().requires_grad_()
    output = conv(pixels)
    # Not the same everywhere, so that nothing can be in the wrong place.
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    (output * weights.to(output.dtype)).sum().backward()
    found = [output.detach(), pixels.grad, *(parameter.grad for parameter in conv.parameters())]
    return [value for value in found if value is not None]


def pair(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A plain convolution and a fast one with the same weights."""
    quick = type(conv)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        groups=conv.groups,
        bias=conv.bias is not None,
    )
    quick.load_state_dict(conv.state_dict())
    speed_up_depthwise(quick)
    assert type(quick) in (DepthwiseConv2d, DepthwiseConv2dSame)
    return conv, quick


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        (size, shape)
        for size in ((4, 4), (7, 7), (12, 9), (15, 16))
        for shape in KERNELS
        if min(size) + 2 * shape[2] >= shape[0]
    ],
    ids=str,
)
def test_outputs_and_gradients_agree(
    size: tuple[int, int], shape: tuple[int, int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    kernel, stride, padding = shape
    plain, quick = pair(nn.Conv2d(6, 6, kernel, stride, padding, groups=6))
    pixels = torch.randn(3, 6, *size).contiguous(memory_format=layout)
    # In float64, too, where the gradient of the input takes the other way.
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float64, 1e-12)):
        expected = gradients(plain.to(dtype).to(memory_format=layout), pixels.to(dtype))
        found = gradients(quick.to(dtype).to(memory_format=layout), pixels.to(dtype))
        assert len(found) == 4
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
        for module in (plain, quick):
            module.zero_grad()


@pytest.mark.parametrize("shape", KERNELS, ids=str)
def test_gradients_are_those_of_the_values(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    kernel, stride, padding = shape
    _, quick = pair(nn.Conv2d(3, 3, kernel, stride, padding, groups=3).double())
    quick = quick.double()
    pixels = torch.randn(2, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quick, (pixels,))


@pytest.mark.parametrize("shape", [(3, 2), (5, 1), (5, 2)], ids=str)
@pytest.mark.parametrize("side", [7, 8, 14])
def test_padding_like_tensorflow(shape: tuple[int, int], side: int) -> None:
    torch.manual_seed(0)
    plain, quick = pair(Conv2dSame(6, 6, *shape, groups=6))
    pixels = torch.randn(3, 6, side, side)
    for ours, theirs in zip(gradients(quick, pixels), gradients(plain, pixels), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("shape", KERNELS, ids=str)
def test_bf16_is_as_exact_as_torch(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    kernel, stride, padding = shape
    plain, quick = pair(nn.Conv2d(6, 6, kernel, stride, padding, groups=6))
    pixels = torch.randn(4, 6, 14, 14).contiguous(memory_format=torch.channels_last)
    exact = gradients(plain, pixels)
    plain.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = gradients(plain, pixels), gradients(quick, pixels)
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    for truth, torchs, found in zip(exact, theirs, ours, strict=True):
        size = truth.abs().max()
        assert (found.float() - truth).abs().max() < 2e-2 * size
        assert (found.float() - torchs.float()).abs().max() < 2e-2 * size


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_gradients_have_the_strides_of_their_weights(layout: torch.memory_format) -> None:
    # DistributedDataParallel warns of others, and copies them.
    conv = speed_up_depthwise(nn.Conv2d(6, 6, 5, 2, 2, groups=6)).to(memory_format=layout)
    conv(torch.ones(2, 6, 9, 9).contiguous(memory_format=layout)).sum().backward()
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.grad is not None
    assert conv.weight.grad.stride() == conv.weight.stride()


def test_nothing_is_computed_for_what_is_frozen() -> None:
    conv = speed_up_depthwise(nn.Conv2d(6, 6, 5, 2, 2, groups=6)).requires_grad_(False)
    pixels = torch.ones(2, 6, 9, 9)
    assert not conv(pixels).requires_grad
    conv(pixels.requires_grad_()).sum().backward()
    assert pixels.grad is not None
    assert all(parameter.grad is None for parameter in conv.parameters())


def test_other_convolutions_stay() -> None:
    module = nn.ModuleDict(
        {
            "strided": nn.Conv2d(4, 4, 3, 2, 1, groups=4),
            "wide": nn.Conv2d(4, 4, 5, padding=2, groups=4),
            "tensorflow": Conv2dSame(4, 4, 3, 2, groups=4),
            "quick already": nn.Conv2d(4, 4, 3, padding=1, groups=4),
            "plain": nn.Conv2d(4, 4, 3, 2, 1),
            "grouped": nn.Conv2d(4, 4, 3, 2, 1, groups=2),
            "more outputs": nn.Conv2d(4, 8, 3, 2, 1, groups=4),
            "dilated": nn.Conv2d(4, 4, 5, padding=2, dilation=2, groups=4),
            "reflecting": nn.Conv2d(4, 4, 5, padding=2, groups=4, padding_mode="reflect"),
            "by name": nn.Conv2d(4, 4, 5, padding="same", groups=4),
            "skipping": nn.Conv2d(4, 4, 1, 2, groups=4),
            "beyond": nn.Conv2d(4, 4, 3, 2, 3, groups=4),
        }
    )
    names = list(module.state_dict())
    before = {key: type(conv) for key, conv in module.items()}
    speed_up_depthwise(module)
    changed = {key: type(conv) for key, conv in module.items() if type(conv) is not before[key]}
    quick = {
        "strided": DepthwiseConv2d,
        "wide": DepthwiseConv2d,
        "tensorflow": DepthwiseConv2dSame,
    }
    assert changed == quick
    assert list(module.state_dict()) == names


def test_a_whole_network_agrees() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("tf_efficientnet_lite0", num_classes=0).double()
    quick = timm.create_model("tf_efficientnet_lite0", num_classes=0).double()
    quick.load_state_dict(plain.state_dict())
    speed_up_depthwise(quick)
    kinds = [type(part) for part in quick.modules()]
    assert kinds.count(DepthwiseConv2d) == 7
    assert kinds.count(DepthwiseConv2dSame) == 4
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found, expected = gradients(quick, pixels), gradients(plain, pixels)
    assert len(found) == len(expected) > 100
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)
