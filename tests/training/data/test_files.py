"""Folders of images are listed by ourselves: links, brackets and names of any bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from clever_hub.errors import DataError
from clever_training.data.labelled import load_labelled
from clever_training.data.photos import load_photos


def test_linked_folders_are_trained_on(photos: dict[str, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("chelsea", "coffee"):
        shutil.copy(photos[name], elsewhere)
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(photos["rocket"], mine)
    (mine / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert len(load_photos(str(mine))) == 3
    only = tmp_path / "only"
    only.mkdir()
    (only / "linked").symlink_to(elsewhere, target_is_directory=True)
    found = load_photos(str(only))
    assert len(found) == 2
    assert found[0].shape[2] == 3


def test_brackets_and_names_that_are_not_utf_8_are_found(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "a[1]" / "b{2}"
    folder.mkdir(parents=True)
    shutil.copy(photos["rocket"], folder / "100%*.jpg")
    other = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")
    shutil.copy(photos["rocket"], other)
    found = load_photos(str(tmp_path / "a[1]"))
    assert len(found) == 2
    np.testing.assert_array_equal(found[0], found[1])


def test_a_broken_photo_is_named_by_its_file(photos: dict[str, Path], tmp_path: Path) -> None:
    for label in ("cat", "cup"):
        (tmp_path / label).mkdir()
        shutil.copy(photos["coffee"], tmp_path / label / "good.png")
    broken = tmp_path / "cup" / "broken.jpg"
    broken.write_bytes(photos["rocket"].read_bytes()[:2000])
    source = load_photos(str(tmp_path))
    with pytest.raises(DataError, match=r"cup/broken\.jpg cannot be read as an image"):
        [source[row] for row in range(len(source))]
    labelled = load_labelled(str(tmp_path), "train")
    assert labelled.classes == ("cat", "cup")
    with pytest.raises(DataError, match=r"cup/broken\.jpg cannot be read as an image"):
        [labelled[position] for position in range(len(labelled))]


@pytest.mark.parametrize("load", [load_photos, lambda name: load_labelled(name, "train")])
def test_a_path_that_does_not_exist_is_named_at_once(load: object) -> None:
    # No network is asked: the guard of the test suite would refuse it by another error.
    with pytest.raises(DataError, match="nope: no such file or folder"):
        load("nope")  # type: ignore[operator]
