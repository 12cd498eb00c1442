"""The classes of labelled photos: what a column of labels may hold."""

from __future__ import annotations

import math
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import DataError
from clever_training.data.files import normal_name

_EXACT = ("int", "uint", "bool", "string", "large_string", "string_view", "null")


def read_classes(name: str, table: Any, column: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class of each row, and the classes' names.

    Args:
        name: The data set, for messages.
        table: The data set.
        column: The column of the labels: a ``ClassLabel``, whole numbers (also as floats, as
            pandas writes them), strings or booleans.

    Returns:
        int64 (rows,), in [0, number of classes), and the names: those of the ``ClassLabel``, else
        the values, sorted.

    Raises:
        DataError: When a row has no label, or the column holds something else.

    Example:
        >>> table = datasets.Dataset.from_dict({"label": [-1.0, 1.0, -1.0]})
        >>> read_classes("d", table, "label")
        (array([0, 1, 0]), ('-1', '1'))
    """
    kind, values = table.features[column], list(table[column][:])
    if isinstance(kind, datasets.ClassLabel):
        # Of a ClassLabel, -1 says that there is none; test sets of the Hub have it.
        _refuse_missing(name, column, [value is None or value == -1 for value in values])
        return np.asarray(values, dtype=np.int64), tuple(
            normal_name(class_) for class_ in kind.names
        )
    dtype = kind.dtype if isinstance(kind, datasets.Value) else None
    floating = dtype is not None and dtype.startswith("float")
    if not floating and (dtype is None or dtype.rstrip("0123456789") not in _EXACT):
        raise DataError(
            f"{name}: expected one class in each row of the column {column!r}, such as a name or a "
            f"whole number; got {dtype or type(kind).__name__}. {_another(name)}"
        )
    missing = [value is None or (floating and math.isnan(value)) for value in values]
    _refuse_missing(name, column, missing)
    if floating:
        values = _whole(name, column, values)
    values = [normal_name(value) if isinstance(value, str) else value for value in values]
    known = sorted(set(values))
    place = {value: index for index, value in enumerate(known)}
    labels = np.asarray([place[value] for value in values], dtype=np.int64)
    return labels, tuple(str(value) for value in known)


def _refuse_missing(name: str, column: str, missing: list[bool]) -> None:
    if any(missing):
        raise DataError(
            f"{name}: expected a label in every row, got none in {sum(missing)} of {len(missing)} "
            f"rows of the column {column!r}; the first is row {missing.index(True)}. "
            "Remove the rows without a label"
        )


def _whole(name: str, column: str, values: list[float]) -> list[int]:
    """Floats as the whole numbers that they are."""
    for row, value in enumerate(values):
        if not value.is_integer():
            raise DataError(
                f"{name}: expected classes in the column {column!r}, got numbers that are not "
                f"whole, such as {value:g} in row {row}. {_another(name)}, "
                "or put these into classes"
            )
    return [int(value) for value in values]


def _another(name: str) -> str:
    return f"Name another label column: {name}?label=COLUMN"
