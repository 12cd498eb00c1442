"""Where a run's photos come from, and in which order: by number, or as a stream."""

from __future__ import annotations

from typing import Any

from clever_training.data.photos import Order, Photos, load_photos
from clever_training.data.streaming import StreamedPhotos, StreamOrder, open_stream
from clever_training.recipe.schema import Recipe
from clever_training.runtime.gathering import world_size
from clever_training.runtime.processes import rank


def open_photos(recipe: Recipe, data: str, image_column: str | None) -> Photos | StreamedPhotos:
    """The photos that a recipe trains on, picked by number or streamed.

    Args:
        recipe: Says which.
        data: Where they are.
        image_column: The image column of a table.

    Returns:
        The photos.

    Raises:
        DataError: When there are none.
    """
    if recipe.run.stream:
        return open_stream(data, image_column, recipe.run.stream_photos)
    return load_photos(data, image_column)


def make_order(
    recipe: Recipe, photos: Photos | StreamedPhotos, positions: Any, start: int
) -> Order | StreamOrder:
    """This process's batches from a step on, to the end of the run or of the trial.

    Args:
        recipe: Batch size, epochs, seed.
        photos: Their number, or the stream itself.
        positions: Where each process's stream was when the state was written; None to begin.
        start: Steps done before.

    Returns:
        The batches.

    Raises:
        DataError: When there are fewer photos than a batch holds.
        TrainingError: When the state is of another number of processes.
    """
    if isinstance(photos, StreamedPhotos):
        order: Order | StreamOrder = StreamOrder(
            recipe, photos, start, positions, rank(), world_size()
        )
    else:
        order = Order(recipe, len(photos), start, 0, rank(), world_size())
    total = recipe.total_steps(order.steps_per_epoch)
    order.stop = min(total, recipe.run.max_steps or total)
    return order
