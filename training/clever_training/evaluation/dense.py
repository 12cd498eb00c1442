"""Features of every place of a photo, of models and of raw pixels beside them."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clever_hub.backends.dense import DenseModel, whole_places
from clever_hub.errors import ConfigError
from clever_training.evaluation.models import FeatureExtractor, ModelFeatures, PixelFeatures

# A patch of raw pixels, and what its sides are shrunk to.
PIXEL_PATCH, PIXEL_SIDE = 16, 4


@runtime_checkable
class DenseFeatures(Protocol):
    """Gives features of every place of photos of any shape; see ``DenseModel``."""

    stride: int
    parts: dict[str, slice]

    def size_for(self, width: int, height: int, short: int) -> tuple[int, int]:
        """Width and height that a photo is resized to."""
        ...

    def prepare(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
        """One photo as float32 (3, height, width)."""
        ...

    def __call__(self, batch: NDArray[np.float32]) -> Float[Tensor, "batch rows columns dim"]:
        """Features of prepared photos (N, 3, height, width)."""
        ...


class DensePixels:
    """Each patch's own pixels, shrunk: what features of places have to beat.

    Attributes:
        stride: Pixels a side of a patch.
        parts: ``full`` alone.

    Example:
        >>> DensePixels()(np.zeros((1, 3, 480, 832), dtype=np.float32)).shape
        torch.Size([1, 30, 52, 48])
    """

    def __init__(self) -> None:
        self.stride = PIXEL_PATCH
        self.parts = {"full": slice(0, 3 * PIXEL_SIDE**2)}

    def size_for(self, width: int, height: int, short: int) -> tuple[int, int]:
        """Whole patches, as for models."""
        return whole_places(width, height, max(short, self.stride), self.stride)

    def prepare(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
        """Resized; in [−1, 1], so that dark and bright are opposites."""
        resized = image.resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(resized, dtype=np.float32) / 127.5 - 1
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def __call__(self, batch: NDArray[np.float32]) -> Float[Tensor, "batch rows columns dim"]:
        """The patches' pixels."""
        each = PIXEL_PATCH // PIXEL_SIDE
        shrunk = torch.nn.functional.avg_pool2d(torch.from_numpy(batch), each)
        cut = shrunk.unfold(2, PIXEL_SIDE, PIXEL_SIDE).unfold(3, PIXEL_SIDE, PIXEL_SIDE)
        return cut.permute(0, 2, 3, 1, 4, 5).flatten(3)  # (batch, rows, columns, 3 · side²)


def dense_features(
    extractor: FeatureExtractor, layer: Literal["tokens", "keys"] = "tokens"
) -> DenseFeatures:
    """The features of places that a model gives.

    Args:
        extractor: As ``load_extractor`` gives it.
        layer: As for ``DenseModel``.

    Returns:
        Them.

    Raises:
        ConfigError: When it has none.
    """
    if isinstance(extractor, PixelFeatures):
        return DensePixels()
    if isinstance(extractor, ModelFeatures):
        return DenseModel(extractor.model, layer)
    raise ConfigError(f"{extractor.name}: gives features of whole photos only, not of places")
