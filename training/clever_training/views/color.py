"""The colours of a view: jitter as one affine map of RGB, blur and solarisation."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clever_training.views.decode import Image
from clever_training.views.parameters import ViewParameters

# ImageNet's mean colour: what is outside the disc, close to zero once it is normalised.
GREY = (124, 116, 104)
SOLARIZE_AT = 128
_BELOW_BRIGHT: Any = SOLARIZE_AT - 1
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float64)
_GRAY = np.tile(_LUMA, (3, 1))
_RGB_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
# A rotation of I and Q by an angle, split into a constant part and parts that go with cos and sin.
_HUE_STAYS, _HUE_COS, _HUE_SIN = (
    _YIQ_TO_RGB @ np.array(turn, dtype=np.float64) @ _RGB_TO_YIQ
    for turn in (
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 1], [0, -1, 0]],
    )
)
# Larger views are blurred in a way that is twice as fast and differs by 1 in a few pixels. Small
# views keep the exact way, so that older runs resume bit for bit.
_SMALL_VIEW = 64
_NO_BLUR = 0.25  # its weights beside the middle round to 0


def color_matrix(view: ViewParameters, mean_luma: float) -> NDArray[np.float64] | None:
    """Brightness, contrast, saturation, hue and grayscale as one affine map of RGB.

    It differs from torchvision: hue rotates in YIQ instead of HSV, the steps have the order of the
    names above instead of a random one, and values are not clipped to 0 to 255 between steps.

    Args:
        view: The factors.
        mean_luma: Mean grey value of the image after brightness, in [0, 255]; contrast does not
            change this value.

    Returns:
        (3, 4), for ``cv2.transform``; None when nothing changes.
    """
    plain = (view.brightness, view.contrast, view.saturation, view.hue) == (1.0, 1.0, 1.0, 0.0)
    if plain and not view.grayscale:
        return None
    turn = 2 * math.pi * view.hue
    # Every step maps grey to grey, so each is a mix of grey and rotated colours.
    color = _GRAY
    if not view.grayscale:
        turned = _HUE_STAYS + math.cos(turn) * _HUE_COS + math.sin(turn) * _HUE_SIN
        color = view.saturation * turned + (1 - view.saturation) * _GRAY
    matrix = np.empty((3, 4))
    matrix[:, :3] = view.brightness * view.contrast * color
    matrix[:, 3] = (1 - view.contrast) * mean_luma
    return matrix


def paint(image: Image, view: ViewParameters) -> Image:
    """Apply all that is not geometry: colours, then blur, then solarisation, and the disc.

    Args:
        image: uint8 (size, size, 3), RGB.
        view: The parameters.

    Returns:
        uint8 (size, size, 3).
    """
    result: Any = image
    matrix = color_matrix(view, min(255.0, _mean_luma(image) * view.brightness))
    if matrix is not None:
        result = cv2.transform(result, matrix)
    if view.blur > _NO_BLUR:
        result = _blurred(result, view.blur)
    if view.solarize:
        bright = cv2.compare(result, _BELOW_BRIGHT, cv2.CMP_GT)
        result = cv2.bitwise_xor(result, bright)  # x ^ 255 is 255 - x
    if view.disc:
        result = np.where(disc_mask(image.shape[0])[..., None], result, np.asarray(GREY, np.uint8))
    return np.asarray(result, dtype=np.uint8)


@cache
def disc_mask(size: int) -> NDArray[np.bool_]:
    """The disc inside a square view, a pixel away from its sides.

    Args:
        size: Side in pixels.

    Returns:
        (size, size), True inside.
    """
    place = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(place, place[:, None]) <= size / 2 - 1)


def _blurred(image: Any, sigma: float) -> Any:
    if image.shape[0] <= _SMALL_VIEW:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    kernel = cv2.getGaussianKernel(round(6 * sigma) | 1, sigma)
    return cv2.sepFilter2D(image, -1, kernel, kernel)


def _mean_luma(image: Image) -> float:
    red, green, blue, _ = cv2.mean(image)
    return 0.299 * red + 0.587 * green + 0.114 * blue
