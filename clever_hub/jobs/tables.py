"""Rows of an answer as a file: parquet, CSV or JSON, by the name's ending."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clever_hub.errors import ConfigError, require
from clever_hub.files import atomic_path, write_json
from clever_hub.images.finding import check_not_input

FORMATS = (".parquet", ".csv", ".json")

Row = Mapping[str, Any]


def check_format(
    path: Path,
    formats: Sequence[str] = FORMATS,
    option: str = "--output",
    inputs: Iterable[str | Path] = (),
) -> str:
    """The ending of a file that is to be written, before any work is done.

    Args:
        path: Its name.
        formats: The endings that can be written.
        option: By which the path was given.
        inputs: What is read, which must not be written over.

    Returns:
        The ending, in lower case.

    Raises:
        ConfigError: When it is none of them, or as ``check_place`` and ``check_not_input``.

    Example:
        >>> check_format(Path("groups.CSV"))
        '.csv'
    """
    ending = path.suffix.lower()
    if ending not in formats:
        raise ConfigError(f"{option}: expected a name with {', '.join(formats)}, got {path}")
    check_place(path, option)
    check_not_input(path, inputs, option)
    if ending == ".parquet":
        require("pyarrow.parquet", "jobs")
    return ending


def check_place(path: Path, option: str, *, folder: bool = False) -> None:
    """Refuse a path at which nothing can be written, before any work is done.

    Args:
        path: Of a file, or of a folder; folders that it lies in are made when they are missing.
        option: By which it was given.
        folder: Whether a folder is to be there.

    Raises:
        ConfigError: When something else is there, or in the place of a folder above it; or when a
            folder may not be written to.
    """
    wanted = "a folder" if folder else "the name of a file"
    if path.exists() and not (path.is_dir() if folder else path.is_file()):
        found = "folder" if path.is_dir() else "file"
        raise ConfigError(f"{option}: expected {wanted}, got the {found} {path}")
    places = (path, *path.absolute().parents) if folder else path.absolute().parents
    above = next(place for place in places if os.path.lexists(place))
    if not above.is_dir():
        raise ConfigError(f"{option}: {path} cannot be written, {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}: {path} cannot be written, {above} is read-only")


def write_rows(path: Path, rows: Sequence[Row], columns: Mapping[str, type]) -> Path:
    """Write rows to a file that appears whole or not at all.

    Args:
        path: Its name; the ending is the format.
        rows: Values by column; None and NaN are empty. A path that is not UTF-8 is exact in .json
            and .csv (``os.fsencode`` gives its bytes, of .csv read with ``surrogateescape``), and
            shown with ``�`` in .parquet.
        columns: The columns, and the type of their values: str, int, float or bool.

    Returns:
        The path.

    Raises:
        ConfigError: When the ending is unknown.
        OSError: When it cannot be written.
    """
    ending = check_format(path)
    as_text = text_of if ending == ".parquet" else os.fspath
    plain = [{name: _plain(row.get(name), as_text) for name in columns} for row in rows]
    if ending == ".json":
        return write_json(path, plain)
    with atomic_path(path) as temporary:
        if ending == ".csv":
            with temporary.open(
                "w", encoding="utf-8", errors="surrogateescape", newline=""
            ) as file:
                writer = csv.DictWriter(file, list(columns))
                writer.writeheader()
                writer.writerows(plain)
        else:
            _write_parquet(temporary, plain, columns)
    return path


def _write_parquet(path: Path, rows: Sequence[Row], columns: Mapping[str, type]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[type, pa.DataType] = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
    }
    # The schema is given: of no rows, or a column without a value, nothing could be guessed.
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def _plain(value: Any, as_text: Callable[[os.PathLike[str]], str]) -> Any:
    if isinstance(value, os.PathLike):
        return as_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def text_of(path: str | os.PathLike[str]) -> str:
    """A path as text that every format takes: names on Linux are bytes, maybe not UTF-8.

    Whatever the encoding of the file system is: pages and tables are UTF-8.
    """
    try:
        exact = os.fspath(path).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as Windows has in names
        exact = os.fspath(path).encode("utf-8", "replace")
    return exact.decode("utf-8", "replace")
