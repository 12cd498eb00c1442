"""Images in tables: parquet files, and data sets on the Hugging Face Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from clever_hub.errors import CleverError, DataError, require, suggest
from clever_hub.files import file_stamp
from clever_hub.scale.storage import FOLDER

_HUB = "hub:"
# Parquet files written without the Hub's metadata; the names that pretrain looks for, too.
_USUAL_NAMES = ("image", "img")
# What ``embed`` itself writes: ``path_bytes`` has names of photos, no photos.
_OF_EMBED = {"path", "invariant", "path_bytes"}
_OPTION = "Name the image column: --image-column COLUMN"


def is_hub_id(table: str) -> bool:
    """Whether a table is a data set on the Hub.

    Example:
        >>> is_hub_id("hub:user/photos"), is_hub_id("photos.parquet")
        (True, False)
    """
    return table.startswith(_HUB)


def parquet_files(folder: Path) -> list[str]:
    """The parquet files in a folder and its sub-folders, sorted.

    Names that begin with ``.`` or ``_`` are passed over, as other readers do, and so are folders
    that ``embed`` made: their tables have vectors, not images.
    """
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        if FOLDER in folders:
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        tables = (name for name in names if name.endswith(".parquet"))
        found += [str(Path(root, name)) for name in tables if not name.startswith((".", "_"))]
    return sorted(found)


def embedded_photos(table: str) -> Iterator[str] | None:
    """The photos whose embeddings a parquet file holds, if ``embed`` wrote it.

    Args:
        table: The file.

    Returns:
        Their names as they were given to ``embed``; None of any other table, such as one that has a
        column of images, too.

    Raises:
        DataError: When it cannot be read.
    """
    opened = _open(table, file_stamp(Path(table)))
    schema = opened.schema_arrow
    others = [field for field in schema if field.name not in _OF_EMBED]
    if not set(schema.names) >= _OF_EMBED or any(_may_hold_images(f.type) for f in others):
        return None
    return _embedded(opened, table)


def _embedded(opened: Any, table: str) -> Iterator[str]:
    import pyarrow as pa

    for group in range(opened.metadata.num_row_groups):
        for batch in _batches(opened, group, ["path", "path_bytes"], table):
            yield from map(os.fsdecode, exact_paths(pa.Table.from_batches([batch])))


def exact_paths(table: Any) -> Iterator[bytes]:
    """The paths of a table that ``embed`` wrote as the bytes that file systems know."""
    texts: list[Any] = table["path"].to_pylist()
    names = zip(texts, table["path_bytes"].to_pylist(), strict=True)
    yield from (exact if exact is not None else text.encode() for text, exact in names)


def holds_images(table: str, column: str | None = None) -> bool:
    """Whether a parquet file may hold images, and not embeddings as ``embed`` writes them.

    Args:
        table: The file.
        column: The column that the user named, which is then looked at; None looks at all.

    Raises:
        DataError: When it cannot be read.
    """
    schema = _open(table, file_stamp(Path(table))).schema_arrow
    if set(schema.names) >= {"path", "invariant"}:
        return False
    return column is not None or any(_may_hold_images(field.type) for field in schema)


def list_parquet_rows(table: str, column: str | None) -> Iterator[tuple[int, str]]:
    """Number and stamp of each row of a parquet file.

    Args:
        table: The file.
        column: Its image column; None looks for it.

    Raises:
        DataError: When it cannot be read or has no image column.
    """
    stamp = file_stamp(Path(table))
    yield from ((row, stamp) for row in range(count_images(table, column)))


def count_images(table: str, column: str | None) -> int:
    """How many rows a parquet file with images has.

    Args:
        table: The file.
        column: Its image column; None looks for it.

    Raises:
        DataError: When it cannot be read or has no image column.
    """
    find_column(table, column)
    return count_rows(table)


def find_column(table: str, column: str | None) -> str:
    """The image column of a parquet file.

    Args:
        table: The file.
        column: The column that the user named; None looks for it.

    Raises:
        DataError: When the file cannot be read, has no such column, or not exactly one that may
            hold images.
    """
    opened = _open(table, file_stamp(Path(table)))
    return image_column(opened.schema_arrow, column, table)


def count_rows(table: str) -> int:
    """How many rows a parquet file has.

    Raises:
        DataError: When it cannot be read.
    """
    return int(_open(table, file_stamp(Path(table))).metadata.num_rows)


def list_hub_rows(table: str, column: str | None) -> Iterator[tuple[int, str]]:
    """Number and stamp of each row of a data set on the Hub; it is downloaded.

    Args:
        table: ``hub:`` and the id of the data set; its split ``train`` is taken, else the first.
        column: Its image column; None looks for it.

    Raises:
        DataError: When it cannot be loaded or has no image column.
    """
    data, _ = _hub(table, column)
    yield from ((row, str(data._fingerprint)) for row in range(len(data)))


class Unreadable:
    """Stands for an image that cannot be had: whoever reads it gets the reason.

    Example:
        >>> Unreadable(OSError("gone")).read()
        Traceback (most recent call last):
        OSError: gone
    """

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read(self) -> bytes:
        """Raises the error."""
        raise self._error


def read_rows(
    table: str, column: str | None, rows: Sequence[int]
) -> Iterator[bytes | str | Unreadable]:
    """The image files in some rows of a table.

    Args:
        table: A parquet file, or ``hub:`` and the id of a data set.
        column: Its image column; None looks for it.
        rows: Ascending numbers of rows.

    Yields:
        Bytes or a path for each row; no bytes where the row has none, ``Unreadable`` where the
        table has become shorter.

    Raises:
        DataError: When the table cannot be read.
    """
    if is_hub_id(table):
        data, name = _hub(table, column)
        yield from (_image(data[row][name]) if row < len(data) else _gone() for row in rows)
        return
    given = 0
    for content in _parquet_rows(table, column, rows):
        given += 1
        yield content
    yield from (_gone() for _ in range(len(rows) - given))


def _gone() -> Unreadable:
    return Unreadable(ValueError("the table has become shorter"))


def _parquet_rows(table: str, column: str | None, rows: Sequence[int]) -> Iterator[bytes | str]:
    """As ``read_rows``, without the rows that the file does not have."""
    opened = _open(table, file_stamp(Path(table)))
    name = image_column(opened.schema_arrow, column, table)
    wanted, first = iter(rows), 0
    row = next(wanted, None)
    for group in range(opened.metadata.num_row_groups):
        behind = first + opened.metadata.row_group(group).num_rows
        if row is not None and row < behind:
            # A few rows at a time: a row group may hold a gigabyte of photos.
            for batch in _batches(opened, group, [name], table):
                while row is not None and row < first + len(batch):
                    yield _image(batch.column(0)[row - first].as_py())
                    row = next(wanted, None)
                first += len(batch)
        first = behind


def _batches(opened: Any, group: int, columns: list[str], table: str) -> Iterator[Any]:
    """Columns of a row group, some rows at a time."""
    import pyarrow as pa

    try:
        yield from opened.iter_batches(64, row_groups=[group], columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{table}: cannot be read: {error}") from error


def image_column(schema: Any, column: str | None, table: str) -> str:
    """The image column of a parquet file.

    Args:
        schema: Its Arrow schema.
        column: The column that the user named; None looks for it.
        table: Names the file in errors.

    Raises:
        DataError: When there is no such column, or not exactly one that may hold images.
    """
    if column is not None:
        if column not in schema.names:
            raise DataError(f"{table}: no column {column!r}. {suggest(column, schema.names)}")
        return column
    known = _features(schema.metadata or {})
    images = [name for name in schema.names if _is_image_feature(known.get(name))]
    if len(images) != 1:
        candidates = images or [field.name for field in schema if _may_hold_images(field.type)]
        usual = [name for name in _USUAL_NAMES if name in candidates]
        images = usual[:1] or (candidates if len(candidates) == 1 else [])
    if not images:
        raise DataError(
            f"{table}: expected one column of images, got columns {sorted(schema.names)}. {_OPTION}"
        )
    return str(images[0])


def _features(metadata: dict[bytes, bytes]) -> dict[str, object]:
    """What the Hub's metadata says of the columns; nothing where it is not as the Hub writes it."""
    try:
        known = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _is_image_feature(kind: object) -> bool:
    return isinstance(kind, dict) and kind.get("_type") == "Image"


def _may_hold_images(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {"bytes", "path"} == {field.name for field in kind}
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _image(entry: object) -> bytes | str:
    """The image file in a cell: its bytes, else its path."""
    if isinstance(entry, dict):
        entry = entry.get("bytes") or entry.get("path")
    return entry if isinstance(entry, (bytes, str)) else b""


@lru_cache(maxsize=4)
def _open(table: str, _stamp: str) -> Any:
    """An open file; one that was replaced has another stamp and is opened anew."""
    import pyarrow as pa

    try:
        return require("pyarrow.parquet", "onnx").ParquetFile(table)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{table}: no parquet file that can be read: {error}") from error


@lru_cache(maxsize=2)
def _hub(table: str, column: str | None) -> tuple[Any, str]:
    """A data set on the Hub, its images undecoded, and its image column."""
    datasets = require("datasets", "train")
    datasets.disable_progress_bars()
    name = table.removeprefix(_HUB)
    from clever_hub.hub.datasets import load_from_hub

    try:
        splits = load_from_hub(name)
    except CleverError:
        raise
    except Exception as error:  # of the client, the network, the builder: they share no base
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{name}: no such file or folder here, and as a data set on the Hub it cannot be "
            f"loaded: {first}"
        ) from error
    data = splits["train" if "train" in splits else next(iter(splits))]
    found = image_column(data.features.arrow_schema, column, name)
    return data.cast_column(found, datasets.Image(decode=False)), found
