"""What the tests of many processes run in each of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from clever_hub.cli.app import main
from clever_hub.errors import CleverError
from clever_training.model.sync_batch_norm import share_batch_norm
from clever_training.recipe.schema import Recipe
from clever_training.run.pretrain import pretrain
from clever_training.run.schedule import settings_at
from clever_training.runtime.gathering import world_size


def train(recipes: dict[str, Any], data: str, out: str) -> None:
    """Run ``pretrain`` for each recipe, in the folder of its key."""
    torch.set_num_threads(1)
    for name, content in recipes.items():
        recipe = Recipe.parse(content)
        pretrain(recipe, data, Path(out) / name, progress=False)


def failures(recipe: dict[str, Any], data: str, out: str) -> None:
    """Meet errors that only the first process can see, or only the second; print what is raised."""
    torch.set_num_threads(1)
    small = Recipe.parse(recipe)
    other = small.model_copy(update={"optimizer": small.optimizer.model_copy(update={"lr": 0.5})})
    odd = small.model_copy(update={"run": small.run.model_copy(update={"batch_size": 7})})
    pretrain(small, data, out, progress=False)
    missing = data if os.environ["RANK"] == "0" else data + "-absent"
    for attempt, photos in ((other, data), (odd, data), (small, missing)):
        try:
            pretrain(attempt, photos, out, progress=False)
        except CleverError as error:
            print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)


def terminated(recipe: str, data: str, out: str) -> None:
    """Run the command; the second process alone gets SIGTERM, in its second step."""
    torch.set_num_threads(1)

    def terminate(*arguments: Any) -> object:
        if arguments[1] == 1 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return settings_at(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clever_training.run.pretrain.settings_at", terminate)
        patch.setattr(
            "sys.argv", ["clever-hub", "pretrain", recipe, "--data", data, "--output", out]
        )
        main()


def fine_tuned(model: str, data: str, taken: str, out: str) -> None:
    """Fine-tune in a folder of somebody else's, then, twice, in a new one; print what is raised."""
    from clever_training.evaluation.data import load_splits
    from clever_training.finetune.run import finetune
    from clever_training.finetune.settings import FinetuneSettings

    torch.set_num_threads(1)
    settings = FinetuneSettings(epochs=1, batch_size=4, lr=0.01, precision="fp32")
    splits = load_splits(data)
    for folder in (taken, out, out):
        try:
            finetune(model, splits, folder, settings)
        except CleverError as error:
            print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
    dist.destroy_process_group()


def batch_norm(out: str, dtype: str) -> None:
    """One step of a BatchNorm layer on this process's half; each writes what came out."""
    torch.manual_seed(0)
    whole = torch.randn(8, 6, 5, 5)
    weights = torch.randn(8, 6, 5, 5)
    layer = share_batch_norm(nn.Sequential(nn.BatchNorm2d(6)), torch.device("cpu"))
    half = whole.chunk(2)[dist.get_rank()].to(getattr(torch, dtype)).requires_grad_()
    result = layer(half)
    (result * weights.chunk(2)[dist.get_rank()]).sum().backward()
    norm = layer[0]
    assert half.grad is not None
    values = {"result": result.detach(), "inputs": half.grad, "mean": norm.running_mean}
    values |= {"variance": norm.running_var, "weight": norm.weight.grad, "bias": norm.bias.grad}
    torch.save(values, Path(out) / f"{dtype}-{dist.get_rank()}.pt")


def everything(recipes: dict[str, Any], data: str, out: str) -> None:
    """All of them, as starting a process is what takes long."""
    train(recipes, data, str(Path(out) / "two"))
    assert world_size() == 2
    failures(next(iter(recipes.values())), data, str(Path(out) / "failing"))
    for dtype in ("float32", "bfloat16"):
        batch_norm(out, dtype)
    dist.destroy_process_group()
