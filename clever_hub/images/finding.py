"""Find image files in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from clever_hub.errors import ConfigError, DataError
from clever_hub.images.decoding import EXTENSIONS


def find_images(
    paths: Iterable[Path], unreadable: Callable[[OSError], None] | None = None
) -> Iterator[Path]:
    """Find image files among paths, as a stream; each is yielded once.

    Only the names in one folder, the folders and the files that were named are kept in memory, not
    the files found.

    Args:
        paths: Files and folders. Files are yielded whatever their extension. Folders are searched
            recursively for the extensions in ``decoding.EXTENSIONS``. Links to folders are
            followed, once for each folder. Hidden files in folders are left out: macOS writes
            "._a.jpg" files that are not images.
        unreadable: Called for a folder below those that were named which cannot be read, such as
            ``lost+found``; it is then left out. None makes it an error.

    Yields:
        The files; those in a folder are sorted by name.

    Raises:
        DataError: When a path does not exist, or a folder cannot be read or has no images.
    """
    if unreadable is None:
        unreadable = _refuse
    seen = _Seen()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if not path.is_dir():
            if seen.is_new(path):
                yield path
            continue
        if not seen.enter(path):
            continue
        before = seen.images
        yield from _walk(path, seen, unreadable)
        if seen.images == before and not seen.any_below(path):
            endings = ", ".join(sorted(EXTENSIONS))
            raise DataError(f"{path}: no images in this folder; looked for names with {endings}")


def check_not_input(output: Path, inputs: Iterable[str | Path], option: str = "--output") -> None:
    """Refuse to write over what is read.

    Args:
        output: The file to write.
        inputs: Files, and folders of images; names that are nowhere are passed over.
        option: By which the output was given.

    Raises:
        ConfigError: When the output is one of the inputs, or has the name of an image in one of the
            folders: it would be lost, or be found as a photo by the next run.
    """
    place, there = output.resolve(), output.is_file()
    for given in map(Path, inputs):
        try:
            found = given.resolve()
            inside = found.is_dir() and _is_image(place.name) and place.is_relative_to(found)
        except OSError:  # such as a name that is too long
            continue
        if there and (inside or found == place):
            raise ConfigError(
                f"{option}: {output} is one of the files that are read, and would be lost. Name "
                "another file"
            )
        if inside:
            raise ConfigError(
                f"{option}: {output} lies in {given}, where photos are searched: the next run "
                "would take it for one of them. Name a place outside"
            )


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


class _Seen:
    """What was found: the same file under two spellings of its folder counts once.

    Two links to a file are two files.

    Attributes:
        images: How many images the folders held, those included that were seen before.
    """

    def __init__(self) -> None:
        self.images = 0
        self._folders: dict[Path, int] = {}  # walked, and the images in each
        self._files: set[Path] = set()  # named by the user

    def is_new(self, path: Path) -> bool:
        """Whether a file that the user names was not found before."""
        file = path.parent.resolve() / path.name
        if file in self._files or (file.parent in self._folders and _is_image(file.name)):
            return False
        self._files.add(file)
        return True

    def enter(self, folder: Path) -> bool:
        """Whether a folder was not walked before."""
        folder = folder.resolve()
        self.images += self._folders.get(folder, 0)
        new = folder not in self._folders
        self._folders.setdefault(folder, 0)
        return new

    def any_below(self, folder: Path) -> bool:
        """Whether an image was found in a folder, or in one below it."""
        top = folder.resolve()
        return any(count and one.is_relative_to(top) for one, count in self._folders.items())

    def images_in(self, root: str, names: list[str]) -> Iterator[Path]:
        """The images in a folder that the user has not named before."""
        folder = Path(root).resolve()
        for name in sorted(names):
            if _is_image(name):
                self.images += 1
                self._folders[folder] += 1
                if not self._files or folder / name not in self._files:
                    yield Path(root, name)


def _walk(folder: Path, seen: _Seen, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    def left_out(error: OSError) -> None:
        _refuse(error) if Path(error.filename) == folder else unreadable(error)

    for root, folders, names in os.walk(folder, onerror=left_out, followlinks=True):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and seen.enter(Path(root, name))
        ]
        yield from seen.images_in(root, names)


def _is_image(name: str) -> bool:
    """Whether a file in a folder is taken for an image, by its name."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122  # a million Paths would cost seconds


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error
