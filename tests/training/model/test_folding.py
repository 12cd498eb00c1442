"""Frozen BatchNorm folded into convolutions: the same network, its names and its gradients."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from clever_training.model.depthwise import speed_up_depthwise
from clever_training.model.folding import FoldedBatchNorm, Folding, fold_frozen_batch_norm
from clever_training.model.freezing import freeze_batch_norm


@pytest.mark.parametrize(
    "architecture", ["test_efficientnet", "tf_efficientnet_lite0", "test_resnet"]
)
def test_a_network_stays_what_it_was(architecture: str) -> None:
    """Names, embeddings and gradients; with BatchNorm folded in, and statistics unlike 0 and 1."""
    torch.manual_seed(0)
    plain = timm.create_model(architecture, num_classes=0).double()
    freeze_batch_norm(plain)
    for name, buffer in plain.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    fast = copy.deepcopy(plain)
    # In double precision only the kernels' own order of adding is another.
    _speed_up_double(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert any(isinstance(part, Folding) for part in fast.modules())
    assert sum(isinstance(part, FoldedBatchNorm) for part in fast.modules()) > 5
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    outputs = [network.train()(images) for network in (plain, fast)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        torch.autograd.backward(output.square().mean())
    gradients = [
        {name: p.grad for name, p in network.named_parameters()} for network in (plain, fast)
    ]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def _speed_up_double(network: nn.Module) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        fold_frozen_batch_norm(network, 48)
    finally:
        torch.set_default_dtype(torch.float32)


def test_batch_norm_that_learns_its_statistics_is_left_alone() -> None:
    network = timm.create_model("test_efficientnet", num_classes=0)
    before = [type(part) for part in network.modules()]
    fold_frozen_batch_norm(network, 48)
    assert [type(part) for part in network.modules()] == before


def test_a_norm_behind_two_convolutions_is_folded_into_neither() -> None:
    """A convolution that two norms follow in turn would have to be both at once."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3)
            self.one, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen: torch.Tensor = self.other(self.conv(self.one(self.conv(image))))
            return seen

    network = Shared()
    freeze_batch_norm(network)
    fold_frozen_batch_norm(network, 8)
    assert not any(isinstance(part, FoldedBatchNorm) for part in network.modules())


def test_bfloat16_agrees_but_for_rounding() -> None:
    torch.manual_seed(0)
    plain = timm.create_model("test_efficientnet", num_classes=0)
    freeze_batch_norm(plain)
    fast = fold_frozen_batch_norm(speed_up_depthwise(copy.deepcopy(plain)), 48)
    images = torch.randn(4, 3, 48, 48)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = plain(images), fast(images)
    assert F.cosine_similarity(one.float(), other.float(), dim=1).min() > 0.999
