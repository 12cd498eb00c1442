"""User code that a recipe names as ``package.module:name``."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from clever_hub.errors import ConfigError, suggest
from clever_training.recipe.methods import HEAD_ARGUMENTS


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


def objective_arguments(path: str) -> tuple[str, ...]:
    """What ``method.objective_args`` may hold for an objective of one's own.

    Args:
        path: ``package.module:name`` of a class, or of a function whose first argument is views.

    Returns:
        The arguments of a class; of a function those after the first, and those of its head. The
        head's alone where there is no such object: that is refused where it is needed.

    Example:
        >>> objective_arguments("bisect:insort")[:4]
        ('dim', 'hidden_dim', 'x', 'lo')
    """
    try:
        found = load_object(path, "method.objective")
        parameters = inspect.signature(found).parameters.values()
    except (ConfigError, TypeError, ValueError):
        return HEAD_ARGUMENTS
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return tuple(named) if isinstance(found, type) else (*HEAD_ARGUMENTS, *named[1:])


def uses_teachers(path: str) -> tuple[bool, bool]:
    """Whether an objective of one's own uses a moving teacher, and a frozen teacher's targets.

    Args:
        path: ``package.module:name`` of a class or a function.

    Returns:
        A function uses neither. A class may use a moving teacher, whatever it says before an object
        is made. What cannot be loaded may use both; it is refused where it is needed.

    Example:
        >>> uses_teachers("bisect:insort")
        (False, False)
    """
    try:
        found = load_object(path, "method.objective")
    except ConfigError:
        return True, True
    return isinstance(found, type), bool(getattr(found, "uses_targets", False))


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
