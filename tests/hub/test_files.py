"""A reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clever_hub.files import atomic_path, write_json, write_text


def test_the_target_changes_only_at_the_end(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a.txt", "old")
    with atomic_path(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
        assert path.suffix == ".txt"  # writers choose a format by it
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write_text(tmp_path / "a.txt", "old")

    def interrupted() -> None:
        with atomic_path(target) as path:
            path.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208


def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    assert write_text(tmp_path / "deep/er/a.txt", "x").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_file_of_safetensors_has_them_too(tmp_path: Path, umask: int) -> None:
    """Its writer lets only the owner read the file, so that a server of another user could not."""
    before = os.umask(umask)
    try:
        with atomic_path(tmp_path / "a.safetensors") as path:
            save_file({"a": np.zeros(1)}, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o666 & ~umask
    assert os.listdir(tmp_path) == ["a.safetensors"]  # noqa: PTH208


def test_json_that_other_readers_would_refuse_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())
