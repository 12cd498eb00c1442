"""Photos in tables: each row's bytes, whatever the order, and what is said where there are none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clever_hub.errors import DataError, ImageError
from clever_hub.images.opening import load_image
from clever_hub.jobs.photo_files import read_photo_file
from clever_hub.jobs.rows import Spool, TablePhotos, TableRow, image_tables, open_rows
from clever_hub.jobs.store import photo_key


@pytest.fixture
def table(photos: dict[str, Path], tmp_path: Path) -> Path:
    """Photos as bytes, an empty cell, and one by its path; in groups of two rows."""
    cells: list[dict[str, bytes | str | None] | None]
    cells = [{"bytes": path.read_bytes(), "path": None} for path in photos.values()]
    cells += [None, {"bytes": None, "path": str(next(iter(photos.values())))}]
    file = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"image": cells, "label": range(len(cells))}), file, row_group_size=2)
    return file


def test_every_row_has_its_own_file_in_any_order(table: Path, photos: dict[str, Path]) -> None:
    rows = TablePhotos(table).rows
    files = list(photos.values())
    for place in reversed(range(len(files))):
        assert rows[place].read() == files[place].read_bytes()
        known, stored = read_photo_file(files[place]), read_photo_file(rows[place])
        assert (stored.pixels, stored.grey, stored.size) == (known.pixels, known.grey, known.size)
        assert stored.seconds == int(table.stat().st_mtime)
    assert rows[-1].read() == files[0].read_bytes(), "by its path"
    assert load_image(rows[1]).tobytes() == load_image(files[1]).tobytes()


def test_a_row_is_named_as_embed_names_it(table: Path) -> None:
    row = TablePhotos(table).rows[2]
    assert os.fspath(row) == str(row) == f"{table}#2"
    assert row.name == "photos.parquet#2"
    assert repr(row) == f"TableRow('{table}#2')"
    key = photo_key(row)
    assert key is not None
    assert key.path == f"{table}#2:image"
    assert key.size == len(row.read())


def test_rows_without_an_image_are_named(table: Path, photos: dict[str, Path]) -> None:
    opened = TablePhotos(table)
    empty, behind = opened.rows[len(photos)], TableRow(opened, 99)
    with pytest.raises(ImageError, match=rf"photos\.parquet#{len(photos)}"):
        load_image(empty)
    assert empty.is_file()
    assert not behind.is_file()
    assert photo_key(behind) is None
    assert not read_photo_file(behind).there
    with pytest.raises(ImageError, match=r"photos\.parquet#99"):
        load_image(behind)


def test_cells_that_name_no_photo_are_told(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    cells = [{"bytes": None, "path": name} for name in (str(pipe), "a\0b.jpg", "gone.jpg")]
    table = tmp_path / "paths.parquet"
    pq.write_table(pa.table({"image": cells}), table)
    for row in TablePhotos(table).rows:
        with pytest.raises(OSError, match=r"regular file|null|No such file"):
            row.read()
        assert read_photo_file(row).pixels == 0
    assert photo_key(TablePhotos(table).rows[1]) is None


def test_many_tables_share_a_file(photos: dict[str, Path], tmp_path: Path) -> None:
    files = [path.read_bytes() for path in photos.values()]
    spool, tables = Spool(), []
    for number, file in enumerate(files):
        place = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"image": [file]}), place)
        tables.append(TablePhotos(place, spool=spool))
    assert [table.rows[0].read() for table in tables] == files


def test_a_changed_table_is_known_by_its_rows(table: Path) -> None:
    before = photo_key(TablePhotos(table).rows[0])
    os.utime(table, ns=(1, 1))
    after = photo_key(TablePhotos(table).rows[0])
    assert before != after


def test_the_column_is_found_or_named(photos: dict[str, Path], tmp_path: Path) -> None:
    files = [path.read_bytes() for path in photos.values()]
    table = tmp_path / "two.parquet"
    pq.write_table(pa.table({"left": files, "right": files[::-1]}), table)
    with pytest.raises(DataError, match="--image-column"):
        TablePhotos(table)
    keys = [photo_key(TablePhotos(table, name).rows[0]) for name in ("left", "right")]
    assert keys[0] != keys[1], "photos of as many bytes in two columns are two photos"
    with pytest.raises(DataError, match="no column 'up'"):
        TablePhotos(table, "up")
    assert TablePhotos(table, "right").rows[0].read() == files[-1]


@contextmanager
def small_files() -> Iterator[None]:
    """No file grows beyond 100 kB, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_kept_before_the_disk_was_full_can_be_read() -> None:
    spool = Spool()
    place = spool.add(b"photo")
    spool.add(bytes(99_000))
    with small_files(), pytest.raises(OSError, match="File too large"):
        spool.add(bytes(5_000))
    with small_files():
        assert spool.read(place) == b"photo"


def test_a_full_disk_says_what_to_do(table: Path) -> None:
    said = r"photos\.parquet: its photos cannot be copied.*TMPDIR"
    with small_files(), pytest.raises(DataError, match=said):
        TablePhotos(table)


def test_which_paths_are_tables_of_images(table: Path, tmp_path: Path) -> None:
    assert image_tables(table) == [table]
    vectors = tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"path": ["a"], "path_bytes": [b"a"], "invariant": [[1.0]]}), vectors)
    assert image_tables(vectors) == []
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    table.rename(folder / "train-0.parquet")
    assert image_tables(folder.parent) == [folder / "train-0.parquet"]
    shutil.copy(vectors, folder / "vectors.parquet")
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    assert image_tables(folder.parent) == [folder / "train-0.parquet"], "and no embeddings"


def test_names_of_rows_become_photos_where_the_table_is_there(table: Path, tmp_path: Path) -> None:
    calls = []

    def open_table(path: Path) -> TablePhotos:
        calls.append(path)
        return TablePhotos(path)

    names = [Path(f"{table}#1"), tmp_path / "a.jpg", Path(f"{table}#0"), Path("gone.parquet#3")]
    found = open_rows(names, open_table)
    assert [os.fspath(photo) for photo in found] == [str(name) for name in names]
    assert [photo.is_file() for photo in found] == [True, False, True, False]
    assert calls == [table], "opened once"
    found = open_rows(names, open_table, lambda place, _: place == 0)
    assert [photo.is_file() for photo in found] == [True, False, False, False]
