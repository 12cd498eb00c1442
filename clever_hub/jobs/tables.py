"""Rows of an answer as a file: parquet, CSV or JSON, by the name's ending."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clever_hub.errors import ConfigError, require
from clever_hub.files import atomic_path, write_json

FORMATS = (".parquet", ".csv", ".json")

Row = Mapping[str, Any]


def check_format(path: Path, formats: Sequence[str] = FORMATS) -> str:
    """The ending of a file that is to be written, before any work is done.

    Args:
        path: Its name.
        formats: The endings that can be written.

    Returns:
        The ending, in lower case.

    Raises:
        ConfigError: When it is none of them, or the path is a folder.

    Example:
        >>> check_format(Path("groups.CSV"))
        '.csv'
    """
    ending = path.suffix.lower()
    if ending not in formats:
        raise ConfigError(f"--output: expected a name with {', '.join(formats)}, got {path}")
    if path.is_dir():
        raise ConfigError(f"--output: expected the name of a file, got the folder {path}")
    if ending == ".parquet":
        require("pyarrow.parquet", "jobs")
    return ending


def write_rows(path: Path, rows: Sequence[Row], columns: Mapping[str, type]) -> Path:
    """Write rows to a file that appears whole or not at all.

    Args:
        path: Its name; the ending is the format.
        rows: Values by column; None and NaN are empty.
        columns: The columns, and the type of their values: str, int, float or bool.

    Returns:
        The path.

    Raises:
        ConfigError: When the ending is unknown.
        OSError: When it cannot be written.
    """
    ending = check_format(path)
    plain = [{name: _plain(row.get(name)) for name in columns} for row in rows]
    if ending == ".json":
        return write_json(path, plain)
    with atomic_path(path) as temporary:
        if ending == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as file:
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


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return text_of(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def text_of(path: str | os.PathLike[str]) -> str:
    """A path as text that every format takes: names on Linux are bytes, maybe not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
