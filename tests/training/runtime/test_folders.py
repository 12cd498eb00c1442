"""The lock of a run's folder, and a system that has no locks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clever_hub.errors import TrainingError
from clever_training.runtime.folders import hold


def test_a_folder_is_locked_until_its_file_is_closed(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as first:
        assert hold(first, tmp_path)
        with (
            (tmp_path / ".lock").open("w") as second,
            pytest.raises(TrainingError, match="another process trains in this run folder"),
        ):
            hold(second, tmp_path)
    with (tmp_path / ".lock").open("w") as third:
        assert hold(third, tmp_path)


def test_without_locks_none_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with (tmp_path / ".lock").open("w") as first, (tmp_path / ".lock").open("w") as second:
        held = [hold(first, tmp_path), hold(second, tmp_path)]
    assert held == [False, False]
