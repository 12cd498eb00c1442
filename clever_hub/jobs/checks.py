"""Values of a config that strangers write, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clever_hub.errors import ModelFormatError


def number(key: str, value: object, low: float = -1e12, high: float = 1e12) -> float:
    """A number of a config, checked.

    Args:
        key: Its name in the message.
        value: What the config has.
        low: Smallest that is allowed.
        high: Largest.

    Raises:
        ModelFormatError: When it is no number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ModelFormatError(f"{key}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def numbers(key: str, value: object, count: int | None = None) -> tuple[float, ...]:
    """A list of numbers of a config, checked; ``count`` of them where that is given."""
    if not isinstance(value, (list, tuple)) or not value or count not in (None, len(value)):
        wanted = f"a list of {count} numbers" if count is not None else "a list of numbers"
        raise ModelFormatError(f"{key}: expected {wanted}, got {value!r}")
    return tuple(number(f"{key}[{index}]", entry) for index, entry in enumerate(value))


def mapping(key: str, value: object) -> Mapping[str, Any]:
    """An object of a config's calibration, checked."""
    if not isinstance(value, Mapping):
        raise ModelFormatError(f"calibration.{key}: expected an object, got {value!r}")
    return value
