"""Image preparation for transformers; also shipped as remote code in model folders.

Pillow and numpy do here what ``clever_hub.Preprocessor`` does, number for number: transformers'
own processors resize by other rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class CleverImageProcessor(BaseImageProcessor):
    """Resize the shortest side, crop the centre, scale to [0, 1], normalise.

    Args:
        resize_size: Length of the shortest side after resizing, in pixels.
        crop_size: Side of the centre crop, in pixels.
        interpolation: One of nearest, bilinear, bicubic, lanczos.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel.
        **kwargs: Kept and written back.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 -- the name and type that transformers wants

    def __init__(
        self,
        resize_size: int = 64,
        crop_size: int = 64,
        interpolation: str = "bicubic",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resize_size, self.crop_size = resize_size, crop_size
        self.interpolation = interpolation
        self.mean = list(mean or (0.485, 0.456, 0.406))
        self.std = list(std or (0.229, 0.224, 0.225))

    def to_dict(self) -> dict[str, Any]:
        """What preprocessor_config.json holds: numbers, and no name of a class.

        Which class reads it is said in config.json. Said here too, transformers' pipelines would
        infer that the folder has a video processor as remote code, and ask to run it.
        """
        content: dict[str, Any] = super().to_dict()
        return {k: v for k, v in content.items() if k not in ("image_processor_type", "auto_map")}

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """Prepare images.

        Args:
            images: One or a list of PIL images or uint8 arrays (height, width, 3).
            return_tensors: ``"pt"`` or ``"np"``; None gives a list of arrays.

        Returns:
            ``pixel_values``, float32 (batch, 3, crop_size, crop_size).
        """
        several = images if isinstance(images, list | tuple) else [images]
        prepared = [self._one(image) for image in several]
        return BatchFeature({"pixel_values": prepared}, tensor_type=return_tensors)

    def _one(self, image: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        if isinstance(image, torch.Tensor):
            raise TypeError("expected PIL images or uint8 arrays (height, width, 3), got a tensor")
        photo = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        photo = ImageOps.exif_transpose(photo).convert("RGB")
        photo = self._resize_and_crop(photo)
        pixels = np.asarray(photo, dtype=np.float32) / np.float32(255)
        mean, std = (np.asarray(x, dtype=np.float32) for x in (self.mean, self.std))
        normalised = (pixels - mean) / std
        return np.ascontiguousarray(normalised.transpose(2, 0, 1))

    def _resize_and_crop(self, photo: Image.Image) -> Image.Image:
        width, height = photo.size
        short = min(width, height)
        size = (
            self.resize_size if width == short else int(self.resize_size * width / height),
            self.resize_size if height == short else int(self.resize_size * height / width),
        )
        if size != photo.size:
            photo = photo.resize(size, _RESAMPLING[self.interpolation])
        left = round((size[0] - self.crop_size) / 2.0)
        top = round((size[1] - self.crop_size) / 2.0)
        return photo.crop((left, top, left + self.crop_size, top + self.crop_size))
