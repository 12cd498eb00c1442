"""A table of image files: what `datasets` would make of a folder, from our own listing."""

from __future__ import annotations

import os
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np

from clever_hub.errors import DataError
from clever_hub.images.finding import find_images
from clever_hub.threads import available_cores

_TOGETHER = 16  # files in one task of a thread; a task for each file costs as much as its hash
Item = TypeVar("Item")
Result = TypeVar("Result")


class FileTable:
    """Image files by row, with the first folder on the way to each as its class.

    It has as much of the interface of ``datasets.Dataset`` as photo sources use. Names may hold
    brackets and need not be UTF-8, both of which ``datasets`` would not find.

    Args:
        paths: The files.
        root: Add a column ``label``: the name of the folder in ``root`` below which a file lies,
            at any depth. None adds none.

    Raises:
        DataError: When files lie in ``root`` itself, so that they have no class.

    Example:
        >>> table = FileTable([Path("p/a/1.png"), Path("p/b/left/2.png")], root=Path("p"))
        >>> table.features["label"].names, table[1]["label"], table[1]["image"]["path"]
        (['a', 'b'], 1, 'p/b/left/2.png')
    """

    def __init__(self, paths: list[Path], root: Path | None = None) -> None:
        # One buffer, not a string per file: a worker process would copy all of them, since even to
        # read an object writes its reference count.
        joined = bytearray()
        self._ends = np.zeros(len(paths) + 1, dtype=np.int64)
        for number, path in enumerate(paths, start=1):
            joined += os.fsencode(path)
            self._ends[number] = len(joined)
        self._names = bytes(joined)
        self._labels = np.empty(0, dtype=np.int64)
        self.features: dict[str, Any] = {"image": datasets.Image(decode=False)}
        if root is not None:
            classes = _classes(paths, root)
            names = sorted(set(classes))
            place = {name: number for number, name in enumerate(names)}
            self._labels = np.array([place[name] for name in classes], dtype=np.int64)
            self.features["label"] = datasets.ClassLabel(names=names)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self.features)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, key: int | str) -> Any:
        """A row as a mapping, or the column ``label`` as a list.

        Raises:
            IndexError: When there is no such row.
        """
        if isinstance(key, str):
            return self._labels.tolist()
        number = range(len(self))[key]
        name = self._names[self._ends[number] : self._ends[number + 1]]
        row: dict[str, Any] = {"image": {"bytes": None, "path": os.fsdecode(name)}}
        if len(self._labels):
            row["label"] = int(self._labels[number])
        return row

    def cast_column(self, *_: object) -> FileTable:
        """The table itself: its images are never decoded."""
        return self

    def select_columns(self, *_: object) -> FileTable:
        """The table itself: columns cost nothing."""
        return self


def read_folder(folder: Path) -> FileTable:
    """Every image in a folder and its sub-folders, links to folders included.

    Args:
        folder: The folder.

    Returns:
        The files, ordered by their paths.

    Raises:
        DataError: When there are none, or a folder cannot be read.
    """
    return FileTable(sorted(find_images([folder])))


def read_in_threads(read: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function that reads or hashes a file; these leave the interpreter to other threads.

    Args:
        read: Called with one item, in any thread.
        items: Such as paths, or numbers of photos.

    Yields:
        The results, in the order of the items. A few are made ahead, not all.

    Raises:
        Exception: What ``read`` raised for the first item that failed.

    Example:
        >>> list(read_in_threads(len, ["a", "bcd", "ef"]))
        [1, 3, 2]
    """
    threads = min(8, available_cores())
    together = max(1, min(_TOGETHER, len(items) // (4 * threads)))

    def read_some(start: int) -> list[Result]:
        return [read(item) for item in items[start : start + together]]

    starts = iter(range(0, len(items), together))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="clever-read")
    try:
        waiting = deque(pool.submit(read_some, start) for start in islice(starts, 2 * threads))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(pool.submit(read_some, start) for start in islice(starts, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _classes(paths: list[Path], root: Path) -> list[str]:
    """The class of each file; folders within that of a class do not matter."""
    parts = [path.relative_to(root).parts for path in paths]
    loose = [first for first, *rest in parts if not rest]
    classes = [normal_name(first) for first, *rest in parts if rest]
    if not classes:
        raise DataError(
            f"{root}: expected one sub-folder per class, got all images in one folder. "
            "Move the images of each class into a sub-folder with its name"
        )
    if loose:
        found = sorted(set(classes))
        raise DataError(
            f"{root}: expected all images in the folders of their classes, got {some(loose)} "
            f"beside the folders {some(found)}. Move them into the folder of their class, or away"
        )
    return classes


def normal_name(name: str) -> str:
    """A class's name in Unicode's form NFC: macOS writes folders' names in another one."""
    return unicodedata.normalize("NFC", name)


def some(names: Sequence[str], limit: int = 5) -> str:
    """A few names for a message, and how many there are.

    Example:
        >>> some(["a", "b", "c"], limit=2)
        'a, b, … (3 in all)'
    """
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"
