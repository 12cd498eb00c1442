"""The photos of a run, from a table or from a stream, and what they are called."""

from __future__ import annotations

import re
from pathlib import Path

from clever_hub.errors import DataError
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
    try:
        return load_photos(data, image_column)
    except DataError as error:
        if not _are_shards(data):
            raise
        raise DataError(
            f"{data}: expected a folder of images, a parquet file or a Hub data set id, got shards "
            "of WebDataset (.tar), which are streamed: --set run.stream=true "
            "--set run.stream_photos=N, the number of your photos"
        ) from error


def _are_shards(data: str) -> bool:
    """Whether these are files that are streamed alone, or a folder that has some."""
    path = Path(data)
    return path.suffix == ".tar" or (path.is_dir() and any(path.rglob("*.tar")))


def public_name(data: str) -> str:
    """What photos are called where others read it.

    Args:
        data: As ``pretrain`` takes it.

    Returns:
        A Hub id as it is. The name alone of a folder or file; for a file called after a split, such
        as train.parquet, with that of its folder.

    Example:
        >>> public_name("user/photos"), public_name("/home/me/birds/train.parquet")
        ('user/photos', 'birds/train.parquet')
    """
    path = Path(data).expanduser()
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", data, re.ASCII):
        return data
    path = path.resolve() if path.exists() else path
    split = re.match(r"(train|validation|val|test)", path.name)
    return f"{path.parent.name}/{path.name}" if split and path.parent.name else path.name
