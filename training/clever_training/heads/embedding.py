"""Embeddings of photos × views, computed once: what heads are fitted to and calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.errors import DataError
from clever_hub.images.encoding import EncoderMixin
from clever_hub.threads import available_cores
from clever_training.data.photos import Photos
from clever_training.heads.views import POSITIONED, HeadViews, PhotoViews, ViewMaker

Progress = Callable[[int, int], None]
_BATCH = 64
_THUMBNAIL = 16
# Correlation of two thumbnails above which they are one photo, scaled or recompressed.
_COPY = 0.995


@dataclass(frozen=True, eq=False)
class EmbeddedViews:
    """Embeddings of the views of N photos.

    Attributes:
        embeddings: float32 (N, views, d), raw; the first four views are the photo upright and
            turned by each quarter.
        parameters: float32 (N, views, 14), what was done to each.
        split: Length of the invariant part.
        data: Name of the data set.
        eight: float32 (N, 3, 8, d), all positions of the views ``POSITIONED``, where they were
            asked for.
        thumbnails: float32 (N, pixels), by which copies of the photos are known; None of views
            that were made otherwise.
    """

    embeddings: NDArray[np.float32]
    parameters: NDArray[np.float32]
    split: int
    data: str
    eight: NDArray[np.float32] | None = None
    thumbnails: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def equivariant(self) -> NDArray[np.float32]:
        """float32 (N, views, e)."""
        return self.embeddings[..., self.split :]

    def at(self, photos: NDArray[np.int64], views: NDArray[np.int64] | int) -> Embeddings:
        """Some views of some photos, row by row."""
        rows = self.embeddings[photos, views]
        return Embeddings(rows[:, : self.split], rows[:, self.split :])

    def subset(self, photos: NDArray[np.int64]) -> EmbeddedViews:
        """Of some photos alone."""
        eight = None if self.eight is None else self.eight[photos]
        return EmbeddedViews(
            self.embeddings[photos], self.parameters[photos], self.split, self.data, eight
        )


def embed_views(
    model: EncoderMixin,
    photos: Photos,
    rows: Sequence[int],
    views: HeadViews,
    *,
    seed: int = 0,
    known: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> EmbeddedViews:
    """Embed views of photos, each photo decoded once; copies of a photo are left out.

    Args:
        model: A model of any backend.
        photos: Where the photos are.
        rows: Which of them.
        views: How views are drawn.
        seed: Seed of the draws.
        known: ``EmbeddedViews.thumbnails`` of other photos, whose copies are left out, too.
        progress: Called with how many photos are done, and how many there are.

    Returns:
        The embeddings. A copy, however it was scaled or compressed, would count as a different
        photo that looks the same.

    Raises:
        DataError: When a photo cannot be read.
    """
    make = ViewMaker(model.config.preprocessing, views, seed)
    before = 0 if known is None else len(known)
    seen = np.empty((before + len(rows), _THUMBNAIL**2), np.float32)
    if known is not None:
        seen[:before] = known
    kept: list[NDArray[np.float32]] = []  # no slice of the pixels: it would hold them all
    found: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.float32]] = []

    def flush() -> None:
        if waiting:
            found.append(model._embed_batch(np.concatenate(waiting)))
            waiting.clear()

    for done, made in enumerate(_in_threads(make, photos, rows), start=1):
        thumbnail = _thumbnail(made.pixels[0])
        if (seen[: before + len(kept)] @ thumbnail).max(initial=0.0) < _COPY:
            seen[before + len(kept)] = thumbnail
            kept.append(made.parameters)
            waiting.append(made.pixels)
            if len(waiting) * views.count >= _BATCH:
                flush()
        if progress:
            progress(done, len(rows))
    flush()
    if not kept:
        raise DataError(f"{photos.name}: expected photos, got none")
    whole = np.concatenate(found)
    whole = whole.reshape(len(kept), -1, whole.shape[-1])
    return EmbeddedViews(
        whole[:, : views.count],
        np.stack(kept),
        model.config.invariant_dim,
        photos.name,
        whole[:, views.count :].reshape(len(kept), len(POSITIONED), -1, whole.shape[-1])
        if views.positions
        else None,
        seen[before : before + len(kept)],
    )


def choose(photos: int, count: int | None, seed: int) -> list[int]:
    """Rows of so many photos, chosen at random; of all when None or not fewer than there are."""
    if count is None or count >= photos:
        return list(range(photos))
    return sorted(np.random.default_rng(seed).choice(photos, count, replace=False).tolist())


def _in_threads(make: ViewMaker, photos: Photos, rows: Sequence[int]) -> Iterator[PhotoViews]:
    """The views of each row in order, a few ahead."""

    def views(row: int) -> PhotoViews:
        with photos.naming(row):
            return make(photos.open(row), row)

    with ThreadPoolExecutor(min(4, available_cores())) as pool:
        left = iter(rows)
        waiting = [pool.submit(views, row) for row in islice(left, 8)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(views, row) for row in islice(left, 1)]


def _thumbnail(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """A grey picture of 16 × 16, of mean 0 and length 1: what survives scaling and compression."""
    small = cv2.resize(pixels.mean(axis=0), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    flat = np.asarray(small - small.mean(), np.float32).ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-6)
