"""VMamba against the published code's own numbers, and as a backbone like timm's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from clever_hub.backends import own
from clever_hub.backends import selective_scan as scans
from clever_hub.backends.selective_scan import selective_scan
from clever_hub.backends.vmamba_blocks import SS2D, roll_up, unroll

SMALL: dict[str, Any] = {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128), "num_classes": 0}


def make(**options: Any) -> Any:
    """The registered model; mypy takes a module's parts for tensors."""
    own.register("vmamba_tiny")
    return timm.create_model("vmamba_tiny", **options)


class Golden:
    """Vectors of the published code, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.file = np.load(path)

    def __call__(self, name: str) -> Tensor:
        return torch.from_numpy(self.file[name])

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.file.files if name.startswith(prefix)]


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> Iterator[Golden]:
    vectors = Golden(golden_dir / "vmamba.npz")
    yield vectors
    vectors.file.close()


@pytest.fixture
def small(golden: Golden) -> Any:
    """The small model with the published code's weights; eval mode."""
    model = make(**SMALL)
    state = {name.removeprefix("param."): golden(name) for name in golden.names("param.")}
    model.load_state_dict(state, strict=True)
    return model.eval()


def close(found: Tensor, expected: Tensor, absolute: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=absolute)


def close_to_maximum(found: Tensor | None, expected: Tensor) -> None:
    """1e-5 of the largest value: what float32 leaves of a gradient."""
    assert found is not None
    close(found, expected, 1e-5 * expected.abs().max().item())


# The network.


def test_the_papers_size() -> None:
    model = make(num_classes=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 29_480_064
    assert len(model.state_dict()) == 274
    assert model.num_features == 768


@pytest.mark.parametrize("number", [1, 2, 3])
def test_embeddings_are_the_published_codes(small: Any, golden: Golden, number: int) -> None:
    with torch.no_grad():  # of squares, rectangles, and maps of odd sizes
        close(small(golden(f"in.x{number}")), golden(f"emb{number}"), 1e-5)


def test_features_of_every_stage_are(small: Any, golden: Golden) -> None:
    with torch.no_grad():
        x = small.patch_embed(golden("in.x1"))
        close(x.permute(0, 3, 1, 2), golden("feat.patch_embed"), 2e-5)
        for index, stage in enumerate(small.layers):
            close(stage.blocks(x).permute(0, 3, 1, 2), golden(f"feat.{index}.blocks"), 2e-5)
            x = stage(x)
            close(x.permute(0, 3, 1, 2), golden(f"feat.{index}.out"), 2e-5)


def test_gradients_are(small: Any, golden: Golden) -> None:
    images = golden("in.x1").requires_grad_()
    (small(images) * golden("grad.R")).sum().backward()
    close_to_maximum(images.grad, golden("grad.input1"))
    named = dict(small.named_parameters())
    compared = [name for name in golden.names("grad.") if name.removeprefix("grad.") in named]
    assert len(compared) == 10
    for name in compared:
        close_to_maximum(named[name.removeprefix("grad.")].grad, golden(name))


def test_weights_begin_as_published() -> None:
    torch.manual_seed(0)
    model = make(num_classes=0)
    op = model.layers[3].blocks[1].op
    assert torch.equal(op.A_logs, torch.zeros_like(op.A_logs))
    assert torch.equal(op.Ds, torch.ones_like(op.Ds))
    assert -6.91 < op.dt_projs_bias.min() < -6.8
    assert -2.35 < op.dt_projs_bias.max() < -2.25
    assert op.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert op.x_proj_weight.abs().max().item() == pytest.approx(768**-0.5, rel=0.01)
    assert op.dt_projs_weight.abs().max().item() == pytest.approx(48**-0.5, rel=0.01)
    assert op.conv2d.weight.abs().max().item() == pytest.approx(1 / 3, rel=0.01)
    assert not model.layers[0].blocks[0].mlp.fc1.bias.any()


# Its parts.


def test_ss2d_step_by_step(small: Any, golden: Golden) -> None:
    op = small.layers[1].blocks[0].op
    with torch.no_grad():
        x = golden("ss2d.input").permute(0, 2, 3, 1)
        close(op(x).permute(0, 3, 1, 2), golden("ss2d.output"), 2e-5)
        # (batch, 4, channels, length), the last two directions from the end
        xs = golden("ss2d.xs")
        u = xs[:, :2].permute(1, 3, 0, 2)
        steps, inputs, outputs = op.project(u)
        for found, name in ((steps, "dts"), (inputs, "Bs"), (outputs, "Cs")):
            close(as_published(found), golden(f"ss2d.{name}"), 2e-5)
        merged = golden("ss2d.merged").reshape(2, 32, 12, 8)
        seen = nn.functional.silu(op.conv2d(op.in_proj(x).permute(0, 3, 1, 2)))
        close(seen.flatten(2), xs[:, 0], 2e-5)
        close(op.scan(seen.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), merged, 2e-5)


def as_published(x: Tensor) -> Tensor:
    """(2 directions, 2 orders, length, batch, n) to (batch, 4, n, length) in each one's order."""
    return torch.cat([x[0], x[1].flip(1)]).permute(2, 0, 3, 1)


def test_orders_of_the_map(golden: Golden) -> None:
    x = golden("cross.x").permute(0, 2, 3, 1).requires_grad_()
    u = unroll(x)
    close(as_published(torch.stack([u, u])), golden("cross.xs"), 0)
    ys = golden("cross.ys").permute(1, 3, 0, 2)
    added = ys[:2] + ys[2:].flip(1)  # what a scan in both directions gives
    close(roll_up(added, (3, 5)).permute(0, 3, 1, 2), golden("cross.merged"), 1e-6)
    u.backward(added)
    assert x.grad is not None
    close(x.grad.permute(0, 3, 1, 2), golden("cross.scan_grad_x"), 1e-6)
    back = as_published(torch.stack([u, u]).detach())
    close(back, golden("cross.merge_grad_ys"), 0)


NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


@pytest.mark.parametrize("way", ["one by one", "in chunks", "by doubling"])
@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_the_scan_and_its_gradients(
    golden: Golden, case: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a: one state, four groups; b: four states, steps as they are; c: extreme in every respect."""
    run_as(way, monkeypatch)
    there = golden.file.files
    given = {
        name: golden(f"scan_{case}.{name}").requires_grad_()
        for name in NAMES
        if f"scan_{case}.{name}" in there
    }
    groups = given["B"].shape[1]
    grouped = {  # (1 direction, groups, …, channels of a group)
        name: given[name].unflatten(0, (groups, -1))[None]
        for name in ("A", "delta_bias")
        if name in given
    }
    u, steps = (given[name].unflatten(1, (groups, -1)).permute(1, 3, 0, 2) for name in NAMES[:2])
    y = selective_scan(
        u,
        steps[None],
        grouped["A"],
        given["B"].permute(1, 3, 0, 2)[None],
        given["C"].permute(1, 3, 0, 2)[None],
        grouped.get("delta_bias"),
        softplus=bool(golden(f"scan_{case}.delta_softplus")),
    )
    y = y.permute(2, 0, 3, 1).flatten(1, 2)
    if "D" in given:
        y = y + given["D"][:, None] * given["u"]
    close_to_maximum(y, golden(f"scan_{case}.y"))
    y.backward(golden(f"scan_{case}.dy"))
    for name, tensor in given.items():
        close_to_maximum(tensor.grad, golden(f"scan_{case}.grad_{name}"))


def run_as(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "by doubling":
        monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
    else:
        monkeypatch.setattr(scans, "_SHORTEST_IN_CHUNKS", 1 if way == "in chunks" else 10**9)
        monkeypatch.setattr(scans, "_SMALL_STEP", 10**9)


def random_scan(length: int, states: int = 1, dtype: torch.dtype = torch.float64) -> list[Any]:
    torch.manual_seed(length)
    shapes = {
        "u": (2, length, 3, 5),
        "steps": (2, 2, length, 3, 5),
        "decay": (2, 2, 5, states),
        "inputs": (2, 2, length, 3, states),
        "outputs": (2, 2, length, 3, states),
        "bias": (2, 2, 5),
    }
    drawn = {name: torch.randn(shape, dtype=dtype) for name, shape in shapes.items()}
    drawn["decay"] = -drawn["decay"].exp()
    return [tensor.requires_grad_() for tensor in drawn.values()]


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 35, 101])
def test_all_ways_give_the_same(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for way in ("one by one", "in chunks", "by doubling"):
        with monkeypatch.context() as patch:
            run_as(way, patch)
            tensors = random_scan(length, states=2)
            y = selective_scan(*tensors)
            (y * torch.arange(y.numel()).view_as(y)).sum().backward()
            none = torch.zeros(())  # of one position, doubling does not use the decay
            grads = [none * t if t.grad is None else t.grad for t in tensors]
            found[way] = [y.detach(), *grads]
    for way in ("in chunks", "by doubling"):
        for a, b in zip(found["one by one"], found[way], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_gradient_is_the_functions() -> None:
    assert torch.autograd.gradcheck(selective_scan, random_scan(6, states=2))


def test_the_second_direction_is_the_first_from_the_end() -> None:
    u, steps, decay, inputs, outputs, bias = (x.detach() for x in random_scan(9))
    both = selective_scan(u, steps, decay, inputs, outputs, bias)
    first, second = (slice(0, 1), slice(1, 2))
    ahead = selective_scan(
        *(x[first] if x is not u else x for x in (u, steps, decay)),
        *(x[first] for x in (inputs, outputs, bias)),
    )
    back = selective_scan(
        u.flip(1),
        steps[second].flip(2),
        decay[second],
        inputs[second].flip(2),
        outputs[second].flip(2),
        bias[second],
    ).flip(1)
    torch.testing.assert_close(both, ahead + back)


def test_half_precision_is_scanned_in_float32() -> None:
    tensors = random_scan(64, dtype=torch.float32)
    expected = selective_scan(*[x.bfloat16().float() for x in tensors])
    found = selective_scan(*[x.bfloat16() for x in tensors])
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    model = make(**SMALL).eval()
    images = torch.randn(2, 3, 64, 64)
    plain = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        close(model(images).float(), plain, 0.05)
    close(model.bfloat16()(images.bfloat16()).float(), plain, 0.05)


def test_softplus_and_its_slope_to_the_last_digits() -> None:
    x = torch.linspace(-80, 40, 10_001)
    exact = nn.functional.softplus(x.double())
    found = scans._softplus(x)
    torch.testing.assert_close(found.double(), exact, rtol=5e-7, atol=0)
    slope = torch.sigmoid(x.double())
    torch.testing.assert_close(scans._softplus_slope(found).double(), slope, rtol=1e-6, atol=0)


# As one of timm's.


def test_gradient_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    model = make(**SMALL, drop_path_rate=0.5).train()
    images = torch.randn(4, 3, 32, 32)
    found = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        torch.manual_seed(1)  # the same branches are dropped
        model(images).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_drop_path_grows_from_nothing() -> None:
    model = make(num_classes=0, drop_path_rate=0.2)
    rates = [block.drop_path.drop_prob for stage in model.layers for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.2, 14))


def test_groups_of_layers_run_from_the_stem_to_the_norm() -> None:
    from timm.models import group_parameters

    model = make(**SMALL)
    coarse = group_parameters(model, model.group_matcher(coarse=True))
    stages = [list(coarse[key]) for key in sorted(coarse)]
    assert [names[0].partition(".")[0] for names in stages] == [
        "patch_embed",
        "layers",
        "layers",
        "layers",
        "layers",
        "classifier",
    ]
    fine = group_parameters(model, model.group_matcher())
    blocks = [list(fine[key]) for key in sorted(fine)]
    assert sum(map(len, blocks)) == len(list(model.parameters()))
    places = [
        next(i for i, names in enumerate(blocks) if name in names)
        for name in (
            "patch_embed.0.weight",
            "layers.0.blocks.0.norm.weight",
            "layers.2.blocks.1.op.Ds",
            "layers.3.blocks.0.op.Ds",
            "classifier.norm.weight",
        )
    ]
    assert places == sorted(places)


def test_classes_can_be_added_and_taken_away() -> None:
    model = make(**{**SMALL, "num_classes": 7}).eval()
    images = torch.randn(2, 3, 32, 32)
    assert model(images).shape == (2, 7)
    assert model.get_classifier() is model.classifier.head
    features = model.forward_features(images)
    assert features.shape == (2, 1, 1, 128)
    embedding = model.forward_head(features, pre_logits=True)
    model.reset_classifier(0)
    assert torch.equal(model(images), embedding)
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)


def test_what_would_be_harmed_by_weight_decay_is_named() -> None:
    model = make(**SMALL)
    kept = model.no_weight_decay()
    assert len(kept) == 3 * 5  # of each block
    assert "layers.0.blocks.0.op.A_logs" in kept


@pytest.mark.parametrize("wrong", [{"depths": (1, 1)}, {"global_pool": "max"}, {"drop_rate": 0.1}])
def test_what_is_not_there_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(**{**SMALL, **wrong})


def test_the_scan_sees_the_whole_map() -> None:
    torch.manual_seed(0)
    op = SS2D(8)
    x = torch.randn(1, 5, 7, 8, requires_grad=True)
    op(x)[0, 2, 3].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(-1) > 0).all(), "each position reaches the one in the middle"


def test_nothing_of_it_is_imported_before_it_is_wanted() -> None:
    code = (
        "import sys, clever_hub.backends.torch, timm\n"
        "assert 'clever_hub.backends.vmamba' not in sys.modules\n"
        "assert not timm.is_model('vmamba_tiny')\n"
        "from clever_hub.backends import own\n"
        "own.register('resnet18')\n"
        "assert not timm.is_model('vmamba_tiny')\n"
        "own.register('vmamba_tiny')\n"
        "assert timm.is_model('vmamba_tiny')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
