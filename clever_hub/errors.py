"""Every error that clever-hub raises on purpose.

    CleverError
    ├── ModelNotFoundError   the name or folder leads to no model
    ├── ModelFormatError     the model folder is there, its config or weights are wrong
    ├── HubError             the Hub cannot be reached or refuses, or its cache is unusable
    ├── ImageError           an image could not be read; ``source`` names it
    ├── ConfigError          a recipe or option has a wrong key or value
    ├── DataError            a data set is wrong: no images, an unreadable row
    ├── TrainingError        a run cannot go on: a non-finite loss, a locked folder
    ├── MissingExtraError    an optional dependency is not installed (also an ImportError)
    └── DeviceError          the device that was asked for is not there

A message says what was expected, what came, and what to do. ``except CleverError`` catches whatever
may go wrong with files, models, data and options. As elsewhere in Python, an argument that no call
should have, such as an array of another shape or a batch size of 0, is a ``ValueError``, one of
another type a ``TypeError``. Any other exception that reaches the user is a bug.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class CleverError(Exception):
    """Base class of every error that clever-hub raises on purpose."""


class ModelNotFoundError(CleverError):
    """The name or folder leads to no model."""


class ModelFormatError(CleverError):
    """A model folder is there, but its config or its weights are wrong."""


class HubError(CleverError):
    """The Hugging Face Hub cannot be reached or refuses, or its cache cannot be used."""


class ImageError(CleverError):
    """An image could not be read.

    Attributes:
        source: The image's path, or its position in the input.
        reason: What is wrong with the image, without its name.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        # By default exceptions are pickled by their message alone; unpickling would then fail in
        # the process that receives it from a worker.
        return type(self), (self.source, self.reason)


class ConfigError(CleverError):
    """A recipe or an option has an unknown key or a wrong value."""


class DataError(CleverError):
    """A data set is wrong: it has no images, or a row cannot be read."""


class TrainingError(CleverError):
    """A run cannot go on: a loss is not finite, a run folder is in use."""


class MissingExtraError(CleverError, ImportError):
    """An optional dependency is not installed; the message says how to install it."""


class DeviceError(CleverError):
    """The device or execution provider that was asked for is not there."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra installs it.

    Args:
        module: The module to import, such as ``"torch"`` or ``"pyarrow.parquet"``.
        extra: The extra of this distribution that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: When the module's top-level package is not installed. An import error
            from within an installed package is passed on: installing an extra would not repair it.

    Example:
        >>> require("math", "torch").pi
        3.141592653589793
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise missing_extra(error.name or module, extra) from error


def missing_extra(module: str, extra: str) -> MissingExtraError:
    """The error for an optional dependency that is not installed.

    Args:
        module: The module that could not be imported.
        extra: The extra that installs it.

    Returns:
        The error, to be raised by the caller.
    """
    return MissingExtraError(
        f'This needs {module}, which is not installed. Run: pip install "clever-hub[{extra}]"',
        name=module,
    )


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence with the names that the user may have meant.

    Args:
        name: What was given.
        known: Every name that would have been accepted.

    Returns:
        ``"Did you mean 'a'?"`` for near misses, else the list of the known names; an empty string
        when there are none.

    Example:
        >>> suggest("resnet81", ["resnet18", "vit_tiny"])
        "Did you mean 'resnet18'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(repr(match) for match in near)}?"
    return f"Known: {', '.join(names)}." if names else ""
