"""A user's own objective: one function, one line in a recipe."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clever_hub.errors import ConfigError
from clever_training.model.build import build
from clever_training.objectives import Projections, make_objective
from clever_training.recipe.schema import Recipe
from clever_training.run.dry_run import estimate_run
from clever_training.run.pretrain import pretrain
from tests.training.data.test_teacher import write_teacher

MODULE = """
import torch
from torch.nn.functional import mse_loss

from clever_training.objectives.vicreg import Vicreg

def agree(views, weight=1.0):
    return weight * mse_loss(views[0], views[1])

def per_photo(views):
    return views.mean(dim=(0, 2))

def cut_off(views):
    return views.detach().var()

def a_number_again(views):
    return torch.tensor(views.mean().item())

class Wider(Vicreg):
    pass

class CutOff(Vicreg):
    def invariance(self, projections, temperature):
        return super().invariance(projections, temperature).detach()

class Learned(Vicreg):
    def __init__(self, dim=8):
        super().__init__(dim=dim)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.offset = torch.nn.Parameter(torch.zeros(()), requires_grad=False)

class LearnedInItsHead(Vicreg):
    def make_head(self, in_dim):
        self.head = super().make_head(in_dim)
        return self.head

    def make_equivariant_head(self, in_dim):
        return super().make_head(in_dim)

class Taught(Vicreg):
    uses_targets = True

    def __init__(self, target_dim, dim=8):
        super().__init__(dim=dim)
        self.target_dim = target_dim

    def make_head(self, in_dim):
        return torch.nn.Linear(in_dim, self.target_dim)

    def invariance(self, projections, temperature):
        return mse_loss(projections.student, projections.targets.expand_as(projections.student))

nothing = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory, which is not on sys.path."""
    (tmp_path / "my_losses.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield "my_losses"
    sys.path[:] = before
    sys.modules.pop("my_losses", None)


def test_a_function_with_arguments_becomes_an_objective(module: str) -> None:
    objective = make_objective(f"{module}:agree", {"weight": 3.0, "dim": 8, "hidden_dim": 16})
    head = objective.make_head(5)
    views = torch.stack([head(torch.rand(4, 5)) for _ in range(2)])
    assert views.shape == (2, 4, 8)
    found = objective.invariance(Projections(views), 0.0)
    torch.testing.assert_close(found, 3 * torch.nn.functional.mse_loss(views[0], views[1]))


def test_a_subclass_of_objective_is_taken_as_it_is(module: str) -> None:
    assert type(make_objective(f"{module}:Wider", {"dim": 8})).__name__ == "Wider"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("my_losses:agre", {}, r"method\.objective: my_losses has no 'agre'.*'agree'"),
        ("my_loses:agree", {}, r"there is no module 'my_loses'.*run from the folder"),
        ("my_losses:nothing", {}, r"should be a function, got int"),
        ("my_losses:", {}, r"expected package\.module:name"),
        ("my_losses:agree", {"wait": 1}, r"objective_args\.wait: agree has no .*'weight'"),
        ("pathlib:Path", {}, r"is a class, but no Objective"),
    ],
)
def test_mistakes_are_named(
    module: str, name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_objective(name, arguments)


def test_a_function_that_returns_no_scalar_is_named(module: str) -> None:
    objective = make_objective(f"{module}:per_photo", {})
    with pytest.raises(ConfigError, match=r"per_photo should return a scalar.*shape \(4,\)"):
        objective.invariance(Projections(torch.zeros(2, 4, 3)), 0.0)


@pytest.mark.parametrize("name", ["cut_off", "a_number_again"])
def test_a_function_that_loses_the_gradient_is_named(module: str, name: str) -> None:
    objective = make_objective(f"{module}:{name}", {})
    views = torch.rand(2, 4, 3, requires_grad=True)
    with pytest.raises(ConfigError, match=rf"{name} should return a loss with a gradient.*detach"):
        objective.invariance(Projections(views), 0.0)
    with torch.no_grad():  # where it is only measured, nothing is lost
        assert objective.invariance(Projections(views), 0.0).ndim == 0


@pytest.mark.parametrize("mixed", [False, True])
def test_a_class_that_loses_the_gradient_ends_the_run(
    mixed: bool,
    module: str,
    photo_folder: Path,
    tiny_recipe: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    own = {"name": f"{module}:CutOff", "args": {"dim": 8, "hidden_dim": 8}}
    method = (
        {"objectives": [{"name": "simclr", "args": {"dim": 8, "hidden_dim": 8}}, own]}
        if mixed
        else {"objective": own["name"], "objective_args": own["args"]}
    )
    recipe = tiny_recipe(method=method, run__max_steps=1)
    with pytest.raises(ConfigError, match="CutOff should return a loss with a gradient"):
        pretrain(recipe, str(photo_folder), tmp_path / "run", progress=False)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_parameter_that_nothing_would_train_is_named(
    mixed: bool, module: str, tiny_recipe: Callable[..., Recipe]
) -> None:
    own = {"name": f"{module}:Learned"}
    first = {"name": "simclr", "args": {"dim": 8, "hidden_dim": 8}}
    method = {"objectives": [first, own]} if mixed else {"objective": own["name"]}
    message = r"the parameter (objectives\.1\.)?scale, which would never be trained.*make_head"
    with pytest.raises(ConfigError, match=message):
        build(tiny_recipe(method=method))


def test_a_parameter_of_a_head_is_trained(module: str, tiny_recipe: Callable[..., Recipe]) -> None:
    clever = build(tiny_recipe(method={"objective": f"{module}:LearnedInItsHead"}))
    assert {*clever.objective.parameters()} < {*clever.student.parameters()}


def test_a_class_learns_from_a_frozen_teacher(
    module: str, photo_folder: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    teacher = str(write_teacher(tmp_path / "teacher"))
    method = {"objective": f"{module}:Taught", "teacher": teacher}
    recipe = tiny_recipe(method=method, run__max_steps=4)
    pretrain(recipe, str(photo_folder), tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["invariance"] for line in lines]
    assert losses[-1] < losses[0]


def test_a_frozen_teacher_is_there_if_and_only_if_it_is_used(
    module: str, photo_folder: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    alone = tiny_recipe(
        method={"objective": f"{module}:Taught", "objective_args": {"target_dim": 8}}
    )
    with pytest.raises(ConfigError, match=r"method\.teacher: my_losses:Taught uses the targets"):
        build(alone)
    idle = tiny_recipe(method={"objective": f"{module}:agree", "teacher": "no-such-model"})
    message = r"method\.teacher: my_losses:agree learns nothing from a frozen teacher"
    # Before the teacher is loaded, and every photo embedded.
    with pytest.raises(ConfigError, match=message):
        pretrain(idle, str(photo_folder), tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match=message):
        estimate_run(idle, str(photo_folder))


def test_the_example_in_the_readme_trains(
    repository: Path,
    photo_folder: Path,
    tiny_recipe: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (repository / "training" / "README.md").read_text()
    code = re.search(r"```python\n# my_objectives\.py\n(.*?)```", text, re.DOTALL)
    assert code is not None
    (tmp_path / "my_objectives.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    name = re.search(r"^method: (clever-my_objectives:\w+)$", text, re.MULTILINE)
    assert name is not None
    recipe = tiny_recipe(
        method={"name": name[1], "objective_args": {"dim": 32, "hidden_dim": 64}},
        run__max_steps=4,
    )
    pretrain(recipe, str(photo_folder), tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < losses[0]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["provenance"]["method"] == name[1]
