"""Prepare images for the backbone, with Pillow and numpy only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.config import PreprocessingConfig
from clever_hub.errors import ImageError
from clever_hub.images.opening import ImageSource, as_list, describe, open_image
from clever_hub.images.options import LoadOptions

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A photo of 1 × 100,000 pixels is a small file but would be a huge image after resizing.
_MAX_RESIZED_PIXELS = 50_000_000


class Preprocessor:
    """Resizes, crops and normalises images, in the same way for every backend.

    Bit-identical to torchvision's ``Resize(resize_size)``, ``CenterCrop(crop_size)``,
    ``ToTensor`` and ``Normalize(mean, std)`` on PIL images.

    Attributes:
        config: Sizes, interpolation, mean and standard deviation.
        options: How images are opened.

    Example:
        >>> import numpy as np
        >>> preprocess = Preprocessor(PreprocessingConfig(resize_size=64, crop_size=64))
        >>> preprocess(np.zeros((100, 200, 3), dtype=np.uint8)).shape
        (3, 64, 64)
    """

    def __init__(self, config: PreprocessingConfig, options: LoadOptions | None = None) -> None:
        self.config = config
        self.options = options or LoadOptions()
        self._mean = np.asarray(config.mean, dtype=np.float32)[:, None, None]
        self._std = np.asarray(config.std, dtype=np.float32)[:, None, None]

    def __call__(self, image: ImageSource) -> NDArray[np.float32]:
        """Prepare one image.

        Args:
            image: Anything that ``load_image`` takes.

        Returns:
            float32 (3, crop_size, crop_size), channels red green blue, normalised.

        Raises:
            ImageError: When it cannot be read, or is too long and thin to resize.
        """
        opened = open_image(image, self.options, self.config.resize_size)
        resized = self._resize(opened, describe(image))
        pixels = np.asarray(self._crop(resized), dtype=np.float32)  # (H, W, 3)
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (3, H, W)
        pixels /= np.float32(255)
        pixels -= self._mean
        pixels /= self._std
        return pixels

    def with_options(self, options: LoadOptions) -> Preprocessor:
        """The same preparation of images that are opened in another way."""
        return Preprocessor(self.config, options)

    def batch(self, images: ImageSource | Iterable[ImageSource]) -> NDArray[np.float32]:
        """Prepare several images.

        Args:
            images: Anything that ``load_image`` takes, or an iterable of it.

        Returns:
            float32 (N, 3, crop_size, crop_size); N may be 0.

        Raises:
            ImageError: When an image cannot be read.
        """
        size = self.config.crop_size
        prepared = [self(image) for image in as_list(images)]
        return np.stack(prepared) if prepared else np.empty((0, 3, size, size), np.float32)

    def _resize(self, image: Image.Image, name: str) -> Image.Image:
        """Bring the shortest side to ``resize_size``; rounds down, as torchvision does."""
        short, long = sorted(image.size)
        size = self.config.resize_size
        longer = int(size * long / short)
        if size * longer > _MAX_RESIZED_PIXELS:
            raise ImageError(name, f"too long and thin to resize: {image.width}×{image.height}")
        target = (size, longer) if image.width <= image.height else (longer, size)
        if target == image.size:
            return image
        return image.resize(target, _RESAMPLING[self.config.interpolation])

    def _crop(self, image: Image.Image) -> Image.Image:
        side = self.config.crop_size
        # Python rounds halves to even, and so does torchvision's CenterCrop.
        left, top = round((image.width - side) / 2), round((image.height - side) / 2)
        return image.crop((left, top, left + side, top + side))
