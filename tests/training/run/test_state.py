"""The counters beside a state's tensors keep the form that earlier runs wrote."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clever_training.recipe.schema import ViewsRecipe
from clever_training.run.state import RunState
from clever_training.views.parameters import UNKNOWN, ViewParameters

FIRST = {"step": 6, "seconds": 4.5, "start": {"init": "random"}}
POSITIONS = [{"turn": 0, "row": 0, "state": None, "used": 24}]


@pytest.mark.parametrize(
    "counters",
    [FIRST, {**FIRST, "stream": POSITIONS, "angle": 30.0}, {"step": 3, "seconds": 0.5}],
)
def test_counters_are_read_and_written_as_they_were(counters: dict[str, Any]) -> None:
    assert list(RunState.from_json(counters).to_json().items()) == list(counters.items())


def test_a_counter_of_a_later_version_does_no_harm() -> None:
    assert RunState.from_json({**FIRST, "photos_seen": 48}) == RunState.from_json(FIRST)


def test_the_largest_angle_that_was_seen_is_kept() -> None:
    state, before = RunState(), None
    cases = [((None, None), 0), ((-20.0, 340.0), 20), ((None, 5.0), 20), ((-180.0, 0.0), 180)]
    for angles, largest in cases:
        views = [UNKNOWN if a is None else ViewParameters(angle=a) for a in angles]
        parameters = torch.stack([torch.from_numpy(view.as_array()) for view in views])[None]
        state.see(ViewsRecipe(), parameters)
        assert state.angle == before, "what a recipe says need not be looked for"
        state.see(ViewsRecipe(aug="mine:augment"), parameters)
        assert state.angle == pytest.approx(largest, abs=1e-4)
        before = state.angle
