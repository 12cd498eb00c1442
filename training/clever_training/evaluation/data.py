"""The two splits that an evaluation needs: photos to fit on and photos to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clever_hub.errors import DataError
from clever_training.data.files import some
from clever_training.data.image_folder import (
    TRAIN_NAMES,
    VALIDATION_NAMES,
    has_other_splits,
)
from clever_training.data.labelled import LabelledPhotos, load_labelled
from clever_training.evaluation.presets import expand
from clever_training.evaluation.set_aside import check_no_splits, set_aside


class Splits(NamedTuple):
    """What a model is fitted on and what it is measured on."""

    train: LabelledPhotos
    validation: LabelledPhotos


def load_splits(specification: str) -> Splits:
    """Load the training and the validation photos.

    Args:
        specification: ``TRAIN,VALIDATION``, each a parquet file, a folder of parquet files, an
            image folder (one sub-folder per class) or a Hub id, ``id:split`` to name the split; or
            one folder or Hub id that has both splits; or one of ``presets.PRESETS``. Of an image
            folder without splits a fifth of each class is set aside for validation.
            ``NAME?image=COLUMN&label=COLUMN`` names the columns when they cannot be found by type
            and name.

    Returns:
        Both splits.

    Raises:
        DataError: When a split is missing, has no images or no labels, or validation photos have
            classes that the training photos have not. Fewer classes are good.

    Example:
        >>> splits = load_splits("data/train.parquet,data/validation.parquet")  # doctest: +SKIP
        >>> len(splits.train.classes)  # doctest: +SKIP
        100
    """
    names = [name.strip() for name in expand(specification).split(",")]
    if len(names) == 1:
        name, mark, columns = names[0].partition("?")
        folder = Path(name).expanduser()
        if _has_classes_alone(folder):
            check_no_splits(folder)
            return Splits(*set_aside(load_labelled(names[0], "train"), folder))
        found = (_with_split(name, TRAIN_NAMES), _with_split(name, VALIDATION_NAMES))
        names = [split + mark + columns for split in found]
    if len(names) != 2 or not all(names):
        raise DataError(f"--data: expected TRAIN,VALIDATION or one folder, got {specification!r}")
    train, validation = load_labelled(names[0], "train"), load_labelled(names[1], "validation")
    return Splits(train, _with_classes_of(train, validation))


def said_of(splits: Splits) -> str | None:
    """What is to be said before photos that were divided here are used; None for others.

    Args:
        splits: What ``load_splits`` returned.
    """
    train, validation = splits
    if train.table is not validation.table:
        return None
    return (
        f"{validation.name} is set aside for validation, the same at each run: {len(validation):,} "
        f"of {len(train) + len(validation):,} photos. Classes: {some(train.classes)}"
    )


def check_classes(splits: Splits) -> None:
    """Refuse photos of a single class, where every accuracy is 100 %.

    Args:
        splits: Photos that something is to be classified by.

    Raises:
        DataError: When there is but one class.
    """
    found = np.unique(splits.train.labels)
    if len(found) < 2:
        only = splits.train.classes[found[0]]
        raise DataError(
            f"{splits.train.name}: expected photos of 2 classes or more, got the class {only!r} "
            "alone, which every classifier gets right. Put each class into a folder of its own, or "
            "name the folder that has these, or name the label column: NAME?label=COLUMN"
        )


def _with_classes_of(train: LabelledPhotos, validation: LabelledPhotos) -> LabelledPhotos:
    """The validation photos with the numbers that the training photos' classes have.

    Raises:
        DataError: When validation photos have a class that the training photos have not.
    """
    if train.classes == validation.classes:
        return validation
    used = {validation.classes[label] for label in np.unique(validation.labels)}
    if new := sorted(used - set(train.classes)):
        lacking = sorted(set(train.classes) - used)
        raise DataError(
            f"{validation.name}: expected the same classes as {train.name} has, or some of them; "
            f"this alone has {some(new)}, that alone {some(lacking)}. Name classes alike in both, "
            "or remove what one side alone has"
        )
    place = {name: number for number, name in enumerate(train.classes)}
    moved = np.asarray([place.get(name, -1) for name in validation.classes], dtype=np.int64)
    return replace(validation, labels=moved[validation.labels], classes=train.classes)


def has_splits(name: str) -> bool:
    """Whether photos are one folder with several splits, which must not be mixed.

    Args:
        name: As for ``load_splits``.
    """
    folder = Path(name.partition("?")[0]).expanduser()
    both = (TRAIN_NAMES, VALIDATION_NAMES)
    return folder.is_dir() and (
        all(_split_in(folder, splits) for splits in both) or has_other_splits(folder)
    )


def _has_classes_alone(folder: Path) -> bool:
    """Whether a folder has neither of the splits, nor tables, which need names to be told apart."""
    return folder.is_dir() and not (
        _split_in(folder, TRAIN_NAMES)
        or _split_in(folder, VALIDATION_NAMES)
        or any(folder.rglob("*.parquet"))
    )


def _with_split(name: str, splits: Sequence[str]) -> str:
    """The file or sub-folder of a folder that holds one split; for a Hub id, ``id:split``."""
    folder = Path(name).expanduser()
    if not folder.exists():
        return f"{name}:{splits[0]}"
    if folder.is_file():
        if folder.suffix == ".parquet":
            raise DataError(
                f"{name}: expected two files, TRAIN,VALIDATION, or a folder that has both, got one"
            )
        return name  # refused where it is opened
    if found := _split_in(folder, splits):
        return str(Path(name) / found)
    raise DataError(
        f"{name}: expected {splits[0]}*.parquet or a folder {' or '.join(splits)}, found "
        f"{some(sorted(entry.name for entry in folder.iterdir()))}. "
        f"Or name both: TRAIN,VALIDATION. Images lie in {Path(name) / 'train' / 'CLASS' / '1.jpg'} "
        f"and {Path(name) / 'val' / 'CLASS' / '2.jpg'}; or in {Path(name) / 'CLASS' / '1.jpg'}, of "
        "which a fifth is set aside for validation"
    )


def _split_in(folder: Path, splits: Sequence[str]) -> str | None:
    """The name in a folder of what holds one split."""
    for split in splits:
        if (folder / split).is_dir():
            return split
        if files := sorted(folder.glob(f"{split}*.parquet")):
            # Several shards, such as train-00000-of-00002.parquet, are named by a pattern.
            return files[0].name if len(files) == 1 else f"{split}*.parquet"
    return None
