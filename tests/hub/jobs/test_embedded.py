"""Embeddings of a file, and where the photos are that they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clever_hub.errors import DataError
from clever_hub.jobs.embedded import read_embeddings, to_column


def table(file: Path, names: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    vectors = to_column(np.eye(len(names), 4, dtype=np.float32))
    pq.write_table(pa.table({"path": names, "invariant": vectors}), file)
    return file


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def test_paths_that_lead_to_photos_stay_as_they_were_written(tmp_path: Path) -> None:
    names = ["photos/a.jpg", "photos/b.jpg", str(tmp_path / "c.jpg")]
    touch(Path("photos/a.jpg"), Path("photos/b.jpg"), tmp_path / "there" / "photos" / "a.jpg")
    found = read_embeddings(table(tmp_path / "there" / "v.parquet", names))
    assert found.paths == [Path(name) for name in names]
    assert found.there().tolist() == [True, True, False]


@pytest.mark.parametrize("below", ["there", "there/is/deep"])
def test_photos_are_found_from_the_files_folder_or_from_above_it(
    tmp_path: Path, below: str
) -> None:
    there = tmp_path / "there"
    touch(there / "photos" / "a.jpg", there / "photos" / "b.jpg")
    names = ["photos/a.jpg", "photos/b.jpg", "photos/gone.jpg", str(tmp_path / "c.jpg")]
    found = read_embeddings(table(tmp_path / below / "v.parquet", names))
    assert found.paths == [*(there / name for name in names[:3]), tmp_path / "c.jpg"]
    assert found.there().tolist() == [True, True, False, False]


def test_one_folder_is_chosen_for_all(tmp_path: Path) -> None:
    there = tmp_path / "there"
    touch(Path("photos/c.jpg"), there / "photos" / "a.jpg", there / "photos" / "b.jpg")
    names = ["photos/a.jpg", "photos/b.jpg", "photos/c.jpg"]
    found = read_embeddings(table(there / "v.parquet", names))
    assert found.paths == [there / name for name in names], "another c.jpg is no photo of these"


def test_a_folder_of_shards_may_say_from_where_it_was_made(tmp_path: Path) -> None:
    shards, made_from = tmp_path / "shards", [tmp_path / "one", tmp_path / "two"]
    table(shards / "part-00000.parquet", ["a.jpg", "b.jpg"])
    table(shards / "part-00001.parquet", ["c.jpg"])
    touch(made_from[0] / "a.jpg", made_from[0] / "b.jpg", made_from[1] / "c.jpg")
    run = shards / "_clever_hub" / "run.json"
    touch(run)
    for damaged in ("no json", "[]", '{"folders": 3}', "{}"):
        run.write_text(damaged)
        assert not read_embeddings(shards).there().any()
    run.write_text(json.dumps({"folders": [str(folder) for folder in made_from]}))
    assert read_embeddings(shards).there().all()


def test_photos_that_are_nowhere_keep_their_names(tmp_path: Path) -> None:
    names = ["a.jpg", "s3://bucket/b.jpg", "photos.parquet#3"]
    found = read_embeddings(table(tmp_path / "v.parquet", names))
    assert found.paths == [Path(name) for name in names]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: no such file$"):
        read_embeddings(tmp_path / "gone.parquet")


def test_rows_are_found_by_their_table(tmp_path: Path) -> None:
    there = tmp_path / "there"
    touch(there / "data" / "photos.parquet")
    found = read_embeddings(table(there / "v.parquet", ["data/photos.parquet#3", "gone.parquet#1"]))
    assert found.paths == [there / "data" / "photos.parquet#3", there / "gone.parquet#1"]


def test_some_of_the_photos(tmp_path: Path) -> None:
    found = read_embeddings(table(tmp_path / "v.parquet", ["a.jpg", "b.jpg", "c.jpg"]))
    some = found.take(np.array([True, False, True]))
    assert some.paths == [Path("a.jpg"), Path("c.jpg")]
    np.testing.assert_array_equal(some.embeddings.invariant, found.embeddings.invariant[[0, 2]])
    assert len(some) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    rows = np.eye(3, 4, dtype=np.float32)
    rows[1, 2] = value
    columns = {"path": ["a", "b", "c"], "invariant": to_column(rows)}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    with pytest.raises(DataError, match="expected finite embeddings, got NaN or infinity in row 1"):
        read_embeddings(tmp_path / "e.parquet")
