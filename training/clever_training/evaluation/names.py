"""Unique names."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, or the name with the first free number from 2 on.

    Example:
        >>> free_name("a", ["b"]), free_name("b", ["b", "b-2"])
        ('a', 'b-3')
    """
    if name not in taken:
        return name
    return next(one for n in count(2) if (one := f"{name}-{n}") not in taken)
