"""Embeddings of photos and of their views, each photo decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from clever_hub.backends.torch import CleverModel
from clever_hub.config import PreprocessingConfig
from clever_hub.errors import DataError
from clever_hub.images.preparing import Preprocessor
from clever_hub.threads import available_cores
from clever_training.data.photos import Photos
from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.parameters import ViewParameters
from clever_training.views.sample import ViewSizes, make_views

Progress = Callable[[int, int], None]
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Views:
    """Embeddings of photos × views.

    Attributes:
        embeddings: float32 (photos, views, d), raw; the first view is the photo as users give it.
        parameters: float32 (photos, views, 14), what was done to each.
    """

    embeddings: NDArray[np.float32]
    parameters: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.embeddings)


def views_recipe(strategy: str, size: int) -> ViewsRecipe:
    """How views are drawn: mild crops, so that what a view shows is still the photo.

    Args:
        strategy: ``baug``, ``caug`` (turned by ±90° too) or ``caug+``.
        size: Side of a view in pixels.
    """
    return ViewsRecipe.model_validate(
        {
            "strategy": strategy,
            "rotation": 90.0,
            "global_size": size,
            "global_scale": (0.5, 1.0),
            "grayscale": 0.1,
            "blur": (0.3, 0.3, 0.3),
            "solarize": 0.0,
        }
    )


def embed_views(
    model: CleverModel,
    photos: Photos,
    rows: Sequence[int],
    recipe: ViewsRecipe,
    count: int,
    *,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Views:
    """Embed photos as they are, and views of them.

    Args:
        model: In eval mode.
        photos: Where the photos are.
        rows: Which of them.
        recipe: How views are drawn.
        count: Views of each photo, itself included.
        seed: Of the drawing; views are a pure function of it and the photo's row.
        progress: Called with how many photos are done, and how many there are.

    Returns:
        The embeddings.

    Raises:
        DataError: When a photo cannot be read; names it.
    """
    preprocessing = model.config.preprocessing
    make = _Maker(preprocessing, recipe, count, seed)
    found: list[NDArray[np.float32]] = []
    drawn: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.float32]] = []

    def flush() -> None:
        if waiting:
            found.append(_embed(model, np.concatenate(waiting)))
            waiting.clear()

    for done, (pixels, parameters) in enumerate(_in_threads(make, photos, rows), start=1):
        waiting.append(pixels)
        drawn.append(parameters)
        if len(waiting) * count >= _BATCH:
            flush()
            progress(done, len(rows))
    flush()
    progress(len(rows), len(rows))
    embeddings = np.concatenate(found).reshape(len(rows), count, -1)
    if not np.isfinite(embeddings).all():
        raise DataError(f"{model.config.name}: gives embeddings that are not finite")
    return Views(embeddings, np.stack(drawn))


class _Maker:
    """Makes the prepared views of a photo and says what was done to each."""

    def __init__(
        self, preprocessing: PreprocessingConfig, recipe: ViewsRecipe, count: int, seed: int
    ) -> None:
        self._clean = Preprocessor(preprocessing)
        size = preprocessing.crop_size
        self._rendered = Preprocessor(replace(preprocessing, resize_size=size))
        self._recipe = recipe.model_copy(update={"global_count": count - 1})
        self._sizes, self._seed = ViewSizes(size, size), seed
        self._preprocessing = preprocessing

    def __call__(self, photos: Photos, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with photos.naming(row):
            photo = photos.open(row)
            views, drawn = make_views(photo, self._recipe, self._sizes, (self._seed, 0, row))
            clean = self._clean(photo.decode())
        pixels = [clean, *(self._rendered(view) for view in views)]
        whole = ViewParameters(box=self._middle(*photo.size))
        return np.stack(pixels), np.stack([one.as_array() for one in (whole, *drawn)])

    def _middle(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The square that the model sees of a photo, as shares of its sides."""
        share = self._preprocessing.crop_size / self._preprocessing.resize_size
        side = min(width, height) * share
        across, down = side / width, side / height
        return (1 - across) / 2, (1 - down) / 2, across, down


def _embed(model: CleverModel, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    parameter = next(model.parameters())
    inputs = torch.from_numpy(pixels).to(parameter.device, parameter.dtype)
    # Convolutions on a CPU are a fifth faster in channels_last.
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        result: NDArray[np.float32] = model(inputs).full.float().cpu().numpy()
    return result


def _in_threads(
    make: _Maker, photos: Photos, rows: Sequence[int]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The views of each row in order, a few ahead."""
    with ThreadPoolExecutor(min(4, available_cores())) as pool:
        left = iter(rows)
        waiting = [pool.submit(make, photos, row) for row in islice(left, 8)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(make, photos, row) for row in islice(left, 1)]
