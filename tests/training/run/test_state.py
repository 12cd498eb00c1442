"""The counters beside a state's tensors keep the form that earlier runs wrote."""

from __future__ import annotations

from typing import Any

import pytest

from clever_training.run.state import RunState

FIRST = {"step": 6, "seconds": 4.5, "start": {"init": "random"}}
POSITIONS = [{"turn": 0, "row": 0, "state": None, "used": 24}]


@pytest.mark.parametrize(
    "counters", [FIRST, {**FIRST, "stream": POSITIONS}, {"step": 3, "seconds": 0.5}]
)
def test_counters_are_read_and_written_as_they_were(counters: dict[str, Any]) -> None:
    assert list(RunState.from_json(counters).to_json().items()) == list(counters.items())


def test_a_counter_of_a_later_version_does_no_harm() -> None:
    assert RunState.from_json({**FIRST, "photos_seen": 48}) == RunState.from_json(FIRST)
