"""Which part of a folder of images is there to train on."""

from __future__ import annotations

from pathlib import Path

# A folder is read as splits only when all of its sub-folders have one of these names.
_TRAINING = ("train", "training")
_SPLITS = (*_TRAINING, "val", "valid", "validation", "dev", "test", "testing", "eval")


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
