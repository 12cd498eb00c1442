"""User code that a recipe names as ``package.module:name``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from clever_hub.errors import ConfigError, suggest


def load_object(path: str, key: str) -> Any:
    """Import an object that a recipe names, also from modules in the working directory.

    Args:
        path: ``package.module:name``.
        key: The recipe's key, for errors.

    Returns:
        The object.

    Raises:
        ConfigError: When the path has another form, there is no such module, or no such name in it.
            Errors inside the module are passed on.

    Example:
        >>> load_object("math:sqrt", "method.objective")(4)
        2.0
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name.isidentifier()):
        raise ConfigError(f"{key}: expected package.module:name, got {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not module_name.startswith(error.name or "?"):
            raise
        module = _import_from_working_directory(module_name, path, key)
    if not hasattr(module, name):
        hint = suggest(name, (known for known in vars(module) if not known.startswith("_")))
        raise ConfigError(f"{key}: {module_name} has no {name!r}. {hint}")
    return getattr(module, name)


def _import_from_working_directory(module_name: str, path: str, key: str) -> Any:
    # Unlike under `python -m`, sys.path of a console script lacks the working directory. It is
    # added for good, since worker processes and pickles import the module again.
    sys.path.append(str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        sys.path.remove(str(Path.cwd()))
        if not module_name.startswith(error.name or "?"):
            raise
        raise ConfigError(
            f"{key}: {path!r}: there is no module {module_name!r}. Install it, or run from the "
            "folder that it is in"
        ) from error
