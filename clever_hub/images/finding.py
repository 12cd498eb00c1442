"""Image files among paths and in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from clever_hub.errors import DataError
from clever_hub.images.decoding import EXTENSIONS


def find_images(paths: list[Path]) -> Iterator[Path]:
    """The image files among paths and in folders, each once.

    Args:
        paths: Files, taken whatever their ending, and folders, searched with their subfolders for
            the endings of ``decoding.EXTENSIONS``. Links to folders are followed, to each
            folder once. Hidden files in folders are left out: macOS writes "._a.jpg" files that
            are no images.

    Yields:
        The files; those of a folder sorted by name.

    Raises:
        DataError: When a path does not exist, or a folder cannot be read or has no images.
    """
    seen: set[Path] = set()
    resolved = cache(Path.resolve)  # once for a folder, not for each of its files
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        found = _walk(path) if path.is_dir() else [path]
        if not found:
            endings = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{path}: no images in this folder; looked for names with {endings}")
        # However its folder is spelt; two links to one file are two names for people.
        yield from (file for file in found if _add(resolved(file.parent) / file.name, seen))


def spread_evenly(paths: list[Path], limit: int) -> list[Path]:
    """Choose at most so many paths, evenly from the whole list.

    The first ones of a folder may all be of one class.

    Args:
        paths: All paths.
        limit: How many to choose at most.

    Returns:
        The chosen ones, in their order.

    Example:
        >>> spread_evenly([Path("a"), Path("b"), Path("c"), Path("d")], 2)
        [PosixPath('a'), PosixPath('c')]
    """
    if len(paths) <= limit:
        return paths
    return [paths[index * len(paths) // limit] for index in range(limit)]


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    seen = {folder.resolve()}
    for root, folders, names in os.walk(folder, onerror=_unreadable, followlinks=True):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and _add(Path(root, name).resolve(), seen)
        ]
        found += [
            Path(root, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS
        ]
    return found


def _add(path: Path, seen: set[Path]) -> bool:
    """Whether a path is new, from now on seen."""
    new = path not in seen
    seen.add(path)
    return new


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error
