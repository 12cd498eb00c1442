"""Find image files in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from clever_hub.errors import DataError
from clever_hub.images.decoding import EXTENSIONS


def find_images(paths: list[Path]) -> Iterator[Path]:
    """Find image files among paths; each is yielded once.

    Args:
        paths: Files and folders. Files are yielded whatever their extension. Folders are searched
            recursively for the extensions in ``decoding.EXTENSIONS``. Links to folders are
            followed, once for each folder. Hidden files in folders are left out: macOS writes
            "._a.jpg" files that are not images.

    Yields:
        The files; those in a folder are sorted by name.

    Raises:
        DataError: When a path does not exist, or a folder cannot be read or has no images.
    """
    seen: set[Path] = set()
    resolved = cache(Path.resolve)  # once for each folder, not for each file
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        found = _walk(path) if path.is_dir() else [path]
        if not found:
            endings = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{path}: no images in this folder; looked for names with {endings}")
        # The same file under two spellings of its folder counts once; two links to it count twice.
        yield from (file for file in found if _add(resolved(file.parent) / file.name, seen))


def spread_evenly(paths: list[Path], limit: int) -> list[Path]:
    """Choose at most ``limit`` paths, evenly spaced over the list.

    The first files of a folder may all show the same class.

    Args:
        paths: All paths.
        limit: Largest number of paths to choose.

    Returns:
        The chosen paths, in their order.

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
    """Add a path to ``seen``; whether it was new."""
    new = path not in seen
    seen.add(path)
    return new


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error
