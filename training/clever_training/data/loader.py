"""Batches of views, made in the background."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from clever_hub.errors import CleverError, ConfigError
from clever_training.data.orders import Key
from clever_training.data.teacher import CleanPhoto
from clever_training.recipe.schema import Recipe
from clever_training.views.decode import EncodedPhoto, Image
from clever_training.views.sample import make_views


@dataclass
class Batch:
    """Views of a batch of photos, as workers return them.

    Attributes:
        crops: One uint8 tensor (views·batch, size, size, 3) for each size of views; the view is
            the slowest index.
        parameters: float32 (batch, views, 14), how each view was made (``PARAMETER_NAMES``).
        size: Number of photos.
        numbers: Numbers of the photos in the data set, or in their pass through a stream.
        clean: uint8 (batch, size, size, 3), the photos prepared for a frozen teacher that embeds
            them during training; else None.
    """

    crops: list[Tensor]
    parameters: Tensor
    size: int
    numbers: list[int] = field(default_factory=list)
    clean: Tensor | None = None

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, which a GPU reads while the CPU goes on.

        The loader calls it.
        """
        return replace(
            self,
            crops=[crop.pin_memory() for crop in self.crops],
            parameters=self.parameters.pin_memory(),
            clean=None if self.clean is None else self.clean.pin_memory(),
        )


@runtime_checkable
class PhotoSource(Protocol):
    """What views are made of: photos by number, or a stream."""

    def open(self, index: int) -> EncodedPhoto:
        """One photo that is not decoded yet."""

    def naming(self, index: int) -> AbstractContextManager[None]:
        """Turn an error about a photo into a ``DataError`` that says which photo it is."""

    def place(self, index: int) -> str:
        """Where a photo is, for errors."""


@dataclass(frozen=True)
class Item:
    """One photo of a batch.

    Attributes:
        views: The views, uint8 (size, size, 3).
        parameters: The parameters of each view, float32 (views, 14).
        number: Number of the photo.
        clean: The photo prepared for a frozen teacher, if it embeds photos during training.
    """

    views: list[Image]
    parameters: NDArray[np.float32]
    number: int
    clean: Image | None


class Views(Dataset[Item | CleverError]):
    """Photos seen through a recipe's views; each item is a pure function of its key.

    Args:
        photos: Where the photos come from.
        recipe: Seed and views.
        clean: Prepares photos for a teacher that embeds them live; None where there is none.
    """

    def __init__(
        self, photos: PhotoSource, recipe: Recipe, clean: CleanPhoto | None = None
    ) -> None:
        self.photos = photos
        self.recipe = recipe
        self.clean = clean

    def __getitem__(self, key: Key) -> Item | CleverError:
        epoch, index, sizes = key
        seed = self.recipe.run.seed
        try:
            with self.photos.naming(index):
                photo = self.photos.open(index)
                views, parameters = make_views(
                    photo, self.recipe.views, sizes, (seed, epoch, index)
                )
                clean = self.clean(photo) if self.clean else None
        except ConfigError as error:
            return ConfigError(f"{self.photos.place(index)}: {error}")
        except CleverError as error:
            return error  # raised in a worker, it would arrive with the worker's traceback
        drawn = np.stack([view.as_array() for view in parameters])
        return Item(views, drawn, int(index), clean)


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
        pin_memory=torch.cuda.is_available(),  # then it is the device of every run
        # A generator of its own: every new iterator advances the global one, so a resumed run
        # would draw other random numbers.
        generator=torch.Generator().manual_seed(0),
    )


def batches(loader: DataLoader[Any]) -> Iterator[Batch]:
    """The batches of a loader; an error that a worker met is raised here.

    Args:
        loader: From ``make_loader``.

    Yields:
        The batches.

    Raises:
        CleverError: When a photo cannot be read or its views cannot be made.
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
    views = list(zip(*(item.views for item in items), strict=True))  # [view][photo]
    sizes = list(dict.fromkeys(view[0].shape[0] for view in views))
    crops = [
        torch.from_numpy(np.stack([p for view in views if view[0].shape[0] == size for p in view]))
        for size in sizes
    ]
    parameters = torch.from_numpy(np.stack([item.parameters for item in items]))
    clean = [item.clean for item in items if item.clean is not None]
    return Batch(
        crops,
        parameters,
        len(items),
        [item.number for item in items],
        torch.from_numpy(np.stack(clean)) if clean else None,
    )


def _quiet_worker(_: int) -> None:
    # Ctrl-C and a service manager's stop reach all processes. The training process decides when
    # to stop; its workers end with it. It may have to ask a second time: torch does so, and Python
    # at its own end, where a worker that ignored every request would be waited for without end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_next_time)
    # One core per worker: threads of these libraries would compete with the training.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_next_time(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
