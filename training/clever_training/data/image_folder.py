"""Folders of images. Names of files and classes are never taken for names of splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

# A folder is read as splits only when all of its sub-folders have one of these names.
_TRAINING = ("train", "training")
_SPLITS = (*_TRAINING, "val", "valid", "validation", "dev", "test", "testing", "eval")


def load_image_folder(folder: Path, labels: bool) -> Any:
    """Every image in a folder and its sub-folders.

    By default ``datasets`` takes names for splits: with the classes *train*, *car* and *bus*, or
    the files *test-1.png* and *photo.png*, it would load one and drop the others.

    Args:
        folder: The folder.
        labels: Add a column ``label`` with the name of each image's sub-folder.

    Returns:
        A map-style data set with the column ``image``.

    Raises:
        Exception: Whatever ``datasets`` raises when there are no images.
    """
    return datasets.load_dataset(
        "imagefolder",
        data_dir=str(folder),
        data_files={"train": "**"},
        split="train",
        drop_labels=not labels,
    )


def training_split(folder: Path) -> Path:
    """The sub-folder of the training photos in a folder that consists of splits.

    Args:
        folder: A folder of images.

    Returns:
        The sub-folder ``train`` when all sub-folders have names of splits and there are no other
        files; else the folder itself.
    """
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    names = {entry.name.lower(): entry for entry in entries if entry.is_dir()}
    if len(names) == len(entries) > 1 and set(names) <= set(_SPLITS):
        return next((names[name] for name in _TRAINING if name in names), folder)
    return folder
