"""Many processes: the same run as one, and one that ends when any of them fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import clever_hub
from clever_training.recipe.schema import Recipe
from clever_training.runtime.processes import any_rank, gathered, on_all_ranks, on_rank_zero
from tests.training.runtime.distributed_cases import train
from tests.training.runtime.two_processes import run_in_two


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def recipes(tiny_recipe: Callable[..., Recipe]) -> dict[str, Any]:
    """Teacher, centres, BatchNorm in the heads; variances, covariances, negatives.

    One step of SGD: the state then has the gradients as momentum. Later steps of so small a batch
    blow up what rounding leaves between two orders of summation, and so do the ReLUs and the
    maximum of an untrained ResNet, of which rounding flips a few: the backbone here is smooth.
    ``test_two_processes`` has BatchNorm in the backbone.
    """
    changes = {
        "run__max_steps": 1,
        "run__precision": "fp32",
        "optimizer__name": "sgd",
        "backbone__architecture": "test_vit",
        "backbone__model_args": {"img_size": 32, "patch_size": 8, "dynamic_img_size": True},
    }
    return {
        name: tiny_recipe(name, **changes).model_dump(mode="json")
        for name in ("dino", "vicreg", "simclr")
    }


@pytest.fixture(scope="module")
def outputs(
    recipes: dict[str, Any], photo_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """What two processes wrote, and what each said."""
    folder = tmp_path_factory.mktemp("two")
    arguments = {"recipes": recipes, "data": str(photo_folder), "out": str(folder)}
    results = run_in_two("tests.training.runtime.distributed_cases:everything", arguments, folder)
    assert [code for code, _ in results] == [0, 0], results
    return folder, [text for _, text in results]


@pytest.mark.parametrize("name", ["dino", "vicreg", "simclr"])
def test_two_processes_give_losses_and_gradients_of_one_with_the_whole_batch(
    name: str, recipes: dict[str, Any], outputs: tuple[Path, list[str]], photo_folder: Path
) -> None:
    folder = outputs[0]
    train({name: recipes[name]}, str(photo_folder), str(folder / "one"))
    one, two = (_lines(folder / count / name) for count in ("one", "two"))
    assert len(one) == len(two) == 1, "only the first process writes"
    for here, there in zip(one, two, strict=True):
        for term in ("loss", "invariance", "orthogonality", "regularization", "rank_invariant"):
            assert there[term] == pytest.approx(here[term], rel=1e-4, abs=1e-5), term
    states = [load_file(folder / count / name / "state.safetensors") for count in ("one", "two")]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        difference = (states[1][key].float() - value.float()).norm()
        assert difference <= 1e-3 * value.float().norm() + 1e-5, key


def test_what_fails_in_one_process_ends_all(outputs: tuple[Path, list[str]]) -> None:
    said = [
        [json.loads(line) for line in text.splitlines() if line.startswith('"')]
        for text in outputs[1]
    ]
    assert len(said[0]) == len(said[1]) == 3
    assert "holds a run with other settings: optimizer.lr" in said[0][0]
    assert "TrainingError: process 0 stopped" in said[1][0]
    for messages in said:
        assert "7 photos cannot be shared evenly by 2 processes" in messages[1]
    assert said[0][2].startswith("TrainingError: process 1 stopped")
    assert said[1][2].startswith("DataError")


def test_sigterm_to_one_process_saves_and_ends_all_with_143(
    recipes: dict[str, Any], photo_folder: Path, tmp_path: Path
) -> None:
    recipe = {**recipes["vicreg"], "run": {**recipes["vicreg"]["run"], "max_steps": 3}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    out = str(tmp_path / "run")
    arguments = {"recipe": str(tmp_path / "recipe.yaml"), "data": str(photo_folder), "out": out}
    call = "tests.training.runtime.distributed_cases:terminated"
    results = run_in_two(call, arguments, tmp_path)
    assert [code for code, _ in results] == [143, 143], results
    assert [text.count("Stopped.") for _, text in results] == [1, 0]
    assert [line["step"] for line in _lines(tmp_path / "run")] == [1, 2]
    assert (tmp_path / "run" / "state.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(
    outputs: tuple[Path, list[str]], dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.id
    files = [outputs[0] / f"{kind}-{rank}.pt" for rank in range(2)]
    halves = [torch.load(file, weights_only=True) for file in files]
    torch.manual_seed(0)
    whole = torch.randn(8, 6, 5, 5).to(dtype).float()
    weights = torch.randn(8, 6, 5, 5)
    whole.requires_grad_()
    norm = nn.BatchNorm2d(6)
    result = norm(whole)
    (result * weights).sum().backward()
    assert whole.grad is not None
    # Of bfloat16 what goes from layer to layer is rounded, the statistics are not.
    limit = 1e-4 if dtype == torch.float32 else 2e-2
    both = {key: torch.cat([half[key] for half in halves]) for key in ("result", "inputs")}
    assert both["result"].dtype == both["inputs"].dtype == dtype
    close = partial(torch.testing.assert_close, atol=limit, rtol=limit)
    close(both["result"].float(), result.detach())
    close(both["inputs"].float(), whole.grad)
    for half in halves:
        torch.testing.assert_close(half["mean"], norm.running_mean)
        torch.testing.assert_close(half["variance"], norm.running_var)
    for name, gradient in (("weight", norm.weight.grad), ("bias", norm.bias.grad)):
        summed = halves[0][name] + halves[1][name]
        close(summed, gradient, atol=limit * 5)


def test_one_process_needs_no_group() -> None:
    done: list[int] = []
    on_rank_zero(lambda: done.append(1))
    assert done == [1]
    assert on_all_ranks(lambda: "x") == "x"
    assert gathered(2) == [2]
    assert any_rank(True, False) == [True, False]


WITNESS = """
from pathlib import Path
import torch.distributed as dist

def spread(views):
    Path(f"process-{dist.get_rank()}-of-{dist.get_world_size()}").touch()
    return (views - views.mean(dim=0)).square().mean() - views.std()
"""


def test_torchrun_of_the_command_trains_one_model_in_two_processes(
    recipes: dict[str, Any], photo_folder: Path, tmp_path: Path
) -> None:
    """As a user types it: two processes, one run folder, every line said once."""
    method = {"name": "clever-witness:spread", "objective": "witness:spread"}
    recipe = {**recipes["vicreg"], "method": {**recipes["vicreg"]["method"], **method}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    (tmp_path / "witness.py").write_text(WITNESS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launch += ["--standalone", str(Path(sys.executable).with_name("clever-hub"))]
    words = ["pretrain", "recipe.yaml", "--data", str(photo_folder), "--out", "run"]
    ended = subprocess.run(
        [*launch, *words, "--set", "run.max_steps=2"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in tmp_path.glob("process-*")} == {
        "process-0-of-2",
        "process-1-of-2",
    }
    assert ended.stdout.count("Model: run/model") == 1
    assert [line["step"] for line in _lines(tmp_path / "run")] == [1, 2]
    assert ended.stderr.count("step 2 epoch") == 1
    model = clever_hub.from_pretrained(tmp_path / "run" / "model")
    assert model.config.provenance["steps"] == 2
