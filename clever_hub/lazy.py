"""Public names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: dict[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and the ``__dir__`` of a package.

    Args:
        package: The package's ``globals()``; a name is kept there once it has been imported.
        homes: The module of each public name. The package's own module of that name is the name
            itself.

    Returns:
        ``__getattr__`` and ``__dir__``.

    Example:
        >>> find, names = attach({"__name__": "circle", "__all__": ["pi"]}, {"pi": "math"})
        >>> find("pi"), names()
        (3.141592653589793, ['pi'])
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        module = importlib.import_module(homes[name])
        own = homes[name] == f"{package['__name__']}.{name}"
        value = module if own else getattr(module, name)
        package[name] = value
        return value

    return find, lambda: sorted(package["__all__"])
