"""Labelled photos for evaluation: anything that Hugging Face ``datasets`` loads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import DataError, ImageError, suggest
from clever_hub.images.opening import EXTENSIONS, load_image
from clever_training.data.image_folder import load_image_folder, may_hold_images
from clever_training.evaluation.presets import expand, take_apart

VALIDATION_NAMES = ("validation", "val", "valid", "test")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


@dataclass(frozen=True, eq=False)
class Photos:
    """Labelled photos, decoded when they are asked for.

    Attributes:
        name: The data set as the user gave it.
        table: The Arrow-backed data set; images undecoded.
        image_column: Name of the column with the images.
        labels: int64 (N,), in [0, number of classes); the class of each photo of the subset.
        classes: Name of each class.
        fingerprint: SHA-256 of the content of the whole data set, in hexadecimal.
        indices: int64 (N,), row of each photo in the whole data set, ascending.

    Example:
        >>> photos = load_photos("photos/train", "train")  # doctest: +SKIP
        >>> len(photos), photos[0].size  # doctest: +SKIP
        (50000, (64, 64))
    """

    name: str
    table: Any
    image_column: str
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    fingerprint: str
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Image.Image:
        """Decode one photo of the subset as RGB.

        Raises:
            DataError: When it cannot be read; names the row.
        """
        row = int(self.indices[position])
        value = self.table[row][self.image_column]
        try:
            return load_image(value["bytes"] or Path(value["path"]))
        except (ImageError, TypeError) as error:
            reason = error.reason if isinstance(error, ImageError) else "no image in this row"
            raise DataError(f"{self.name}, row {row}: {reason}") from error

    def subset(self, positions: NDArray[np.int64]) -> Photos:
        """The photos at these positions, in ascending order."""
        chosen = np.sort(positions)
        return Photos(
            self.name,
            self.table,
            self.image_column,
            self.labels[chosen],
            self.classes,
            self.fingerprint,
            self.indices[chosen],
        )

    def stratified(self, count: int | None, seed: int = 0) -> Photos:
        """A random subset with the same share of every class.

        Args:
            count: How many photos; all of them when None or not fewer than there are.
            seed: Of the choice.

        Returns:
            The subset; always the same one for the same arguments.
        """
        if count is None or count >= len(self):
            return self
        return self.subset(stratified_positions(self.labels, count, seed))

    def subset_id(self) -> str:
        """Identifies data and subset: what a cached feature matrix depends on."""
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What evaluation.json says about the data."""
        return {
            "name": self.name,
            "photos": len(self),
            "photos_in_all": len(self.table),
            "classes": len(self.classes),
            "fingerprint": self.fingerprint,
            "subset": self.subset_id(),
        }


class Splits(NamedTuple):
    """What a model is fitted on and what it is measured on."""

    train: Photos
    validation: Photos


def stratified_positions(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Choose photos so that every class keeps its share.

    Each class gets its share rounded down; what is left goes to the largest remainders.

    Args:
        labels: int64 (N,).
        count: How many to choose, at most N.
        seed: Of the choice.

    Returns:
        int64 (count,), ascending positions.

    Example:
        >>> stratified_positions(np.array([0, 0, 0, 0, 1, 1]), 3, seed=0).shape
        (3,)
    """
    random = np.random.default_rng(seed)
    names, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / len(labels)
    shares = np.floor(exact).astype(np.int64)
    # Shuffled before sorting, so that equal remainders are broken at random.
    order = random.permutation(len(names))
    largest = order[np.argsort(-(exact - shares)[order], kind="stable")]
    shares[largest[: count - shares.sum()]] += 1
    chosen = [
        random.choice(np.flatnonzero(labels == name), share, replace=False)
        for name, share in zip(names, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def load_splits(specification: str) -> Splits:
    """Load the training and the validation photos.

    Args:
        specification: ``TRAIN,VALIDATION``, each a parquet file, a folder of parquet files, an
            image folder (one sub-folder per class) or a Hub id, ``id:split`` to name the split; or
            one folder or Hub id that has both splits; or one of ``presets.PRESETS``. Where the
            columns are not found by themselves, ``NAME?image=COLUMN&label=COLUMN``.

    Returns:
        Both splits.

    Raises:
        DataError: When one is missing, has no images or no labels, or their classes differ.

    Example:
        >>> splits = load_splits("data/train.parquet,data/validation.parquet")  # doctest: +SKIP
        >>> len(splits.train.classes)  # doctest: +SKIP
        100
    """
    names = [name.strip() for name in expand(specification).split(",")]
    if len(names) == 1:
        name, mark, columns = names[0].partition("?")
        found = (_with_split(name, ("train",)), _with_split(name, VALIDATION_NAMES))
        names = [split + mark + columns for split in found]
    if len(names) != 2 or not all(names):
        raise DataError(f"--data: expected TRAIN,VALIDATION or one folder, got {specification!r}")
    splits = Splits(load_photos(names[0], "train"), load_photos(names[1], "validation"))
    if splits.train.classes != splits.validation.classes:
        raise DataError(
            f"{names[0]} and {names[1]}: expected the same classes in the same order, got "
            f"{_some(splits.train.classes)} and {_some(splits.validation.classes)}"
        )
    return splits


def load_photos(name: str, split: str) -> Photos:
    """Load one split.

    Args:
        name: As in ``load_splits``.
        split: Which split of a Hub data set, when the name does not say.

    Returns:
        All of its photos.

    Raises:
        DataError: When it is missing, or has no images or no labels.
    """
    name, image, label = take_apart(name)
    path = Path(name).expanduser()
    try:
        table, fingerprint = _load_path(path) if path.exists() else _load_hub(name, split)
    except DataError:
        raise
    except Exception as error:  # datasets raises whatever its readers raise
        raise DataError(f"{name}: cannot be loaded as a data set: {error}") from error
    if len(table) == 0:
        raise DataError(f"{name}: expected photos, got an empty data set")
    image_column = _named(name, table, image) or _image_column(name, table)
    if not may_hold_images(table.features[image_column]):
        kind = table.features[image_column]
        raise DataError(f"{name}: expected images in the column {image_column!r}, got {kind}")
    label_column = _named(name, table, label) or _label_column(name, table)
    labels, classes = _labels(name, table, label_column)
    table = table.cast_column(image_column, datasets.Image(decode=False))
    return Photos(name, table, image_column, labels, classes, fingerprint, np.arange(len(table)))


def _with_split(name: str, splits: Sequence[str]) -> str:
    """The file or sub-folder of a folder that holds one split; for a Hub id, ``id:split``."""
    folder = Path(name).expanduser()
    if not folder.exists():
        return f"{name}:{splits[0]}"
    for split in splits:
        if (folder / split).is_dir():
            return str(Path(name) / split)
        if files := sorted(folder.glob(f"{split}*.parquet")):
            # Shards, train-00000-of-00002.parquet …, are found again through the pattern's folder.
            return str(Path(name) / (files[0].name if len(files) == 1 else f"{split}*.parquet"))
    raise DataError(
        f"{name}: expected {splits[0]}*.parquet or a folder {' or '.join(splits)}, found "
        f"{_some(sorted(entry.name for entry in folder.iterdir()))}. "
        "Or name both: --data TRAIN,VALIDATION"
    )


def _load_path(path: Path) -> tuple[Any, str]:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    tables = [file for file in files if file.suffix == ".parquet"]
    images = [file for file in files if file.suffix.lower() in EXTENSIONS]
    if tables:
        table = datasets.load_dataset("parquet", data_files=[str(p) for p in tables], split="train")
        return table, _hash_files(tables, path)
    if not images:
        raise DataError(f"{path}: expected parquet files or images, found {len(files)} other files")
    if all(image.parent == path for image in images):
        raise DataError(f"{path}: expected one sub-folder per class, all images lie in one folder")
    return load_image_folder(path, labels=True), _hash_files(images, path)


def _load_hub(name: str, split: str) -> tuple[Any, str]:
    if "*" in name:
        pattern = Path(name).expanduser()
        files = sorted(pattern.parent.glob(pattern.name))
        table = datasets.load_dataset("parquet", data_files=[str(p) for p in files], split="train")
        return table, _hash_files(files, pattern.parent)
    if name.startswith((".", "/", "~")) or name.endswith(".parquet"):
        raise DataError(f"{name}: no such file or folder")
    repository, _, named = name.partition(":")
    table = datasets.load_dataset(repository, split=named or split)
    return table, hashlib.sha256(table._fingerprint.encode()).hexdigest()


def _hash_files(files: Sequence[Path], root: Path) -> str:
    """SHA-256 over names and content. A single file's own name does not count: it may move."""
    digest = hashlib.sha256()
    for file in files:
        if len(files) > 1:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _named(name: str, table: Any, column: str | None) -> str | None:
    """The column that the user named, when there was one and it is there."""
    if column is not None and column not in table.column_names:
        raise DataError(f"{name}: no column {column!r}. {suggest(column, table.column_names)}")
    return column


def _image_column(name: str, table: Any) -> str:
    found = [key for key, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if not found:
        # Parquet written without the Hugging Face metadata: a struct of bytes and path.
        found = [key for key in ("image", "img") if key in table.column_names]
    if not found:
        raise DataError(
            f"{name}: expected a column of images, got columns {table.column_names}. "
            f"Name it: {name}?image=COLUMN"
        )
    return str(found[0])


def _label_column(name: str, table: Any) -> str:
    kinds = table.features
    found = [key for key, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    found = [key for key in LABEL_NAMES if key in kinds] or found
    if not found:
        raise DataError(
            f"{name}: expected a column {LABEL_NAMES}, got {table.column_names}. "
            f"Name it: {name}?label=COLUMN"
        )
    return str(found[0])


def _labels(name: str, table: Any, column: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    values = table[column][:]
    if any(value is None or value == -1 for value in values):
        raise DataError(f"{name}: expected a label in every row, column {column!r} has gaps")
    kind = table.features[column]
    if isinstance(kind, datasets.ClassLabel):
        return np.asarray(values, dtype=np.int64), tuple(kind.names)
    known = sorted(set(values))
    place = {value: index for index, value in enumerate(known)}
    labels = np.asarray([place[value] for value in values], dtype=np.int64)
    return labels, tuple(str(value) for value in known)


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "nothing"
