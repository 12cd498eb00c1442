"""One file of the format that its ending names."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clever_hub.errors import DataError
from clever_hub.scale import embed_dataset
from clever_hub.scale.formats import read_part
from clever_hub.scale.tables import exact_paths


@pytest.fixture
def odd(album: Path) -> Path:
    """An album with names that csv must quote and that are no text."""
    (album / "00.jpg").rename(album / 'a, "b".jpg')
    (album / "01.jpg").rename(album / os.fsdecode(b"\xe9.jpg"))
    return album


def test_every_format_holds_the_same(model_folder: Path, odd: Path, tmp_path: Path) -> None:
    def write(ending: str) -> Path:
        out = tmp_path / f"v.{ending}"
        assert embed_dataset(model_folder, odd, out, shard_size=8).rows == 30
        return out

    table = pq.read_table(write("parquet"))
    paths = [os.fsdecode(path) for path in exact_paths(table)]
    invariant, equivariant = (read_part(table, part) for part in ("invariant", "equivariant"))

    with np.load(write("npz")) as archive:
        assert archive["path"].tolist() == paths
        np.testing.assert_array_equal(archive["invariant"], invariant)
        np.testing.assert_array_equal(archive["equivariant"], equivariant)
        assert json.loads(str(archive["metadata"]))["clever_hub.model"] == "clever-tiny"

    lines = [json.loads(line) for line in write("jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == paths
    for name, part in (("invariant", invariant), ("equivariant", equivariant)):
        np.testing.assert_array_equal(np.array([line[name] for line in lines], np.float32), part)

    with write("csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        head, *body = list(csv.reader(file))
    assert head == [
        "path",
        *(f"invariant_{i}" for i in range(19)),
        *(f"equivariant_{i}" for i in range(5)),
    ]
    assert [line[0] for line in body] == paths
    both = np.concatenate([invariant, equivariant], axis=1)
    np.testing.assert_array_equal(np.array([line[1:] for line in body], np.float32), both)
    assert sorted(path.name for path in tmp_path.glob(".*")) == [], "nothing is left behind"


@pytest.mark.parametrize("name", ["v", "v.parquet"])
def test_floats_have_no_dictionary(
    model_folder: Path, album: Path, tmp_path: Path, name: str
) -> None:
    """It would be 15 % of the file's size, and most of the time to write it."""
    embed_dataset(model_folder, album, tmp_path / name)
    file = tmp_path / name / "part-00000.parquet" if name == "v" else tmp_path / name
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    plain = {c.path_in_schema.partition(".")[0] for c in columns if not c.has_dictionary_page}
    assert plain == {"invariant", "equivariant"}


def test_lance(model_folder: Path, odd: Path, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed")
    for _ in range(2):  # the second replaces the first
        embed_dataset(model_folder, odd, tmp_path / "v.lance", shard_size=8)
    embed_dataset(model_folder, odd, tmp_path / "v.parquet", shard_size=8)
    found = lancedb.connect(str(tmp_path)).open_table("v").to_arrow()
    expected = pq.read_table(tmp_path / "v.parquet")
    assert found["path"].to_pylist() == expected["path"].to_pylist()
    for part in ("invariant", "equivariant"):
        np.testing.assert_array_equal(read_part(found, part), read_part(expected, part))
    assert {path.name for path in tmp_path.iterdir()} >= {"v.lance", "v.parquet"}
    assert not list(tmp_path.glob(".v*"))


def test_lance_with_a_space_in_its_name(model_folder: Path, album: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    out = tmp_path / "my photos.lance"
    for _ in range(2):
        assert embed_dataset(model_folder, album, out).rows == 30
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".lance") == [out.name]
    assert not list(tmp_path.glob(".*"))
    assert (out / "_versions").is_dir()


@pytest.mark.parametrize("name", ["v.npy", "v.pq", "v.xlsx", "v.tar.gz", "-"])
def test_other_endings_are_refused_at_once(
    model_folder: Path, album: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="expected a f"):
        embed_dataset(model_folder, album, name)
    assert not (tmp_path / name).exists()


def test_duckdb_casts_to_arrays(model_folder: Path, album: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    embed_dataset(model_folder, album, tmp_path / "v", shard_size=8)
    query = (
        "SELECT b.path, array_cosine_similarity(a.v, b.v) AS cosine "
        "FROM (SELECT path, invariant::FLOAT[19] AS v FROM '{0}/*.parquet') a, "
        "(SELECT path, invariant::FLOAT[19] AS v FROM '{0}/*.parquet') b "
        "WHERE a.path LIKE '%/03.jpg' ORDER BY cosine DESC LIMIT 2"
    )
    (first, cosine), (_, second) = duckdb.sql(query.format(tmp_path / "v")).fetchall()
    assert first == str(album / "03.jpg")
    assert cosine == pytest.approx(1, abs=1e-5)
    assert second < cosine
