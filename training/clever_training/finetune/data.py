"""Labelled photos in the form that transformers' Trainer takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from clever_hub.config import PreprocessingConfig
from clever_hub.errors import CleverError
from clever_hub.images.preparing import Preprocessor
from clever_training.data.labelled import LabelledPhotos, positions_of_every_class
from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.render import render_fast
from clever_training.views.sample import sample


class Example(TypedDict):
    """One photo and its class.

    Attributes:
        pixel_values: float32 (3, size, size), normalised.
        labels: Number of the class.
    """

    pixel_values: Float[Tensor, "3 size size"]
    labels: int


class _Examples(ABC, Dataset[Example | CleverError]):
    """Photos with their classes; sub-classes decide how a photo becomes the model's input."""

    def __init__(self, photos: LabelledPhotos) -> None:
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, position: int) -> Example | CleverError:
        try:
            photo = self.photos[position]
        except CleverError as error:
            return error  # raised in a worker, it would arrive with the worker's traceback
        pixels = torch.from_numpy(self._pixels(photo, position))
        return {"pixel_values": pixels, "labels": int(self.photos.labels[position])}

    @abstractmethod
    def _pixels(self, photo: Image.Image, position: int) -> NDArray[np.float32]:
        """The model's input for a photo, float32 (3, size, size)."""


class PlainPhotos(_Examples):
    """Photos with the preprocessing of inference.

    Args:
        photos: The photos.
        preprocessing: The model's preprocessing.
    """

    def __init__(self, photos: LabelledPhotos, preprocessing: PreprocessingConfig) -> None:
        super().__init__(photos)
        self._prepare = Preprocessor(preprocessing)

    def _pixels(self, photo: Image.Image, position: int) -> NDArray[np.float32]:  # noqa: ARG002
        return self._prepare(photo)


class CroppedPhotos(_Examples):
    """Photos cropped at random and flipped half of the time, differently in each epoch.

    The crop is a pure function of (seed, epoch, row of the photo), so a resumed run sees the same
    crops.

    Args:
        photos: The photos.
        preprocessing: The model's preprocessing.
        crop_scale: Smallest share of the photo's area.
        seed: Seed of the crops.
    """

    def __init__(
        self,
        photos: LabelledPhotos,
        preprocessing: PreprocessingConfig,
        crop_scale: float,
        seed: int,
    ) -> None:
        super().__init__(photos)
        self.seed, self.epoch = seed, 0
        self._size = preprocessing.crop_size
        self._normalize = Preprocessor(replace(preprocessing, resize_size=self._size))
        self._recipe = ViewsRecipe(
            global_count=1,
            global_scale=(crop_scale, 1.0),
            jitter_probability=0.0,
            grayscale=0.0,
            blur=(0.0, 0.0, 0.0),
            solarize=0.0,
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next photos."""
        self.epoch = epoch

    def _pixels(self, photo: Image.Image, position: int) -> NDArray[np.float32]:
        image = np.asarray(photo)
        random = np.random.default_rng((self.seed, self.epoch, int(self.photos.indices[position])))
        aspect = image.shape[1] / image.shape[0]
        view = sample(self._recipe, 0, aspect, self._size, random)
        cropped = Image.fromarray(render_fast(image, view, self._size))
        return self._normalize(cropped)


def collate(examples: Sequence[Example | CleverError]) -> dict[str, Any]:
    """Combine examples into a batch, or pass on an error for the trainer to raise.

    Args:
        examples: The examples of one batch.

    Returns:
        ``pixel_values``, float32 (batch, 3, size, size), and ``labels``, int64 (batch,); else
        ``error``.
    """
    for example in examples:
        if isinstance(example, CleverError):
            return {"error": example}
    batch: dict[str, Any] = default_collate(list(examples))
    return batch


def semi_supervised(photos: LabelledPhotos, share: float, seed: int) -> LabelledPhotos:
    """A stratified share of the labelled photos, with at least one of every class.

    Args:
        photos: All photos.
        share: Share to choose, in (0, 1].
        seed: Seed of the choice.

    Returns:
        The chosen photos; all for a share of 1.
    """
    if share == 1:
        return photos
    count = max(round(share * len(photos)), len(np.unique(photos.labels)))
    return photos.subset(positions_of_every_class(photos.labels, count, seed))
