"""Validation photos out of a folder of classes that has none: a fifth of each class."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from clever_hub.errors import DataError
from clever_training.data.files import normal_name, some
from clever_training.data.image_folder import TRAIN_NAMES, VALIDATION_NAMES
from clever_training.data.labelled import LabelledPhotos

_ONE_IN = 5
_SPLIT_WORD = re.compile(
    rf"(?<![a-z])({'|'.join((*TRAIN_NAMES, *VALIDATION_NAMES))})(?![a-z])", re.IGNORECASE
)


def set_aside(photos: LabelledPhotos, folder: Path) -> tuple[LabelledPhotos, LabelledPhotos]:
    """Divide a folder of classes into training and validation photos.

    Those of a class whose names have the smallest hashes are for validation, so the division is the
    same on every machine, and hardly changes when photos are added.

    Args:
        photos: All photos of the folder.
        folder: The folder, to which the names are relative.

    Returns:
        Four fifths and a fifth of each class; at least one photo of a class is for validation, and
        of a class of a single photo none.

    Raises:
        DataError: When every class has but one photo.
    """
    hashes = [_hash(photos.table[row]["image"]["path"], folder) for row in range(len(photos))]
    order = np.asarray(sorted(range(len(photos)), key=hashes.__getitem__), dtype=np.int64)
    chosen: list[int] = []
    for label in np.unique(photos.labels):
        own = order[photos.labels[order] == label]
        count = max(1, round(len(own) / _ONE_IN)) if len(own) > 1 else 0
        chosen += own[:count].tolist()
    if not chosen:
        raise DataError(
            f"{folder}: expected 2 photos or more of a class, of which one can be set aside for "
            "validation, got one of each class. Bring more photos"
        )
    aside = np.asarray(chosen, dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(photos)), aside)
    parts = ((rest, "four fifths"), (aside, "a fifth"))
    train, validation = (
        replace(
            part,
            photos=replace(part.photos, name=f"{folder} ({share} of each class)"),
            split_photos=len(part),
        )
        for part, share in ((photos.subset(positions), share) for positions, share in parts)
    )
    return train, validation


def check_no_splits(folder: Path) -> None:
    """Refuse folders that are called like splits and hold folders: they would be taken for classes.

    Args:
        folder: The folder.

    Raises:
        DataError: When there are such, such as ``seg_train``.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    like = [name for name in names if _SPLIT_WORD.search(name.replace("_", " "))]
    if found := [name for name in like if any(sub.is_dir() for sub in (folder / name).iterdir())]:
        raise DataError(
            f"{folder}: expected folders of classes, or train and val, got {some(found)}, which "
            "are called like splits. Name both: TRAIN,VALIDATION"
        )


def _hash(path: str, folder: Path) -> bytes:
    name = normal_name(Path(path).relative_to(folder).as_posix())
    return hashlib.sha256(os.fsencode(name)).digest()
