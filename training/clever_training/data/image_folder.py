"""Which part of a folder of photos is there to train on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from clever_hub.images.decoding import EXTENSIONS

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("validation", "val", "valid", "dev", "test", "testing", "eval")
# A folder is read as splits only when all of its sub-folders have one of these names.
_SPLITS = (*TRAIN_NAMES, *VALIDATION_NAMES)
# The Hub's own conversion names the folder of a large data set's first gigabytes partial-train.
_PARTIAL = re.compile(f"(?:partial-)?({'|'.join(_SPLITS)})", re.IGNORECASE)


def training_split(folder: Path) -> Path:
    """The sub-folder of the training photos in a folder that consists of splits.

    Args:
        folder: A folder of images.

    Returns:
        The sub-folder ``train`` when all sub-folders have names of splits and there are no images
        beside them; else the folder itself.
    """
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    names = {entry.name.lower(): entry for entry in entries if entry.is_dir()}
    images = any(entry.suffix.lower() in EXTENSIONS for entry in entries if not entry.is_dir())
    if len(names) > 1 and not images and set(names) <= set(_SPLITS):
        return next((names[name] for name in TRAIN_NAMES if name in names), folder)
    return folder


def training_files(folder: Path, files: Iterable[Path]) -> list[str]:
    """The files of a folder's split ``train``, told by their names or by those of their folders.

    Args:
        folder: The folder.
        files: Files in it, at any depth.

    Returns:
        Those whose name begins with ``train``; else those in a folder ``train`` that lies beside
        one of another split; all of them when there are none. They are sorted.
    """
    every = sorted(files, key=str)
    train = [file for file in every if file.name.lower().startswith("train")]
    return [str(file) for file in train or _in_training_folders(folder, every) or every]


def _in_training_folders(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files in a folder ``train`` that lies beside a folder of another split."""
    splits: dict[Path, dict[bool, list[Path]]] = {}  # by the folder in which splits lie
    for file in files:
        for parent in file.relative_to(folder).parents:
            if found := _PARTIAL.fullmatch(parent.name):
                train = found[1].lower() in TRAIN_NAMES
                splits.setdefault(parent.parent, {}).setdefault(train, []).append(file)
    chosen = {file for kinds in splits.values() if len(kinds) == 2 for file in kinds[True]}
    return [file for file in files if file in chosen]


def has_other_splits(folder: Path) -> bool:
    """Whether a folder holds other photos than those to train on.

    Args:
        folder: A folder of parquet files or of images.
    """
    if tables := list(folder.rglob("*.parquet")):
        return len(training_files(folder, tables)) < len(tables)
    return training_split(folder) != folder
