"""The photos of each step, picked by number or read from a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from clever_hub.errors import DataError, TrainingError
from clever_training.data.photos import Photos
from clever_training.data.streaming import StreamedPhotos, StreamedRow, Window, read_ahead
from clever_training.recipe.schema import Recipe
from clever_training.runtime.gathering import world_size
from clever_training.runtime.processes import rank
from clever_training.views.sample import ViewSizes, sizes_at

Key = tuple[int, int, ViewSizes]  # epoch, index of the photo, sizes of its views


def steps_per_epoch(recipe: Recipe, photos: int) -> int:
    """Steps in a pass through the data; an incomplete last batch is left out.

    Args:
        recipe: Its batch size.
        photos: Number of photos.

    Returns:
        The steps, at least 1.

    Raises:
        DataError: When there are fewer photos than a batch holds.
    """
    steps = photos // recipe.run.batch_size
    if steps == 0:
        raise DataError(
            f"{photos} photos do not fill a batch of {recipe.run.batch_size}. Bring more photos, "
            f"or set smaller batches: --set run.batch_size=N, with N of {photos} or less"
        )
    return steps


def last_step(recipe: Recipe, per_epoch: int) -> int:
    """The number of steps after which a run ends: its epochs, or ``run.max_steps`` if fewer.

    Args:
        recipe: The run.
        per_epoch: Steps in a pass through the data.
    """
    total = recipe.total_steps(per_epoch)
    return min(total, recipe.run.max_steps or total)


class Order(Sampler[list[Key]]):
    """Batches of keys: which photos, in which order, at which sizes.

    They depend on the recipe and the number of photos alone.

    Args:
        recipe: Seed, batch size, views.
        photos: Number of photos.
        start: First step, counted from the beginning of the run.
        stop: Step before which to end.
        rank: Number of this process.
        world: Number of processes; each takes its share of every batch.

    Raises:
        DataError: When there are fewer photos than a batch holds.
    """

    def __init__(
        self, recipe: Recipe, photos: int, start: int, stop: int, rank: int = 0, world: int = 1
    ) -> None:
        self.steps_per_epoch = steps_per_epoch(recipe, photos)
        self.recipe, self.photos = recipe, photos
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        total = self.recipe.total_steps(self.steps_per_epoch)
        size = self.recipe.run.batch_size
        order, ordered = np.empty(0, dtype=np.int64), -1
        for step in range(self.start, self.stop):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != ordered:
                rng = np.random.default_rng((self.recipe.run.seed, epoch))
                order, ordered = rng.permutation(self.photos), epoch
            batch = order[place * size : (place + 1) * size]
            sizes = sizes_at(self.recipe.views, step / total)
            yield [(epoch, int(index), sizes) for index in batch[self.rank :: self.world]]


class StreamOrder(Sampler[list[Key]]):
    """Batches of keys from a stream; ``Order`` is the counterpart for photos by number.

    Args:
        recipe: Seed, batch size, window, views.
        photos: The stream.
        start: First step, counted from the beginning of the run.
        stop: Step before which to end.
        positions: The ``position`` of every process when the state was written; None at the
            beginning of a run.
        rank: Number of this process.
        world: Number of processes.

    Raises:
        DataError: When there are fewer photos than a batch holds.
        TrainingError: When the state was written by another number of processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        photos: StreamedPhotos,
        start: int,
        stop: int,
        positions: Sequence[dict[str, Any]] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.steps_per_epoch = steps_per_epoch(recipe, len(photos))
        if positions is not None and len(positions) != world:
            raise TrainingError(
                f"the state was written by {len(positions)} processes, now there are {world}. "
                f"Resume a streamed run with the same number: start {len(positions)}"
            )
        self.recipe, self.photos, self.rank, self.world = recipe, photos, rank, world
        self.start, self.stop = start, stop
        first = {"turn": 0, "row": 0, "state": None, "used": 0}
        self._positions = {start: first if positions is None else positions[rank]}

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        total = self.recipe.total_steps(self.steps_per_epoch)
        rows = self._rows(self._positions[self.start])
        for step in range(self.start, self.stop):
            sizes = sizes_at(self.recipe.views, step / total)
            batch = [next(rows) for _ in range(self.recipe.run.batch_size // self.world)]
            self._positions[step + 1] = batch[-1][2]
            yield [(turn, row, sizes) for turn, row, _ in batch]

    def position(self, step: int) -> dict[str, Any]:
        """The position in the stream after a step, as plain JSON.

        Args:
            step: Steps done; at least that of the previous call.
        """
        for earlier in [key for key in self._positions if key < step]:
            del self._positions[earlier]
        return self._positions[step]

    def _rows(self, position: dict[str, Any]) -> Iterator[tuple[int, StreamedRow, dict[str, Any]]]:
        """Each photo with its pass, its number, and the position after it."""
        run = self.recipe.run
        begin = Window(position["turn"], position["row"], position["state"], [])
        windows = self.photos.windows(run.stream_window, run.seed, self.rank, self.world, begin)
        used = position["used"]
        for turn, first, state, sources in read_ahead(windows):
            rng = np.random.default_rng((run.seed, turn, first, self.rank))
            for place, chosen in enumerate(rng.permutation(len(sources)).tolist()):
                if place < used:
                    continue
                # The number of a photo in its pass does not depend on the process that reads it.
                row = StreamedRow((first + chosen) * self.world + self.rank)
                row.source = sources[chosen]
                after = {"turn": turn, "row": first, "state": state, "used": place + 1}
                yield turn, row, after
            used = 0


def make_order(
    recipe: Recipe,
    photos: Photos | StreamedPhotos,
    start: int,
    stop: int,
    positions: Sequence[dict[str, Any]] | None = None,
) -> Order | StreamOrder:
    """This process's batches.

    Args:
        recipe: Batch size, epochs, seed.
        photos: The photos, by number or as a stream.
        start: First step, counted from the beginning of the run.
        stop: Step before which to end.
        positions: Each process's position in the stream when the state was written; None at the
            beginning of a run.

    Returns:
        The batches.

    Raises:
        DataError: When there are fewer photos than a batch holds.
        TrainingError: When the state was written by another number of processes.
    """
    if isinstance(photos, StreamedPhotos):
        return StreamOrder(recipe, photos, start, stop, positions, rank(), world_size())
    return Order(recipe, len(photos), start, stop, rank(), world_size())
