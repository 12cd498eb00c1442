"""Two processes give the losses and gradients that one gives on the whole batch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from clever_training.model.build import build
from clever_training.model.clever import Clever
from clever_training.model.sync_batch_norm import share_batch_norm
from clever_training.recipe.schema import Recipe
from clever_training.views.sample import sample

PHOTOS, GLOBALS, LOCALS = 8, 2, 1
ARGUMENTS: dict[str, dict[str, Any]] = {
    "dino": {"prototypes": 32, "hidden_dim": 32, "bottleneck_dim": 16, "head_batch_norm": True},
    "distill": {"form": "contrastive", "head": "linear", "negatives": 6},
    "lejepa": {"dim": 16, "hidden_dim": 32, "slices": 64},
    "simclr": {"dim": 16, "hidden_dim": 32},
    "simsiam": {"dim": 32, "bottleneck_dim": 8},
    "vicreg": {"dim": 32},
    "tests.training.runtime.test_two_processes:spread": {"dim": 16, "hidden_dim": 32},
}
TARGET_DIM = 24
METHODS = [
    *(f"clever-{objective}" for objective in ARGUMENTS),
    *("dino", "simsiam", "ddcl", "clever-plus-dino", "clever-plus-simclr"),
]


def spread(views: Tensor) -> Tensor:
    """An objective that is no mean over photos: a user's own."""
    return (views[0] - views[1]).square().mean() - views.flatten(0, 1).var(dim=0).sqrt().mean()


def _build(method: str) -> tuple[Clever, Recipe]:
    objective = method.removeprefix("clever-").removeprefix("plus-").replace("ddcl", "simsiam")
    method_settings: dict[str, Any] = {"name": method, "objective_args": ARGUMENTS[objective]}
    if objective == "distill":
        method_settings["teacher"] = "timm:test_resnet"
    content = {
        "name": "two",
        "backbone": "test_resnet",
        "method": method_settings,
        "views": {"strategy": "caug", "global_count": GLOBALS, "local_count": LOCALS},
    }
    recipe = Recipe.parse(content)
    torch.manual_seed(0)
    clever = build(recipe, TARGET_DIM)
    # Every term at a weight that its gradient is seen at.
    # From a generator of its own: with some draws an activation lies so near 0 that rounding turns
    # its gradient on or off, and how many parameters there are shall not choose the draws.
    generator = torch.Generator().manual_seed(5)
    for parameter in clever.parameters():
        if parameter.requires_grad and parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.1, generator)
    if (head := clever.student.transformation) is not None:
        for layer in (head.last, head.last_turn):  # which begin at 0: nothing would flow back
            nn.init.normal_(layer.weight, 0.0, 0.05, generator)
    return clever, recipe


def _batch(recipe: Recipe, rows: slice) -> tuple[list[Tensor], Tensor]:
    """Some photos of one fixed batch: crops as ``Clever`` takes them, and parameters."""
    generator = torch.Generator().manual_seed(1)
    crops = [
        torch.randn(views, PHOTOS, 3, side, side, generator=generator)[:, rows].flatten(0, 1)
        for views, side in ((GLOBALS, 32), (LOCALS, 24))
    ]
    rng = np.random.default_rng(2)
    parameters = [
        [sample(recipe.views, view, 1.0, 32, rng).as_array() for view in range(GLOBALS + LOCALS)]
        for _ in range(PHOTOS)
    ]
    return crops, torch.from_numpy(np.asarray(parameters))[rows]


def _step(clever: Clever, recipe: Recipe, rows: slice) -> dict[str, Tensor]:
    """Loss terms, gradients (averaged as DistributedDataParallel does), and what has moved."""
    crops, parameters = _batch(recipe, rows)
    torch.manual_seed(3)
    targets = torch.randn(PHOTOS, TARGET_DIM, generator=torch.Generator().manual_seed(4))[rows]
    terms = clever(crops, len(parameters), 0.04, parameters, targets)
    torch.autograd.backward(terms["loss"])
    found = {f"term {name}": value for name, value in terms.items() if value.ndim == 0}
    for name, parameter in clever.student.named_parameters():
        if parameter.grad is not None:
            found[f"gradient {name}"] = parameter.grad
            if dist.is_initialized():
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
    # Photos stand in a queue process by process, and their order there means nothing.
    buffers = {name: value for name, value in clever.named_buffers() if "queue" not in name}
    found |= {f"buffer {name}": value for name, value in buffers.items()}
    return {name: value.detach().clone() for name, value in found.items()}


def _process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for method in METHODS:
        clever, recipe = _build(method)
        clever = share_batch_norm(clever, torch.device("cpu"))
        found = _step(clever, recipe, slice(rank, None, 2))
        torch.save(found, folder / f"{METHODS.index(method)}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each of two processes found, for all methods: started once, starting is what costs."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
        _process, (folder,), nprocs=2
    )
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_losses_gradients_and_state_are_those_of_the_whole_batch(
    method: str, two_processes: Path
) -> None:
    whole = _step(*_build(method), slice(None))
    half = _step(*_build(method), slice(0, None, 2))
    assert not torch.isclose(half["term loss"], whole["term loss"], rtol=1e-3)
    for rank in range(2):
        file = two_processes / f"{METHODS.index(method)}-{rank}.pt"
        found = torch.load(file, weights_only=True)
        assert found.keys() == whole.keys()
        for name, expected in whole.items():
            error = (found[name].double() - expected.double()).norm()
            # A bias before BatchNorm has a gradient of rounding errors alone.
            limit = 1e-3 * expected.double().norm() + 1e-5 * expected.numel() ** 0.5
            assert error <= limit, f"{name}, process {rank}: {error} > {limit}"
