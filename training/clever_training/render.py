"""Apply a view's parameters to a photo: fast, or exactly as published.

``fast`` is OpenCV: crop, flip and rotation are one affine map and so one resampling; a photo that
shrinks is first averaged down to about the view's resolution, as Pillow's antialiasing does. The
whole colour jitter is one affine map of RGB. It deviates from ``torchvision`` in two ways: hue
turns in YIQ instead of HSV, and the jitter's steps have one fixed order instead of a random one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from clever_training.views import Image, ViewParameters

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float64)
_RGB_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
_SOLARIZE_AT = 128


def render_fast(image: Image, view: ViewParameters, size: int) -> Image:
    """Render a view with OpenCV.

    Args:
        image: uint8 (height, width, 3), RGB.
        view: What to do.
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3). Pixels that a rotation brings in from outside the crop are black,
        as in crop-then-rotate.
    """
    result: Any = _warp(image, view, size)
    matrix = color_matrix(view, _mean_luma(result, view.brightness))
    if matrix is not None:
        result = cv2.transform(result, matrix)
    if view.blur > 0:
        result = cv2.GaussianBlur(result, (0, 0), view.blur)
    if view.solarize:
        result = np.where(result >= _SOLARIZE_AT, 255 - result, result)
    return np.asarray(result, dtype=np.uint8)


def render_torchvision(image: Image, view: ViewParameters, size: int) -> Image:
    """Render a view with the published pipeline: Pillow through torchvision.

    Args:
        image: uint8 (height, width, 3), RGB.
        view: What to do.
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    height, width = image.shape[:2]
    left, top, right, bottom = _pixels(view, width, height)
    photo = tvf.resized_crop(
        PilImage.fromarray(image),
        *(top, left, bottom - top, right - left),
        [size, size],
        InterpolationMode.BICUBIC,
    )
    photo = tvf.hflip(photo) if view.flip else photo
    photo = tvf.rotate(photo, view.angle) if view.angle else photo
    photo = tvf.adjust_brightness(photo, view.brightness)
    photo = tvf.adjust_contrast(photo, view.contrast)
    photo = tvf.adjust_saturation(photo, view.saturation)
    photo = tvf.adjust_hue(photo, view.hue)
    photo = tvf.rgb_to_grayscale(photo, num_output_channels=3) if view.grayscale else photo
    if view.blur > 0:
        reach = 2 * max(1, math.ceil(3 * view.blur)) + 1
        photo = tvf.gaussian_blur(photo, [reach, reach], [view.blur, view.blur])
    photo = tvf.solarize(photo, _SOLARIZE_AT) if view.solarize else photo
    return np.array(photo, dtype=np.uint8)


RENDERERS: dict[str, Callable[[Image, ViewParameters, int], Image]] = {
    "fast": render_fast,
    "torchvision": render_torchvision,
}


def color_matrix(view: ViewParameters, mean_luma: float) -> NDArray[np.float64] | None:
    """Brightness, contrast, saturation, hue and grayscale as one affine map of RGB.

    Args:
        view: The factors.
        mean_luma: Mean grey value of the image after brightness, in [0, 255]: what contrast
            leaves as it is.

    Returns:
        (3, 4), for ``cv2.transform``; None where nothing changes.
    """
    plain = (view.brightness, view.contrast, view.saturation, view.hue) == (1.0, 1.0, 1.0, 0.0)
    if plain and not view.grayscale:
        return None
    gray = np.tile(_LUMA, (3, 1))
    linear = np.eye(3) * view.brightness * view.contrast
    offset = np.full(3, (1 - view.contrast) * mean_luma)
    turn = 2 * math.pi * view.hue
    cos, sin = math.cos(turn), math.sin(turn)
    hue = _YIQ_TO_RGB @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ _RGB_TO_YIQ
    color = hue @ (np.eye(3) * view.saturation + gray * (1 - view.saturation))
    color = gray @ color if view.grayscale else color
    return np.column_stack([color @ linear, color @ offset])


def _mean_luma(image: Image, brightness: float) -> float:
    return min(255.0, float(_LUMA @ cv2.mean(image)[:3]) * brightness)


def _pixels(view: ViewParameters, width: int, height: int) -> tuple[int, int, int, int]:
    """The crop box in whole pixels: left, top, right, bottom."""
    left, top, box_width, box_height = view.box
    x, y = round(left * width), round(top * height)
    right = min(width, max(x + 1, round((left + box_width) * width)))
    bottom = min(height, max(y + 1, round((top + box_height) * height)))
    return x, y, right, bottom


def _warp(image: Image, view: ViewParameters, size: int) -> Image:
    """Crop, resize, flip and rotate."""
    left, top, right, bottom = _pixels(view, image.shape[1], image.shape[0])
    crop: Any = image[top:bottom, left:right]
    # Averaging first where the photo shrinks: a bicubic kernel alone would alias.
    shrunk = (min(crop.shape[1], size), min(crop.shape[0], size))
    if shrunk != (crop.shape[1], crop.shape[0]):
        crop = cv2.resize(crop, shrunk, interpolation=cv2.INTER_AREA)
    if view.angle == 0.0:
        if crop.shape[:2] != (size, size):
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(crop[:, ::-1] if view.flip else crop)
    return _rotate(crop, view, size)


def _rotate(crop: Image, view: ViewParameters, size: int) -> Image:
    """One affine map from the view's pixels to the crop's, black outside."""
    height, width = crop.shape[:2]
    angle = math.radians(view.angle)
    cos, sin = math.cos(angle), math.sin(angle)
    middle = (size - 1) / 2
    # View pixel → upright view, about its centre: counter-clockwise turns look clockwise back.
    back = np.array([[cos, -sin], [sin, cos]])
    mirror = np.diag([-1.0 if view.flip else 1.0, 1.0])
    scale = np.diag([width / size, height / size])
    linear = scale @ mirror @ back
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - linear @ np.array([middle, middle])
    return np.asarray(
        cv2.warpAffine(
            crop,
            np.column_stack([linear, offset]),
            (size, size),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        ),
        dtype=np.uint8,
    )
