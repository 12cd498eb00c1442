"""Which column of a table holds the images."""

from __future__ import annotations

from typing import Any

import datasets

from clever_hub.errors import DataError, suggest

# Parquet files written without the Hugging Face metadata have a struct of bytes and path.
_USUAL_NAMES = ("image", "img")


def find_image_column(features: Any, column: str | None, name: str, option: str) -> str:
    """The image column of a table.

    Args:
        features: The table's columns and their types.
        column: The column that the user named; None looks for it.
        name: Names the table in errors.
        option: Tells the user how to name the column, such as ``--image-column COLUMN``.

    Returns:
        The column's name.

    Raises:
        DataError: When there is no such column, it holds no images, or none was named and there
            is not exactly one candidate.
    """
    if column is None:
        return _only_image_column(features, name, option)
    check_column(features, column, name)
    if not may_hold_images(features[column]):
        raise DataError(
            f"{name}: expected images in the column {column!r}, got {features[column]}. "
            f"Name the image column: {option}"
        )
    return column


def check_column(features: Any, column: str, name: str) -> None:
    """Refuse a column that is not there.

    Args:
        features: The table's columns and their types.
        column: The column that the user named.
        name: Names the table in errors.

    Raises:
        DataError: When there is no such column; suggests a similar one.
    """
    if column not in features:
        raise DataError(f"{name}: no column {column!r}. {suggest(column, list(features))}")


def _only_image_column(features: Any, name: str, option: str) -> str:
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    if len(images) != 1:
        candidates = images or [key for key, kind in features.items() if may_hold_images(kind)]
        images = [key for key in _USUAL_NAMES if key in candidates]
    if not images:
        raise DataError(
            f"{name}: expected one column of images, got columns {sorted(features)}. "
            f"Name the image column: {option}"
        )
    return str(images[0])


def may_hold_images(kind: Any) -> bool:
    """Whether a column of this type can be read as images.

    Args:
        kind: A feature of ``datasets``.

    Returns:
        True for images, encoded files, paths, and a struct of the last two, as parquet files have.
    """
    if isinstance(kind, datasets.Image):
        return True
    if isinstance(kind, dict):
        return set(kind) == {"bytes", "path"}
    kinds = ("binary", "large_binary", "string", "large_string")
    return isinstance(kind, datasets.Value) and kind.dtype in kinds
