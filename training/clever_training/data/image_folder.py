"""Folders of images, read whole: the names of files and classes mean no splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

# Sub-folders of these names, where there are no others, are the splits of a data set.
_TRAINING = ("train", "training")
_SPLITS = (*_TRAINING, "val", "valid", "validation", "dev", "test", "testing", "eval")


def load_image_folder(folder: Path, labels: bool) -> Any:
    """Every image in a folder and its sub-folders.

    Left to themselves, ``datasets`` read splits out of names: of a class *train* and the classes
    *car* and *bus*, or of *test-1.png* and *photo.png*, they would load one and drop the others.

    Args:
        folder: The folder.
        labels: Give a column ``label``, the name of the sub-folder that an image lies in.

    Returns:
        A map-style data set with the column ``image``.

    Raises:
        Exception: Whatever ``datasets`` raise where there are no images.
    """
    return datasets.load_dataset(
        "imagefolder",
        data_dir=str(folder),
        data_files={"train": "**"},
        split="train",
        drop_labels=not labels,
    )


def training_split(folder: Path) -> Path:
    """The folder of the training photos, where a folder has nothing but splits.

    Args:
        folder: A folder of images.

    Returns:
        Its ``train`` when every sub-folder is named as a split and no file lies beside them; else
        the folder itself.
    """
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    names = {entry.name.lower(): entry for entry in entries if entry.is_dir()}
    if len(names) == len(entries) > 1 and set(names) <= set(_SPLITS):
        return next((names[name] for name in _TRAINING if name in names), folder)
    return folder
