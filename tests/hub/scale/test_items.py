"""What can be embedded: files, tables, lists, names that are no text."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clever_hub
from clever_hub.errors import DataError, MissingExtraError
from clever_hub.images.finding import find_images
from clever_hub.jobs.embedded import read_embeddings
from clever_hub.scale import embed_dataset
from clever_hub.scale.items import Item, list_items
from clever_hub.scale.remote import RemoteImage
from clever_hub.scale.shards import _sources
from clever_hub.scale.tables import exact_paths, list_parquet_rows, parquet_files, read_rows


def names(*inputs: object, column: str | None = None) -> list[str]:
    return [item.name for item in list_items([str(one) for one in inputs], column)]


@pytest.fixture
def table(album: Path, tmp_path: Path) -> Path:
    """A parquet file as `datasets` writes it, with small row groups; row 4 is empty."""
    files = sorted(album.glob("*.jpg"))
    contents = [file.read_bytes() if row != 4 else b"" for row, file in enumerate(files)]
    images = [{"bytes": content, "path": None} for content in contents]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    data = datasets.Dataset.from_dict(
        {"image": images, "label": list(range(20))}, features=features
    )
    data.to_parquet(tmp_path / "photos.parquet", batch_size=6)
    return tmp_path / "photos.parquet"


def test_a_folder_is_listed_in_the_order_of_find_images(album: Path) -> None:
    expected = [str(path) for path in find_images([album])]
    assert names(album) == expected
    assert names(album / "01.jpg", album)[0] == str(album / "01.jpg")
    assert len(names(album / "01.jpg", album)) == 30


def test_rows_of_a_parquet_file(
    table: Path, album: Path, model_folder: Path, tmp_path: Path
) -> None:
    assert names(table)[:2] == [f"{table}#0", f"{table}#1"]
    rows = [0, 5, 6, 7, 19]
    files = sorted(album.glob("*.jpg"))
    assert list(read_rows(str(table), None, rows)) == [files[row].read_bytes() for row in rows]
    done = embed_dataset(model_folder, table, tmp_path / "v", shard_size=7)
    assert (done.images, done.rows) == (20, 19)
    assert done.skipped == [(f"{table}#4", "cannot be read: the file is empty")]
    found = pq.read_table(tmp_path / "v")
    expected = clever_hub.from_pretrained(model_folder).encode(files[0]).invariant
    assert found["invariant"][0].as_py() == pytest.approx(expected[0].tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", ["", ".parquet"])
def test_what_embed_wrote_stands_for_its_photos(
    kind: str, album: Path, model_folder: Path, tmp_path: Path
) -> None:
    odd = (album / "00.jpg").rename(album / os.fsdecode(b"caf\xe9-\xff.jpg"))
    made = tmp_path / f"v{kind}"
    embed_dataset(model_folder, album, made, shard_size=8)
    assert names(made) == [str(path) for path in find_images([album])]
    again = tmp_path / "again.parquet"
    assert embed_dataset(model_folder, made, again).rows == 30
    first, second = (pq.read_table(table).sort_by("path") for table in (made, again))
    assert first["path"] == second["path"]
    odd.unlink()
    third = embed_dataset(model_folder, made, tmp_path / "third")
    assert (third.images, third.rows) == (30, 29)
    assert third.skipped[0][0].startswith(f"{album}/caf")
    shutil.rmtree(album)
    with pytest.raises(
        DataError, match=r"no photos; its photos, .*jpg first, are not there\. Name"
    ):
        names(made)


@pytest.mark.parametrize("kind", ["", ".parquet"])
def test_photos_of_a_table_are_found_from_elsewhere(
    kind: str,
    album: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = tmp_path / f"v{kind}"
    monkeypatch.chdir(tmp_path)
    embed_dataset(model_folder, album.name, made, shard_size=8)
    assert names(made)[0].startswith("album/")
    (tmp_path / "else" / "where").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "else" / "where")
    assert names(made) == [str(path) for path in find_images([album])]
    located = [str(path) for path in read_embeddings(made).paths]
    assert sorted(located) == sorted(names(made))
    assert embed_dataset(model_folder, made, "again").rows == 30


def test_a_column_of_images_beside_embeddings_is_taken(
    album: Path, model_folder: Path, tmp_path: Path
) -> None:
    made = tmp_path / "v.parquet"
    embed_dataset(model_folder, album, made)
    table = pq.read_table(made)
    images = [Path(str(path)).read_bytes() for path in table["path"].to_pylist()]
    pq.write_table(table.append_column("image", pa.array(images)), made)
    assert names(made)[:2] == [f"{made}#0", f"{made}#1"]


def test_embeddings_of_rows_say_that_they_are_none_of_photos(
    table: Path, model_folder: Path, tmp_path: Path
) -> None:
    embed_dataset(model_folder, table, tmp_path / "v.parquet")
    with pytest.raises(DataError, match=r"photos\.parquet#0 first, are not there.*the tables"):
        names(tmp_path / "v.parquet")


def test_a_folder_of_tables_and_a_plain_binary_column(album: Path, tmp_path: Path) -> None:
    files = sorted(album.glob("*.jpg"))[:3]
    plain = pa.table({"id": [1, 2, 3], "photo": [file.read_bytes() for file in files]})
    (tmp_path / "tables").mkdir()
    pq.write_table(plain, tmp_path / "tables" / "a.parquet")
    assert len(names(tmp_path / "tables")) == 3
    two = plain.append_column("thumbnail", plain["photo"])
    pq.write_table(two, tmp_path / "two.parquet")
    with pytest.raises(DataError, match=r"expected one column of images.*--image-column"):
        names(tmp_path / "two.parquet")
    assert len(names(tmp_path / "two.parquet", column="photo")) == 3
    with pytest.raises(DataError, match=r"no column 'phto'\. Did you mean 'photo'"):
        names(tmp_path / "two.parquet", column="phto")


def test_a_data_set_on_the_hub(
    table: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, tmp_path: Path
) -> None:
    data = datasets.load_dataset("parquet", data_files=str(table), cache_dir=str(tmp_path / "c"))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"user/photos": data}[name])
    monkeypatch.setattr("clever_hub.hub.datasets._is_cached", lambda name: name == "user/photos")
    assert names("user/photos")[:2] == ["user/photos#0", "user/photos#1"]
    done = embed_dataset(model_folder, "user/photos", tmp_path / "v", shard_size=7)
    assert (done.images, done.rows) == (20, 19)


def test_a_path_that_is_not_there_is_named_without_the_network(tmp_path: Path) -> None:
    for given in ("nowhere", "nowhere.jpg", "./a/b", "gone.parquet", f"{tmp_path}/x"):
        with pytest.raises(DataError, match="no such file"):
            names(given)


@pytest.mark.parametrize("separator", [b"\n", b"\0", b"\r\n"])
def test_a_list_of_paths_on_standard_input(
    album: Path, monkeypatch: pytest.MonkeyPatch, separator: bytes
) -> None:
    listed = [album / "03.jpg", album / "second", album / "01.jpg"]
    content = separator.join(os.fsencode(path) for path in listed) + separator
    stream = io.BufferedReader(io.BytesIO(content))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    found = names("-")
    assert [found[0], found[-1]] == [str(album / "03.jpg"), str(album / "01.jpg")]
    assert len(found) == 12


def test_an_empty_list_on_standard_input_is_said_to_be_empty(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(b"\n")))
    monkeypatch.setattr(sys, "stdin", empty)
    with pytest.raises(DataError, match="expected paths of images on standard input, got none"):
        names("-")
    assert names(album / "03.jpg", "-") == [str(album / "03.jpg")]


def test_names_that_are_no_text_come_back_exactly(
    album: Path, model_folder: Path, tmp_path: Path
) -> None:
    odd = (album / "00.jpg").rename(album / os.fsdecode(b"caf\xe9-\xff.jpg"))
    for ending in ("", ".parquet"):
        embed_dataset(model_folder, album, tmp_path / f"v{ending}")
        paths = list(exact_paths(pq.read_table(tmp_path / f"v{ending}")))
        assert os.fsencode(odd) in paths
        assert all(Path(os.fsdecode(path)).is_file() for path in paths)
    again = embed_dataset(model_folder, album, tmp_path / "v", update=True)
    assert again.computed == 0


def test_addresses_are_read_by_fsspec(album: Path, model_folder: Path, tmp_path: Path) -> None:
    bucket: Any = fsspec.filesystem("memory")
    for file in sorted(album.glob("*.jpg"))[:5]:
        bucket.pipe_file(f"/bucket/photos/{file.name}", file.read_bytes())
    bucket.pipe_file("/bucket/photos/notes.txt", b"no image")
    done = embed_dataset(model_folder, "memory://bucket/photos", tmp_path / "v")
    assert done.rows == 5
    assert pq.read_table(tmp_path / "v")["path"][0].as_py() == "memory:///bucket/photos/00.jpg"
    out = embed_dataset(model_folder, "memory://bucket/photos", "memory://bucket/vectors")
    assert out.rows == 5
    assert (
        embed_dataset(model_folder, "memory://bucket/photos", "memory://bucket/vectors").computed
        == 0
    )
    with pytest.raises(DataError, match="no images under this address"):
        names("memory://bucket/nothing")


def test_an_address_out_of_reach_says_why() -> None:
    with pytest.raises(DataError, match=r"a\.jpg: cannot be read: .*127\.0\.0\.1"):
        names("http://127.0.0.1:9/a.jpg")


@pytest.mark.parametrize("name", ["photos.csv", "vectors.npz", "photos.tar", "LIST.TXT"])
def test_other_tables_and_archives_are_refused_by_what_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a.jpg\n")
    with pytest.raises(DataError, match=r"Convert a table to parquet.*- < paths\.txt"):
        names(str(tmp_path / name))


def test_addresses_may_have_any_name(album: Path, model_folder: Path, tmp_path: Path) -> None:
    """Neither text, nor free of what fsspec takes for a chain of file systems."""
    for file, name in zip(
        sorted(album.glob("*.jpg")), (b"caf\xe9.jpg", b"a::b.jpg", b"s3::c::d.jpg"), strict=False
    ):
        file.rename(album / os.fsdecode(name))
    done = embed_dataset(model_folder, f"file://{album}", tmp_path / "v")
    assert (done.rows, done.skipped) == (30, [])
    paths = list(exact_paths(pq.read_table(tmp_path / "v")))
    assert b"file://" + os.fsencode(album) + b"/caf\xe9.jpg" in paths


def test_addresses_are_fetched_side_by_side(
    album: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until all eight are being fetched."""
    bucket: Any = fsspec.filesystem("memory")
    for file in sorted(album.glob("*.jpg"))[:8]:
        bucket.pipe_file(f"/wide/{file.name}", file.read_bytes())
    together = threading.Barrier(8, timeout=30)
    fetch = type(bucket).cat_file

    def waiting(filesystem: Any, path: str, *more: Any) -> Any:
        together.wait()
        return fetch(filesystem, path, *more)

    monkeypatch.setattr(type(bucket), "cat_file", waiting)
    done = embed_dataset(model_folder, "memory://wide", tmp_path / "v", num_workers=8)
    assert (done.rows, done.skipped) == (8, [])


def test_a_file_system_that_is_not_installed_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same for all images: none of them is skipped for it."""

    def missing(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"s3://bucket/a\.jpg: Install s3fs"):
        list(_sources([Item(b"s3://bucket/a.jpg", "1")], None, ("",)))


def test_a_failed_fetch_says_why_and_is_tried_again(
    album: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {
        "00.jpg": PermissionError(13, "Permission denied"),
        "01.jpg": FileNotFoundError("01.jpg"),
        "02.jpg": RuntimeError("status 503"),  # aiohttp's and gcsfs's are no OSError
    }
    read = RemoteImage.read

    def failing(image: RemoteImage) -> bytes:
        if error := errors.get(Path(image.name).name):
            raise error
        return read(image)

    monkeypatch.setattr(RemoteImage, "read", failing)
    done = embed_dataset(model_folder, f"file://{album}", tmp_path / "v")
    assert [reason for _, reason in done.skipped] == [
        "Permission denied",
        "no such file",
        "cannot be read: status 503",
    ]
    monkeypatch.undo()
    done = embed_dataset(model_folder, f"file://{album}", tmp_path / "v", update=True)
    assert (done.rows, done.computed) == (30, 3)


def test_a_row_that_names_a_file_says_what_is_wrong_with_it(
    album: Path, model_folder: Path, tmp_path: Path
) -> None:
    cells = [{"bytes": None, "path": str(album / name)} for name in ("00.jpg", "gone.jpg")]
    pq.write_table(pa.table({"image": cells}), tmp_path / "t.parquet")
    done = embed_dataset(model_folder, tmp_path / "t.parquet", tmp_path / "v")
    assert done.rows == 1
    assert done.skipped == [(f"{tmp_path}/t.parquet#1", "no such file")]


@pytest.mark.parametrize(
    "metadata",
    [
        *(b"not json", b"\xff", b"[]", b'"text"', b'{"info": null}', b"[" * 100_000),
        b'{"info": {"features": ["photo"]}}',
        b'{"info": {"features": {"dropped": {"_type": "Image"}}}}',
    ],
)
def test_odd_metadata_of_the_hub_is_passed_over(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"id": [1], "photo": [b"a"]}).replace_schema_metadata(
        {b"huggingface": metadata}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert list(read_rows(str(tmp_path / "t.parquet"), None, [0])) == [b"a"]


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for content in ([b"old"], [b"new", b"second"]):
        pq.write_table(pa.table({"image": pa.array(content, pa.binary())}), tmp_path / "new")
        (tmp_path / "new").replace(file)
        count = len(list(list_parquet_rows(str(file), None)))
        assert list(read_rows(str(file), None, range(count))) == content


def test_what_embed_made_is_no_table_of_images(album: Path, tmp_path: Path) -> None:
    names = ("a.parquet", "deep/b.parquet", "spark.parquet/part-0.parquet")
    wanted = [tmp_path / "t" / name for name in names]
    others = ("_x/c.parquet", ".y/d.parquet", "v/part-00000.parquet", "_e.parquet")
    for path in (*wanted, *(tmp_path / "t" / name for name in others)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "t" / "v" / "_clever_hub").mkdir()
    assert parquet_files(tmp_path / "t") == sorted(map(str, wanted))


def test_a_damaged_table_is_named(album: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    photos = [path.read_bytes() for path in sorted(album.rglob("*.jpg"))]
    pq.write_table(pa.table({"image": pa.array(photos, pa.binary())}), file, use_dictionary=False)
    content = bytearray(file.read_bytes())
    content[100:2000] = bytes(1900)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
        list(read_rows(str(file), None, range(30)))


def test_a_name_that_the_system_refuses_is_named() -> None:
    with pytest.raises(DataError, match=r"x\.jpg: .*too long"):
        list(list_items(["x" * 300 + "x.jpg"]))
