"""Labelled photos: a photo source with classes, reproducible subsets and a fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import DataError
from clever_hub.hub.datasets import load_from_hub
from clever_hub.images.finding import find_images
from clever_hub.images.opening import load_image
from clever_training.data.classes import read_classes
from clever_training.data.files import FileTable, read_in_threads, some
from clever_training.data.image_column import check_column, find_image_column
from clever_training.data.image_folder import training_files, training_split
from clever_training.data.photos import Photos, undecoded

LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
_COLUMNS = ("image", "label")


@dataclass(frozen=True, eq=False)
class LabelledPhotos:
    """Labelled photos, decoded when they are asked for.

    Attributes:
        photos: The whole data set.
        labels: int64 (N,), in [0, number of classes); the class of each photo of the subset.
        classes: Name of each class.
        fingerprint: SHA-256 of the content of the whole data set, in hexadecimal.
        indices: int64 (N,), row of each photo in the whole data set, ascending.
        other_column: The image column, where it is another than would be found if none was named.
        split_photos: Photos of the split, where that is a part of the data set; else None.

    Example:
        >>> photos = load_labelled("photos/train", "train")  # doctest: +SKIP
        >>> len(photos), photos[0].size  # doctest: +SKIP
        (50000, (64, 64))
    """

    photos: Photos
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    fingerprint: str
    indices: NDArray[np.int64]
    other_column: str | None = None
    split_photos: int | None = None

    @property
    def name(self) -> str:
        """The data set as the user gave it."""
        return self.photos.name

    @property
    def table(self) -> Any:
        """The whole data set; images undecoded."""
        return self.photos.table

    @property
    def image_column(self) -> str:
        """Name of the column with the images."""
        return self.photos.image_column

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Image.Image:
        """Decode one photo of the subset as RGB.

        Raises:
            DataError: When it cannot be read; names its file, or its row.
        """
        row = int(self.indices[position])
        with self.photos.naming(row):
            return load_image(self.photos.source(row))

    def subset(self, positions: NDArray[np.int64]) -> LabelledPhotos:
        """The photos at these positions, in ascending order."""
        chosen = np.sort(positions)
        return replace(self, labels=self.labels[chosen], indices=self.indices[chosen])

    def stratified(self, count: int | None, seed: int = 0) -> LabelledPhotos:
        """A random subset with the same share of every class.

        Args:
            count: How many photos; all of them when None or not fewer than there are.
            seed: Seed of the choice.

        Returns:
            The subset; always the same one for the same arguments.
        """
        if count is None or count >= len(self):
            return self
        return self.subset(stratified_positions(self.labels, count, seed))

    def subset_id(self) -> str:
        """A hash of data and subset; cached feature matrices depend on it."""
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").tobytes())
        digest.update((self.other_column or "").encode())
        return digest.hexdigest()

    def labels_id(self) -> str:
        """A hash of the photos' classes, by number and name."""
        digest = hashlib.sha256(repr(self.classes).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """What evaluation.json says about the data."""
        return {
            "name": self.name,
            "photos": len(self),
            "photos_in_all": self.split_photos or len(self.photos),
            "classes": len(self.classes),
            "fingerprint": self.fingerprint,
            "subset": self.subset_id(),
        }


def stratified_positions(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Choose photos so that every class keeps its share.

    Each class gets its share rounded down; the remaining places go to the largest remainders.

    Args:
        labels: int64 (N,).
        count: How many to choose, at most N.
        seed: Seed of the choice.

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
    # Shuffled before sorting, so that ties between remainders are broken at random.
    order = random.permutation(len(names))
    largest = order[np.argsort(-(exact - shares)[order], kind="stable")]
    shares[largest[: count - shares.sum()]] += 1
    chosen = [
        random.choice(np.flatnonzero(labels == name), share, replace=False)
        for name, share in zip(names, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def positions_of_every_class(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``stratified_positions``, and one photo of each class whose share rounds to 0.

    Args:
        labels: int64 (N,).
        count: How many to choose, at most N.
        seed: Seed of the choice.

    Returns:
        int64, ascending positions; ``count`` of them, and one more for each class that was missing.

    Example:
        >>> positions_of_every_class(np.array([0] * 98 + [1, 2]), 3, seed=0).tolist()[-2:]
        [98, 99]
    """
    chosen = stratified_positions(labels, count, seed)
    missing = np.setdiff1d(labels, labels[chosen])
    random = np.random.default_rng(seed)
    one = [random.choice(np.flatnonzero(labels == label)) for label in missing]
    return np.sort(np.concatenate([chosen, np.asarray(one, dtype=np.int64)]))


def load_labelled(name: str, split: str) -> LabelledPhotos:
    """Load one split with its labels.

    Args:
        name: A parquet file, a folder of parquet files, an image folder (one sub-folder per
            class, which may have sub-folders of its own) or a Hub id, ``id:split`` to name the
            split. ``NAME?image=COLUMN&label=COLUMN`` names the columns when they cannot be found
            by type and name.
        split: The split of a Hub data set whose name has none.

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
    column = find_image_column(table.features, image, name, f"{name}?image=COLUMN")
    other = None if image is None or column == _unnamed_column(table) else column
    photos = undecoded(table, column, name)
    if label is None:
        label = _label_column(name, table)
    check_column(table.features, label, name)
    labels, classes = read_classes(name, table, label)
    return LabelledPhotos(photos, labels, classes, fingerprint, np.arange(len(table)), other)


def _unnamed_column(table: Any) -> str | None:
    """The image column that is found if none is named."""
    try:
        return find_image_column(table.features, None, "", "")
    except DataError:
        return None


class Named(NamedTuple):
    """A data set's name and the columns that it asks for.

    Attributes:
        name: A path or a Hub id, with its split.
        image: Column of the images; None to find it.
        label: Column of the labels; None to find it.
    """

    name: str
    image: str | None = None
    label: str | None = None


def take_apart(name: str) -> Named:
    """Split a data set's name from the columns at its end.

    Args:
        name: Such as ``user/birds:train?image=photo&label=species``; both columns are optional.

    Returns:
        The name without them, and the columns.

    Raises:
        DataError: When anything but ``image`` and ``label`` is set.

    Example:
        >>> take_apart("user/birds:train?label=species")
        Named(name='user/birds:train', image=None, label='species')
    """
    if Path(name).expanduser().exists():
        return Named(name)
    rest, mark, query = name.partition("?")
    columns = dict(parse_qsl(query))
    if mark and (not columns or columns.keys() - set(_COLUMNS)):
        raise DataError(f"{name}: expected ?image=COLUMN&label=COLUMN after the name, got ?{query}")
    return Named(rest, columns.get("image"), columns.get("label"))


def _load_path(path: Path) -> tuple[Any, str]:
    tables = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    tables = [file for file in tables if file.suffix == ".parquet"]
    if tables:
        _refuse_split_tables(path, tables)
        table = datasets.load_dataset("parquet", data_files=[str(p) for p in tables], split="train")
        return table, _hash_files(tables, path)
    if path.is_file():
        raise DataError(f"{path}: expected a parquet file or a folder")
    try:
        images = sorted(find_images([path]))
    except DataError as error:
        raise DataError(f"{path}: expected parquet files or images. {error}") from error
    _refuse_splits(path, images)
    return FileTable(images, root=path), _hash_files(images, path)


def _refuse_splits(folder: Path, images: Sequence[Path]) -> None:
    """Refuse a folder of splits: their names would be taken for classes.

    A class may be called train, too; then its images lie in the folder of that name itself.
    """
    split = training_split(folder)
    if split != folder and all(len(image.relative_to(folder).parts) > 2 for image in images):
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        raise DataError(
            f"{folder}: expected one split, got folders of several: {some(names)}. "
            f"Name one of them, such as {split}"
        )


def _refuse_split_tables(folder: Path, tables: Sequence[Path]) -> None:
    """Refuse a folder with tables of several splits: one may hold what another is measured on."""
    train = training_files(folder, tables)
    if len(train) == len(tables):
        return
    first = Path(train[0])
    if len(train) > 1:
        named = first.name.lower().startswith("train")
        first = first.with_name(f"{first.name[:5]}*.parquet") if named else first.parent
    names = [table.relative_to(folder).as_posix() for table in tables]
    raise DataError(
        f"{folder}: expected one split, got files of several: {some(names)}. "
        f"Name one of them, such as {first}"
    )


def _load_hub(name: str, split: str) -> tuple[Any, str]:
    if "*" in name:
        pattern = Path(name).expanduser()
        files = sorted(pattern.parent.glob(pattern.name))
        table = datasets.load_dataset("parquet", data_files=[str(p) for p in files], split="train")
        return table, _hash_files(files, pattern.parent)
    if name.startswith((".", "/", "~")) or name.endswith(".parquet"):
        raise DataError(f"{name}: no such file or folder")
    repository, _, named = name.partition(":")
    table = load_from_hub(repository, split=named or split)
    return table, hashlib.sha256(table._fingerprint.encode()).hexdigest()


def _hash_files(files: Sequence[Path], root: Path) -> str:
    """SHA-256 over names and content; the name of a single file is left out, so it may move."""
    digest = hashlib.sha256()
    for file, content in zip(files, read_in_threads(_hash_file, files), strict=True):
        if len(files) > 1:
            digest.update(os.fsencode(file.relative_to(root).as_posix()) + b"\0")
        digest.update(content)
    return digest.hexdigest()


def _hash_file(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _label_column(name: str, table: Any) -> str:
    kinds = table.features
    found = [key for key, kind in kinds.items() if isinstance(kind, datasets.ClassLabel)]
    found = [key for key in LABEL_NAMES if key in kinds] or found
    if not found:
        raise DataError(
            f"{name}: expected a label column, such as {', '.join(LABEL_NAMES)}; got columns "
            f"{table.column_names}. Name the label column: {name}?label=COLUMN"
        )
    return str(found[0])
