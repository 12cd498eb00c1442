"""Photos to train on: anything Hugging Face ``datasets`` loads, read as bytes, decoded late."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clever_hub.errors import CleverError, DataError, ImageError
from clever_training.data.image_folder import (
    load_image_folder,
    may_hold_images,
    training_split,
)
from clever_training.recipe.schema import Recipe
from clever_training.views.decode import EncodedPhoto, Image
from clever_training.views.sample import ViewSizes, make_views, sizes_at

Key = tuple[int, int, ViewSizes]  # epoch, sample index, sizes of its views


class Photos:
    """A data set with an image column, by index.

    Args:
        table: A map-style data set.
        column: Its image column; found by type when None.
        name: Names it in errors.

    Raises:
        DataError: When it is empty or has no image column.
    """

    def __init__(self, table: datasets.Dataset, column: str | None, name: str) -> None:
        column = find_column(table.features, column, name)
        if len(table) == 0:
            raise DataError(f"{name}: holds no images")
        self.name, self.column = name, column
        # Bytes stay bytes until a worker needs them; one policy decodes them all.
        self.table = table.cast_column(column, datasets.Image(decode=False)).select_columns(column)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Image:
        """One photo as uint8 (height, width, 3), RGB.

        Raises:
            DataError: Names the row that cannot be read.
        """
        with self.naming(index):
            return self.open(index).decode()

    def open(self, index: int) -> EncodedPhoto:
        """One photo that is not decoded yet.

        Raises:
            DataError: Names the row that cannot be read.
        """
        with self.naming(index):
            entry = self.table[index][self.column] or {}
            source = entry.get("bytes") or entry.get("path")
            if not source:
                raise ImageError("empty", "it holds neither the bytes of a file nor a path")
            return EncodedPhoto(source)

    @contextmanager
    def naming(self, index: int) -> Iterator[None]:
        """Turn what is wrong with a photo into a ``DataError`` that names its row."""
        try:
            yield
        except ImageError as error:
            raise DataError(
                f"{self.name}: row {index} cannot be read as an image ({error}). "
                "Remove or mend it; training does not skip photos silently"
            ) from error


def find_column(features: Any, column: str | None, name: str) -> str:
    """The image column of a table.

    Args:
        features: Its columns and their types.
        column: Its name; found by type when None.
        name: Names the table in errors.

    Returns:
        The name.

    Raises:
        DataError: When there is none, or more than one.
    """
    images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    if column is None and len(images) == 1:
        return str(images[0])
    if column is None or column not in features:
        raise DataError(
            f"{name}: expected {'one image column' if column is None else repr(column)}, "
            f"got the columns {sorted(features)}. Name the image column with --image-column"
        )
    if not may_hold_images(features[column]):
        raise DataError(
            f"{name}: expected images in the column {column!r}, got {features[column]}. "
            "Name the image column with --image-column"
        )
    return column


def load_photos(source: str, column: str | None = None) -> Photos:
    """Open training photos.

    Args:
        source: A parquet file, a folder of parquet files, a folder of images, with all its
            sub-folders (where they are ``train`` and other splits, ``train`` alone), or the id of
            a data set on the Hub, split ``train``. Labels are ignored.
        column: The image column of a table.

    Returns:
        The photos.

    Raises:
        DataError: When nothing is there, or it holds no images.

    Example:
        >>> load_photos("photos/")  # doctest: +SKIP
    """
    path = Path(source)
    # Progress bars of `datasets` while it copies a table into its cache would tear ours apart.
    datasets.disable_progress_bars()
    try:
        if path.is_dir():
            tables = sorted(str(file) for file in path.rglob("*.parquet"))
            named_train = [file for file in tables if Path(file).name.startswith("train")]
            if tables:
                table = datasets.load_dataset("parquet", data_files=named_train or tables)
            else:
                table = {"train": load_image_folder(training_split(path), labels=False)}
        elif path.suffix == ".parquet":
            if not path.is_file():
                raise DataError(f"{source}: no such file")
            table = datasets.load_dataset("parquet", data_files=source)
        elif path.exists() or source.count("/") > 1 or source.startswith((".", "/")):
            raise DataError(f"{source}: expected a folder, a parquet file or a Hub data set id")
        else:
            table = datasets.load_dataset(source)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"{source}: no images could be loaded: {first_line(error)}") from error
    split = "train" if "train" in table else next(iter(table))
    return Photos(table[split], column, source)


@dataclass
class Batch:
    """Views of some photos, as workers hand them over.

    Attributes:
        crops: uint8 (views·batch, size, size, 3), one for each size, views slowest.
        parameters: float32 (batch, views, 14), what was done to make each view (PARAMETER_NAMES).
        size: Number of photos.
    """

    crops: list[Tensor]
    parameters: Tensor
    size: int


@runtime_checkable
class PhotoSource(Protocol):
    """Where views come from: photos by number, or a stream."""

    def open(self, index: int) -> EncodedPhoto:
        """One photo that is not decoded yet."""

    def naming(self, index: int) -> AbstractContextManager[None]:
        """Turn what is wrong with a photo into a ``DataError`` that names it."""


# The views of a photo, and what was done to make each: float32 (views, 14).
Item = tuple[list[Image], NDArray[np.float32]]


class Views(Dataset[Item | CleverError]):
    """Photos seen through a recipe's views; each item is a pure function of its key.

    Args:
        photos: Where the photos come from.
        recipe: Seed and views.
    """

    def __init__(self, photos: PhotoSource, recipe: Recipe) -> None:
        self.photos = photos
        self.recipe = recipe

    def __getitem__(self, key: Key) -> Item | CleverError:
        epoch, index, sizes = key
        seed = self.recipe.run.seed
        try:
            with self.photos.naming(index):
                views, parameters = make_views(
                    self.photos.open(index), self.recipe.views, sizes, (seed, epoch, index)
                )
        except CleverError as error:
            return error  # raised on a worker, it would come with that one's whole traceback
        return views, np.stack([view.as_array() for view in parameters])


class Order(Sampler[list[Key]]):
    """Batches of keys: which photos, in which order, at which size. A pure function of the recipe.

    Args:
        recipe: Seed, batch size, views.
        photos: Number of photos.
        start: First step to give, counted from the beginning of the run.
        stop: Step before which to end.
        rank: Number of this process.
        world: Number of processes; each takes its share of every batch.

    Raises:
        DataError: When there are fewer photos than a batch holds.
    """

    def __init__(
        self, recipe: Recipe, photos: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.batch_size = recipe.run.batch_size
        if photos < self.batch_size:
            raise DataError(
                f"{photos} photos do not fill a batch of {self.batch_size}. "
                "Lower run.batch_size or bring more photos"
            )
        self.recipe, self.photos = recipe, photos
        self.steps_per_epoch = photos // self.batch_size
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        total = self.recipe.total_steps(self.steps_per_epoch)
        order, ordered = np.empty(0, dtype=np.int64), -1
        for step in range(self.start, self.stop):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                rng = np.random.default_rng((self.recipe.run.seed, epoch))
                order, ordered = rng.permutation(self.photos), epoch
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            sizes = sizes_at(self.recipe.views, step / total)
            yield [(epoch, int(index), sizes) for index in batch[self.rank :: self.world]]


def make_loader(views: Views, order: Sampler[list[Key]], workers: int) -> DataLoader[Any]:
    """Load batches in the background.

    Args:
        views: The data set.
        order: Its batches.
        workers: Number of processes; 0 loads in this one.

    Returns:
        Yields ``Batch``, or the error that ``batches`` raises.
    """
    return DataLoader(
        views,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_quiet_worker,
        prefetch_factor=4 if workers else None,
        # Its own generator: the default one would be moved by each start, and so by a resume.
        generator=torch.Generator().manual_seed(0),
    )


def batches(loader: DataLoader[Any]) -> Iterator[Batch]:
    """What a loader yields.

    Args:
        loader: From ``make_loader``.

    Yields:
        Its batches.

    Raises:
        CleverError: What was wrong with a photo or with the making of its views.
    """
    for batch in loader:
        if isinstance(batch, CleverError):
            raise batch
        yield batch


def _collate(found: Sequence[Item | CleverError]) -> Batch | CleverError:
    items: list[Item] = []
    for item in found:
        if isinstance(item, CleverError):
            return item
        items.append(item)
    views = list(zip(*(item[0] for item in items), strict=True))  # [view][photo]
    sizes = list(dict.fromkeys(view[0].shape[0] for view in views))
    crops = [
        torch.from_numpy(np.stack([p for view in views if view[0].shape[0] == size for p in view]))
        for size in sizes
    ]
    parameters = torch.from_numpy(np.stack([item[1] for item in items]))
    return Batch(crops, parameters, len(items))


def _quiet_worker(_: int) -> None:
    # Ctrl-C and a service manager's stop reach all processes; the training's own decides when to
    # end, and workers end when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # One process, one core: the libraries' own threads would fight the training's for it.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0]
