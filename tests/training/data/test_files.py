"""Folders of images are listed by ourselves: links, brackets and names of any bytes."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from clever_hub.errors import DataError
from clever_training.data.files import FileTable, read_in_threads
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


def test_a_table_gives_back_every_name_by_its_row() -> None:
    odd = os.fsdecode(b"caf\xe9/\xff\xfe.jpg")
    names = ["a/1.jpg", odd, "b/\u00e9 \u5199\u771f.jpg", "b/2.jpg"]
    table = FileTable([Path(name) for name in names], root=Path())
    for found in (table, pickle.loads(pickle.dumps(table))):
        images = [found[row]["image"] for row in range(4)]
        assert images == [{"bytes": None, "path": name} for name in names]
        assert os.fsencode(found[1]["image"]["path"]) == b"caf\xe9/\xff\xfe.jpg"
        assert found[-1] == found[3] == {"image": found[3]["image"], "label": 1}
        assert (len(found), found["label"]) == (4, [0, 2, 1, 1])
        with pytest.raises(IndexError):
            found[4]
    assert len(FileTable([])) == 0


def test_a_table_holds_no_object_for_each_file() -> None:
    """Worker processes share what is one object; they would copy strings that they read."""
    paths = [Path(f"photos/of/some/class/{number:026}.jpg") for number in range(10_000)]
    longest = max(len(str(path)) for path in paths)  # now each path knows its string
    tracemalloc.start()
    try:
        table = FileTable(paths)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table[9_999]["image"]["path"] == str(paths[-1])
    assert held / len(paths) < longest + 16


def test_files_are_read_in_order_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clever_training.data.files.available_cores", lambda: 2)
    both = threading.Barrier(2, timeout=30)

    def read(number: int) -> int:
        both.wait()  # for the other thread, which reads another item
        return -number

    assert list(read_in_threads(read, range(8))) == [-number for number in range(8)]
    assert list(read_in_threads(read, [])) == []


def test_the_first_error_of_a_reader_is_raised_and_ends_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clever_training.data.files.available_cores", lambda: 2)
    seen = []

    def read(number: int) -> int:
        seen.append(number)
        if number in (300, 310, 400):
            raise OSError(f"item {number}")
        return number

    made: list[int] = []
    with pytest.raises(OSError, match="item 300"):
        made.extend(read_in_threads(read, range(100_000)))
    assert len(seen) < 1000, "a few are read ahead, not all"


def test_a_fingerprint_is_of_names_and_contents_in_order(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    """In threads as one after the other: what is cached by fingerprint stays valid."""
    expected = hashlib.sha256()
    for label, name in (("cat", "chelsea"), ("cup", "coffee")):
        (tmp_path / label).mkdir()
        for number in range(20):
            path = tmp_path / label / f"{number:02}{photos[name].suffix}"
            path.write_bytes(photos[name].read_bytes() + bytes([number]))
            expected.update(os.fsencode(path.relative_to(tmp_path)) + b"\0")
            expected.update(hashlib.sha256(path.read_bytes()).digest())
    assert load_labelled(str(tmp_path), "train").fingerprint == expected.hexdigest()
