"""The photos that the job benchmarks share, as files' bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from jobs.copies import copy_of


class Photo(NamedTuple):
    """What a file is, and how it is made.

    Attributes:
        name: Such as ``query 12: crop``.
        original: Number of the original; every distractor is an original of its own.
        kind: ``original``, a name of ``COPIERS``, or ``distractor``.
        make: Gives the bytes of an image file; copies take a while.
    """

    name: str
    original: int
    kind: str
    make: Callable[[], bytes]


def originals(data: Path, limit: int | None = None) -> list[bytes]:
    """photos-224's validation photos and the full-size photos, as files' bytes."""
    files = column(data / "photos-224" / "validation.parquet")
    files += [path.read_bytes() for path in sorted((data / "imagenet-photos").glob("*.JPEG"))]
    if limit is None or limit >= len(files):
        return files
    return [files[i] for i in np.linspace(0, len(files) - 1, limit).astype(int)]


def distractors(data: Path, count: int) -> list[bytes]:
    """Photos of tiny-imagenet-100, evenly out of its classes."""
    files = column(data / "tiny-imagenet-100" / "train.parquet")
    return [files[i] for i in np.linspace(0, len(files) - 1, count).astype(int)]


def collection(
    data: Path, kinds: list[str], photos: int | None = None, others: int = 10_000
) -> Iterator[Photo]:
    """Originals, a copy of each of every kind, and distractors.

    Args:
        data: The folder of test data.
        kinds: Names of ``COPIERS``.
        photos: How many originals; None is all 925.
        others: How many distractors.

    Yields:
        Photos; copies are JPEGs of quality 92 but where the kind says another.
    """
    files = originals(data, photos)
    for number, file in enumerate(files):
        yield Photo(f"query {number}", number, "original", partial(bytes, file))
        photo = cache(partial(_opened, file))  # once for all copies, if any is wanted
        for kind in kinds:
            made = partial(_copied, photo, number, kind)
            yield Photo(f"query {number}: {kind}", number, kind, made)
    for number, file in enumerate(distractors(data, others), len(files)):
        yield Photo(f"distractor {number}", number, "distractor", partial(bytes, file))


def _opened(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")


def _copied(photo: Callable[[], Image.Image], number: int, kind: str) -> bytes:
    return _jpeg(copy_of(photo(), number, kind))


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return file.getvalue()


def column(path: Path) -> list[bytes]:
    """The files in the column ``image`` of a parquet file."""
    rows = pq.read_table(path, columns=["image"])["image"].to_pylist()
    return [row["bytes"] for row in rows if row is not None]
