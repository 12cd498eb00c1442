"""Photos by number: a table of image files that stay encoded until they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from clever_hub.errors import DataError, ImageError, MissingExtraError
from clever_hub.hub.datasets import load_from_hub
from clever_training.data.files import read_folder
from clever_training.data.image_column import find_image_column
from clever_training.data.image_folder import training_files, training_split
from clever_training.views.decode import EncodedPhoto, Image


@dataclass(frozen=True, eq=False)
class Photos:
    """A table with an image column, by row.

    Attributes:
        name: The data set as the user gave it, for errors.
        table: A map-style data set; its images are not decoded.
        image_column: Name of the column with the images.
    """

    name: str
    table: Any
    image_column: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Image:
        """One photo as uint8 (height, width, 3), RGB.

        Raises:
            DataError: Names the row that cannot be read.
        """
        with self.naming(index):
            return self.open(index).decode()

    def source(self, index: int) -> bytes | str:
        """The image file of a row: its bytes, or its path; empty when the row has neither."""
        return encoded(self.table[index][self.image_column])

    def open(self, index: int) -> EncodedPhoto:
        """One photo that is not decoded yet.

        Raises:
            ImageError: When the row cannot be read; ``naming`` adds the row.
        """
        return open_encoded(self.source(index))

    def naming(self, index: int) -> AbstractContextManager[None]:
        """Turn an error about a photo into a ``DataError`` that names its file, or its row."""
        return naming_photo(lambda: self.place(index))

    def place(self, index: int) -> str:
        """Where a photo is: its file, or its row in the table, with the file's name if known."""
        entry = self.table[index][self.image_column] or {}
        path, content = entry.get("path"), entry.get("bytes")
        if path and not content:
            return str(path)
        return f"{self.name}: row {index}" + (f" ({path})" if path else "")


def encoded(entry: dict[str, Any] | None) -> bytes | str:
    """The image file in an entry of an undecoded image column.

    Args:
        entry: Its ``bytes`` and its ``path``; either may be None.

    Returns:
        The bytes, else the path; empty bytes when there is neither.
    """
    entry = entry or {}
    return entry.get("bytes") or entry.get("path") or b""


def open_encoded(source: bytes | str) -> EncodedPhoto:
    """Open an image file that ``encoded`` gave.

    Raises:
        ImageError: When it is empty or no image.
    """
    if not source:
        raise ImageError("empty", "it holds neither the bytes of a file nor a path")
    return EncodedPhoto(source)


@contextmanager
def naming_photo(place: Callable[[], str]) -> Iterator[None]:
    """Turn an error about an image into a ``DataError`` that says where the image is.

    Args:
        place: Names the photo; called when there is an error alone.

    Raises:
        DataError: When the image cannot be read.
    """
    try:
        yield
    except ImageError as error:
        raise DataError(
            f"{place()} cannot be read as an image ({error}). "
            "Repair or remove it; no photo is skipped silently"
        ) from error
    except MissingExtraError as error:  # of its format; says how to install it
        raise DataError(f"{place()} cannot be read as an image ({error})") from error


def undecoded(table: Any, image_column: str, name: str) -> Photos:
    """Photos of a table whose image column is known.

    Args:
        table: A map-style data set.
        image_column: The column with the images.
        name: Names the data set in errors.

    Returns:
        The photos. Their bytes stay bytes until a worker decodes them.

    Raises:
        DataError: When the table is empty.
    """
    if len(table) == 0:
        raise DataError(f"{name}: expected photos, got an empty data set")
    return Photos(name, table.cast_column(image_column, datasets.Image(decode=False)), image_column)


def load_photos(source: str, column: str | None = None) -> Photos:
    """Open photos to train on; labels are ignored.

    Args:
        source: A parquet file; a folder of parquet files, of which those named ``train…`` or in a
            folder of such a name are read, if there are any; a folder of images, read with its
            sub-folders (if all of them are splits, ``train`` alone is read); or the id of a data
            set on the Hub, split ``train``.
        column: The image column of a table.

    Returns:
        The photos.

    Raises:
        DataError: When nothing is there, or it holds no images.

    Example:
        >>> load_photos("photos/")  # doctest: +SKIP
    """
    # The progress bars of `datasets` would interrupt ours.
    datasets.disable_progress_bars()
    try:
        table = _load_table(source)
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"{source}: no images could be loaded: {first_line(error)}") from error
    column = find_image_column(table.features, column, source, "--image-column COLUMN")
    return undecoded(table.select_columns(column), column, source)


def _load_table(source: str) -> Any:
    path = Path(source)
    if path.is_dir():
        files = training_files(path, path.rglob("*.parquet"))
        if not files:
            return read_folder(training_split(path))
    elif path.suffix == ".parquet":
        if not path.is_file():
            raise DataError(f"{source}: no such file")
        files = [source]
    elif path.exists():
        raise DataError(f"{source}: expected a folder, a parquet file or a Hub data set id")
    else:
        splits = load_from_hub(source)
        return splits["train" if "train" in splits else next(iter(splits))]
    return datasets.load_dataset("parquet", data_files=files, split="train")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's type when it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
