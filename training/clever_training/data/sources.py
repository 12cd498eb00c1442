"""The photos of a run, from a table or from a stream."""

from __future__ import annotations

from clever_training.data.photos import Photos, load_photos
from clever_training.data.streaming import StreamedPhotos, open_stream
from clever_training.recipe.schema import Recipe


def open_photos(recipe: Recipe, data: str, image_column: str | None) -> Photos | StreamedPhotos:
    """The photos that a recipe trains on, by number or streamed.

    Args:
        recipe: Its ``run.stream`` chooses between the two.
        data: Where the photos are.
        image_column: The image column of a table.

    Returns:
        The photos.

    Raises:
        DataError: When there are none.
    """
    if recipe.run.stream:
        return open_stream(data, image_column, recipe.run.stream_photos)
    return load_photos(data, image_column)
