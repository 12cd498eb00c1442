"""What an evaluation has measured so far, kept on disk: one that was stopped goes on from there.

Each piece (a video's scores, a protocol's figures with one seed) is a small JSON file beside the
cached features, named by a hash of everything that it depends on. The hash covers the sources of
this package and of ``clever_hub``: figures of an older version are measured again.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

import clever_hub
from clever_hub.files import atomic_path

_T = TypeVar("_T")
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Piece(Generic[_T]):
    """A piece of an evaluation.

    Attributes:
        value: What was measured.
        seconds: How long that took, when it was measured.
    """

    value: _T
    seconds: float


@dataclass(frozen=True)
class KeptPieces:
    """Pieces of evaluations on disk.

    Attributes:
        folder: Where they are, ``<hash>.json``; it may be deleted at any time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = KeptPieces(Path(folder))
        ...     kept.piece("camel", lambda: {"j": 63.1}).value
        ...     kept.piece("camel", lambda: {"j": 0.0}).value  # not measured again
        {'j': 63.1}
        {'j': 63.1}
    """

    folder: Path

    def piece(self, depends_on: str, measure: Callable[[], _T]) -> Piece[_T]:
        """A piece from disk, or measured now and kept.

        Args:
            depends_on: Everything that it depends on besides the code: weights, photos, options.
            measure: Gives what JSON can hold to the last bit: dicts with text as keys, lists,
                text, finite numbers.

        Returns:
            The piece. A damaged file counts as none.
        """
        path = self.path(depends_on, ".json")
        if (known := _read(path)) is not None:
            return known
        made = timed(measure)
        text = json.dumps({"seconds": made.seconds, "value": made.value}, allow_nan=False)
        keep(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), "figures")
        return made

    def path(self, depends_on: str, suffix: str) -> Path:
        """The file of what depends on these things and on the code.

        Args:
            depends_on: As for ``piece``.
            suffix: Of the file's name, such as ``.json``.
        """
        text = f"{code_digest()} {versions()} {depends_on}"
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}{suffix}"


def timed(measure: Callable[[], _T]) -> Piece[_T]:
    """Measure a piece now."""
    started = time.monotonic()
    return Piece(measure(), time.monotonic() - started)


def keep(path: Path, write: Callable[[Path], object], what: str) -> None:
    """Write a file into the cache; warn and go on when that fails.

    Args:
        path: The file.
        write: Writes it, given a temporary path.
        what: The content in the warning, such as ``features``.
    """
    try:
        with atomic_path(path) as temporary:
            write(temporary)
    except OSError as error:
        # numpy's own error for a full disk has no errno.
        warnings.warn(
            f"{what} are not kept in {path.parent} ({error.strerror or error}), so the "
            "next evaluation will compute them again. Free disk space, or name another folder "
            "with --cache",
            stacklevel=3,
        )


@cache
def versions() -> str:
    """The releases of the packages on which figures and features may depend, where installed."""
    found = []
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


@cache
def code_digest(
    hub: tuple[str, ...] = ("**/*.py",), training: tuple[str, ...] = ("**/*.py",)
) -> str:
    """SHA-256 over the sources of ``clever_hub`` and ``clever_training``.

    Args:
        hub: Patterns of the files of the first; all by default.
        training: Those of the second.
    """
    digest = hashlib.sha256()
    roots = {Path(clever_hub.__file__).parent: hub, Path(__file__).parents[1]: training}
    for root, patterns in roots.items():
        for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
            digest.update(f"{path.relative_to(root).as_posix()} ".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> Piece[Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Piece(content["value"], float(content["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
