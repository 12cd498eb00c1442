"""Another method for a recipe keeps the settings that both methods take."""

from __future__ import annotations

import inspect
import logging

import pytest

from clever_training.objectives.registry import OBJECTIVES
from clever_training.recipe.methods import OBJECTIVE_ARGUMENTS
from clever_training.recipe.reading import read_recipe


def test_the_same_method_by_name_changes_nothing() -> None:
    recipe = read_recipe("clever-dino-resnet18-tiny")
    again = read_recipe("clever-dino-resnet18-tiny", {"method": recipe.method.name})
    assert again == recipe
    assert again.method.objective_args["prototypes"] < 65_536


def test_another_method_keeps_what_it_takes_and_names_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = read_recipe("clever-dino-resnet18-tiny").method
    with caplog.at_level(logging.WARNING):
        after = read_recipe("clever-dino-resnet18-tiny", {"method": "clever-plus-dino"}).method
    assert after.objective_args == before.objective_args
    assert after.teacher_momentum == before.teacher_momentum
    assert after.transformation_weight == 1.0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        other = read_recipe("clever-dino-resnet18-tiny", {"method": "clever-simclr"}).method
    assert other.objective_args.keys() == before.objective_args.keys() & {
        *OBJECTIVE_ARGUMENTS["simclr"]
    }
    (record,) = caplog.records
    assert "method clever-simclr does not take" in record.getMessage()
    assert "method.objective_args.prototypes" in record.getMessage()
    assert "method.teacher_momentum" in record.getMessage()


def test_a_plain_method_leaves_the_split_out(caplog: pytest.LogCaptureFixture) -> None:
    overrides = {"method.split_ratio": 0.7, "method": "vicreg"}
    with caplog.at_level(logging.WARNING):
        method = read_recipe("clever-resnet18-tiny", overrides).method
    assert not method.equivariance
    assert "method.split_ratio" in caplog.text


def test_the_arguments_of_objectives_are_those_of_their_classes() -> None:
    found = {name: tuple(inspect.signature(kind).parameters) for name, kind in OBJECTIVES.items()}
    assert found == OBJECTIVE_ARGUMENTS
