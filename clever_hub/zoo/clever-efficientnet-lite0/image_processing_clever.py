"""Image preparation for transformers; also shipped as remote code in model folders.

Pillow and numpy do here what ``clever_hub.Preprocessor`` does, number for number: transformers'
own processors resize by other rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

_UPRIGHT = {  # what brings an image of each EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A photo one pixel high and a hundred thousand wide is a small file and a huge resized image.
_MAX_RESIZED_PIXELS = 50_000_000


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

    def preprocess(
        self, images: Any, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Prepare images.

        Args:
            images: One or a list of PIL images, uint8 arrays (height, width, 3), or uint8 tensors
                with channels first, (3, height, width), as torchvision reads photos; also a batch
                of such, (N, 3, height, width).
            return_tensors: ``"pt"`` or ``"np"``; None gives a list of arrays.
            **kwargs: None: sizes are set when the processor is loaded.

        Returns:
            ``pixel_values``, float32 (batch, 3, crop_size, crop_size).

        Raises:
            TypeError: For tensors and arrays of another dtype, and for other arguments, which would
                else be ignored.
            ValueError: For PIL images of floating point or integers beyond 16 bits, for arrays of
                another shape, for photos too long and thin, and for a crop larger than the photo.
        """
        if given := [name for name, value in kwargs.items() if value is not None]:
            raise TypeError(
                f"preprocess takes images and return_tensors, got {', '.join(given)}. Set sizes, "
                "interpolation, mean and std on loading: AutoImageProcessor.from_pretrained(…, "
                "resize_size=80, crop_size=80)"
            )
        self._check()
        batch = isinstance(images, torch.Tensor) and images.ndim == 4
        several = images if batch or isinstance(images, list | tuple) else [images]
        prepared = [self._one(image) for image in several]
        return BatchFeature({"pixel_values": prepared}, tensor_type=return_tensors)

    def _check(self) -> None:
        # Not on loading: transformers sets what is given there one by one.
        if not 1 <= self.crop_size <= self.resize_size:
            raise ValueError(
                f"crop_size: expected 1 to {self.resize_size}, the resize_size, got "
                f"{self.crop_size}. A larger crop would be padded with black"
            )
        if self.interpolation not in _RESAMPLING:
            raise ValueError(
                f"interpolation: expected one of {', '.join(_RESAMPLING)}, got "
                f"{self.interpolation!r}"
            )

    def _one(self, image: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        photo = self._resize_and_crop(_to_rgb(image))
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
        if size[0] * size[1] > _MAX_RESIZED_PIXELS:
            raise ValueError(f"too long and thin to resize: {width} × {height} pixels")
        if size != photo.size:
            photo = photo.resize(size, _RESAMPLING[self.interpolation])
        left = round((size[0] - self.crop_size) / 2.0)
        top = round((size[1] - self.crop_size) / 2.0)
        return photo.crop((left, top, left + self.crop_size, top + self.crop_size))


def _to_rgb(image: Any) -> Image.Image:
    """8 bits a channel, upright; what has no agreed range is refused rather than cut off."""
    if not isinstance(image, Image.Image):
        if isinstance(image, list | tuple):
            raise TypeError("expected one list of images, got a list within the list")
        array = _channels_last(image) if isinstance(image, torch.Tensor) else np.asarray(image)
        if array.dtype != np.uint8:
            hint = "; multiply values in [0, 1] by 255 first" if array.dtype.kind == "f" else ""
            raise TypeError(f"expected uint8 arrays (height, width, 3), got {array.dtype}{hint}")
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
            raise ValueError(
                f"expected images of shape (height, width, 3), got {array.shape}. Give channels "
                "last, and several images as a list"
            )
        gray = array.ndim == 3 and array.shape[2] == 1
        image = Image.fromarray(array[:, :, 0] if gray else array)
    image.load()  # Pillow turns a TIFF itself, no sooner than here
    turn = _UPRIGHT.get(_orientation(image))
    photo: Image.Image = image if turn is None else image.transpose(turn)
    if photo.mode == "F":
        raise ValueError("floating point pixels have no agreed range; save it as 8 or 16 bit")
    if photo.mode == "I" or photo.mode.startswith("I;16"):
        values = np.asarray(photo).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError("expected 16-bit values, 0 to 65535")
        photo = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # rounded
    return photo.convert("RGB")


def _channels_last(image: torch.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as arrays are: the channels last."""
    if image.dtype != torch.uint8:
        hint = "; multiply values in [0, 1] by 255 first" if image.is_floating_point() else ""
        raise TypeError(f"expected uint8 tensors (3, height, width), got {image.dtype}{hint}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] not in (1, 3, 4)):
        raise ValueError(
            f"expected tensors of shape (3, height, width), got {tuple(image.shape)}. Give "
            "channels first; arrays have them last"
        )
    channels_last = image.permute(1, 2, 0) if image.ndim == 3 else image
    return np.ascontiguousarray(channels_last.cpu().numpy())


def _orientation(image: Image.Image) -> Any:
    """The EXIF orientation; 1 where the tags are malformed, which hurts no pixel."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - of struct, of Pillow: whatever a malformed tag leads to
        return 1
