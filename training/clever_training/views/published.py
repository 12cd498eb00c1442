"""Views by the published pipeline: torchvision's operations on Pillow images, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from PIL import ImageFilter
from torchvision.transforms import ElasticTransform, InterpolationMode
from torchvision.transforms import functional as tvf

from clever_training.views.color import SOLARIZE_AT
from clever_training.views.decode import Image
from clever_training.views.parameters import ViewParameters


class PublishedRenderer:
    """Renders views of one photo with the published pipeline.

    The operations are RandomResizedCrop (bicubic), flip, RandomRotation (nearest pixel, black
    corners), ElasticTransform (linear), ColorJitter in its random order, grayscale, Pillow's
    Gaussian blur, and solarisation. They are torchvision's and Pillow's own functions, called with
    the parameters that were drawn.

    Args:
        image: uint8 (height, width, 3), RGB.
    """

    def __init__(self, image: Image) -> None:
        self.photo = PilImage.fromarray(image)

    def __call__(self, view: ViewParameters, size: int) -> Image:
        """One view.

        Args:
            view: The parameters.
            size: Side of the view, in pixels.

        Returns:
            uint8 (size, size, 3).
        """
        photo = self._crop(view, size)
        photo = tvf.hflip(photo) if view.flip else photo
        photo = tvf.rotate(photo, view.angle) if view.angle else photo
        photo = _distort(photo, view, size) if view.elastic_alpha else photo
        photo = _jitter(photo, view)
        photo = tvf.rgb_to_grayscale(photo, num_output_channels=3) if view.grayscale else photo
        photo = photo.filter(ImageFilter.GaussianBlur(view.blur)) if view.blur else photo
        photo = tvf.solarize(photo, SOLARIZE_AT) if view.solarize else photo
        return np.array(photo, dtype=np.uint8)

    def _crop(self, view: ViewParameters, size: int) -> Any:
        width, height = self.photo.size
        left, top, box_width, box_height = view.box
        x, y = round(left * width), round(top * height)
        right = min(width, max(x + 1, round((left + box_width) * width)))
        bottom = min(height, max(y + 1, round((top + box_height) * height)))
        box = (y, x, bottom - y, right - x)
        return tvf.resized_crop(self.photo, *box, [size, size], InterpolationMode.BICUBIC)


def displacement(alpha: float, sigma: float, seed: int, size: int) -> torch.Tensor:
    """The elastic field of torchvision, as a pure function of a seed.

    Args:
        alpha: Strength.
        sigma: Smoothness in pixels.
        seed: Seed of the noise.
        size: Side of the view, in pixels.

    Returns:
        float32 (1, size, size, 2), in halves of the view's side, for ``elastic_transform``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = ElasticTransform.get_params([alpha, alpha], [sigma, sigma], [size, size])
    return torch.as_tensor(field)


def _distort(photo: Any, view: ViewParameters, size: int) -> Any:
    field = displacement(view.elastic_alpha, view.elastic_sigma, view.elastic_seed, size)
    return tvf.elastic_transform(photo, field, InterpolationMode.BILINEAR, 0)


def _jitter(photo: Any, view: ViewParameters) -> Any:
    factors = (view.brightness, view.contrast, view.saturation, view.hue)
    if factors == (1.0, 1.0, 1.0, 0.0):
        return photo
    adjust = (tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue)
    for step in view.jitter_order:
        photo = adjust[step](photo, factors[step])
    return photo
