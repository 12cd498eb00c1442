"""What is to be embedded, as a stream: files, rows of tables, a list of paths, addresses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clever_hub.errors import DataError
from clever_hub.files import file_stamp
from clever_hub.images.decoding import EXTENSIONS
from clever_hub.images.finding import find_images
from clever_hub.scale.locating import locate_photos
from clever_hub.scale.storage import FOLDER
from clever_hub.scale.tables import (
    embedded_photos,
    is_hub_id,
    list_hub_rows,
    list_parquet_rows,
    parquet_files,
)

STDIN = "-"
# What may hold images or their names, and is not read.
_OTHER_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".npz", ".arrow", ".txt", ".tar", ".zip")


class Item(NamedTuple):
    """An image that is to be embedded.

    Attributes:
        key: Its name, unique: a path as bytes (file names on Linux need not be text), an address,
            or a table and the number of the row, ``photos.parquet#17``.
        stamp: Differs when the image has changed.
        table: For a row, the parquet file or ``hub:NAME``; empty otherwise.
        row: The row's number; -1 otherwise.
    """

    key: bytes
    stamp: str
    table: str = ""
    row: int = -1

    @property
    def name(self) -> str:
        """The key as Python spells file names, with surrogates for bytes that are no text."""
        return os.fsdecode(self.key)


def list_items(inputs: Sequence[str], image_column: str | None = None) -> Iterator[Item]:
    """List images, as a stream.

    Args:
        inputs: Image files; folders, searched as ``find_images`` does; parquet files, or folders
            that hold such and no images; ids of data sets on the Hub; addresses that fsspec opens,
            such as ``s3://bucket/photos``; or ``-`` for a list of paths on standard input,
            separated by newlines, or by NUL as ``find -print0`` does. A table or a folder of
            embeddings, as ``embed`` writes them, stands for the photos that it names,
            with those that are gone.
        image_column: The image column of tables; None looks for it.

    Yields:
        The images, in an order that is the same at every call as long as the inputs are.

    Raises:
        DataError: When an input is not there, or holds no images.
    """
    files: list[Path] = []
    for given in inputs:
        tables = _tables(given)
        if tables is None and given != STDIN and "://" not in given:
            files.append(Path(given))
            continue
        yield from _from_files(files)
        files = []
        if given == STDIN:
            yield from _from_stdin(alone=len(inputs) == 1)
        elif "://" in given:
            yield from _from_address(given)
        else:
            assert tables is not None
            yield from _from_tables(tables, image_column)
    yield from _from_files(files)


def _from_tables(tables: Sequence[str], column: str | None) -> Iterator[Item]:
    """The images in tables; of those that ``embed`` wrote, the photos that they name."""
    for folder, group in groupby(tables, _folder_of_shards):
        # The shards of a folder together: where photos are is told by the most of them.
        for some in [list(group)] if folder else [[table] for table in group]:
            if column is None and (photos := _embedded(some)) is not None:
                yield from _from_embeddings(photos, some[0])
                continue
            for table in some:
                yield from _from_table(table, column)


def _folder_of_shards(table: str) -> Path | None:
    """The folder that ``embed`` made and a table lies in."""
    folder = Path(table).parent
    return folder if (folder / FOLDER).is_dir() else None


def _embedded(tables: Sequence[str]) -> list[str] | None:
    """The photos that tables of ``embed`` name; None where one is another table."""
    found: list[str] = []
    for table in tables:
        photos = None if is_hub_id(table) else embedded_photos(table)
        if photos is None:
            return None
        found += photos
    return found


def _from_embeddings(photos: Sequence[str], table: str) -> Iterator[Item]:
    """The photos that a table of embeddings names, from where they are.

    One that is missing is listed, too: it cannot be read, and is named with the others.
    """
    local = [Path(photo) for photo in photos if "://" not in photo]
    places = locate_photos(local, Path(table).parent.resolve())
    if local and len(local) == len(photos) and not any(place.is_file() for place in places):
        which = (
            f"its photo {local[0]} is" if len(local) == 1 else f"its photos, {local[0]} first, are"
        )
        raise DataError(
            f"{table}: holds embeddings, and no photos; {which} not there. "
            "Name the photos, or the tables that hold them"
        )
    there = iter(places)
    for photo in photos:
        if "://" in photo:
            yield from _from_address(photo)
            continue
        place = next(there)
        yield Item(os.fsencode(place), file_stamp(place))


def _from_table(table: str, column: str | None) -> Iterator[Item]:
    """The images in a table, by their rows."""
    rows = list_hub_rows if is_hub_id(table) else list_parquet_rows
    for row, stamp in rows(table, column):
        yield Item(os.fsencode(f"{table.removeprefix('hub:')}#{row}"), stamp, table, row)


def _tables(given: str) -> list[str] | None:
    """The tables that an input names; None where it names files."""
    path = Path(given)
    if given == STDIN or "://" in given:
        return None
    try:
        there = path.exists()
    except OSError as error:  # such as a name that is too long
        raise DataError(f"{given}: {error.strerror or error}") from error
    if path.is_dir():
        return _tables_of_folder(path)
    if there and path.suffix.lower() in _OTHER_TABLES:
        raise DataError(
            f"{given}: expected images, folders of images, or parquet tables. Convert a table to "
            "parquet, unpack an archive, or pass a list of paths on standard input: - < paths.txt"
        )
    if there or path.suffix.lower() in EXTENSIONS:
        return [given] if path.suffix.lower() == ".parquet" else None
    if path.suffix.lower() == ".parquet":
        raise DataError(f"{given}: no such file")
    # Two words and a slash that lead nowhere on this machine may be a data set on the Hub.
    looks_remote = given.count("/") == 1 and not given.startswith((".", "/", "~"))
    return [f"hub:{given}"] if looks_remote and not path.parent.exists() else None


def _tables_of_folder(folder: Path) -> list[str] | None:
    """The parquet files of a folder that has no images."""
    if (folder / FOLDER).is_dir():  # embeddings: of which photos they say
        return sorted(str(path) for path in folder.glob("part-*.parquet")) or None
    tables = parquet_files(folder)
    if not tables:
        return None
    for _, _, names in os.walk(folder, followlinks=False):
        if any(Path(name).suffix.lower() in EXTENSIONS for name in names):
            return None
    return tables


def _from_files(paths: Iterable[Path]) -> Iterator[Item]:
    try:
        for path in find_images(paths):
            yield Item(os.fsencode(path), file_stamp(path))
    except OSError as error:  # such as a folder that may not be entered
        raise DataError(f"{error.filename or error}: {error.strerror or ''}") from error


def _from_stdin(*, alone: bool) -> Iterator[Item]:
    """The images that standard input names; it must name some where nothing else does."""
    named = False
    for item in _from_files(_listed(sys.stdin.buffer)):
        named = True
        yield item
    if alone and not named:
        raise DataError("-: expected paths of images on standard input, got none")


def _listed(stream: BinaryIO) -> Iterator[Path]:
    """Paths of a list; the first piece says whether NUL separates them or the newline."""
    rest, separator, known = b"", b"\n", False
    while piece := stream.read1(1 << 16):  # type: ignore[attr-defined]  # a BufferedReader
        if not known:
            separator, known = (b"\0" if b"\0" in piece else b"\n"), True
        *lines, rest = (rest + piece).split(separator)
        yield from _paths(lines, separator)
    yield from _paths([rest], separator)


def _paths(lines: Iterable[bytes], separator: bytes) -> Iterator[Path]:
    for line in lines:
        name = line.removesuffix(b"\r") if separator == b"\n" else line
        if name:
            yield Path(os.fsdecode(name))


def _from_address(address: str) -> Iterator[Item]:
    """The images under an address, by fsspec."""
    from clever_hub.scale.remote import list_images

    for name, stamp in list_images(address):
        yield Item(os.fsencode(name), stamp)
