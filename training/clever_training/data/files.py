"""A table of image files: what `datasets` would make of a folder, from our own listing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from clever_hub.images.finding import find_images


class FileTable:
    """Image files by row, with the folder that each lies in as its class.

    It has as much of the interface of ``datasets.Dataset`` as photo sources use. Names may hold
    brackets and need not be UTF-8, both of which ``datasets`` would not find.

    Args:
        paths: The files.
        labels: Add a column ``label``: the name of the folder of each file.

    Example:
        >>> table = FileTable([Path("a/1.png"), Path("b/2.png")], labels=True)
        >>> table.features["label"].names, table[1]["label"], table[1]["image"]["path"]
        (['a', 'b'], 1, 'b/2.png')
    """

    def __init__(self, paths: list[Path], labels: bool) -> None:
        self._paths = [str(path) for path in paths]
        names = sorted({path.parent.name for path in paths}) if labels else []
        place = {name: number for number, name in enumerate(names)}
        self._labels = [place[path.parent.name] for path in paths] if labels else []
        self.features: dict[str, Any] = {"image": datasets.Image(decode=False)}
        if labels:
            self.features["label"] = datasets.ClassLabel(names=names)

    @property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return list(self.features)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, key: int | str) -> Any:
        """A row as a mapping, or the column ``label`` as a list."""
        if isinstance(key, str):
            return self._labels
        row: dict[str, Any] = {"image": {"bytes": None, "path": self._paths[key]}}
        if self._labels:
            row["label"] = self._labels[key]
        return row

    def cast_column(self, *_: object) -> FileTable:
        """The table itself: its images are never decoded."""
        return self

    def select_columns(self, *_: object) -> FileTable:
        """The table itself: columns cost nothing."""
        return self


def read_folder(folder: Path, labels: bool) -> FileTable:
    """Every image in a folder and its sub-folders, links to folders included.

    Args:
        folder: The folder.
        labels: Take the folder that an image lies in as its class.

    Returns:
        The files, ordered by their paths.

    Raises:
        DataError: When there are none, or a folder cannot be read.
    """
    return FileTable(sorted(find_images([folder])), labels)
