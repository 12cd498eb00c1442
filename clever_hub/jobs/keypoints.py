"""What is kept of an image to lay others onto it: keypoints, greys, and a few colours.

SIFT, Lowe, IJCV 2004. Needs OpenCV, the extra ``jobs``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import require
from clever_hub.images.opening import ImageSource, load_image

SIDE = 192  # pixels; root of the working image's area
KEYPOINTS = 256
_COLOR_PART = 3  # times as long are the working image's sides as those of its colours
_COLOURED = (8, 0.01)  # of 255, between the channels of a pixel; and share of the pixels


class Keypoints(NamedTuple):
    """What is kept of an image to compare it with others: 80 kB.

    Attributes:
        gray: uint8 (height, width), the working image, of about ``SIDE``² pixels.
        points: float32 (K, 2), x and y in it.
        descriptors: uint8 (K, 128), SIFT's.
        coloured: Whether the image has colours; False of one in shades of grey.
        colors: uint8 (height / 3, width / 3, 3), RGB.
    """

    gray: NDArray[np.uint8]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    coloured: bool
    colors: NDArray[np.uint8]


def keypoints(image: ImageSource) -> Keypoints:
    """Keypoints of an image.

    Args:
        image: Anything that ``load_image`` takes.

    Returns:
        At most ``KEYPOINTS`` of them, the most distinct.

    Raises:
        ImageError: When it cannot be read.
        MissingExtraError: When OpenCV is not installed.
    """
    cv2 = require("cv2", "jobs")
    whole = load_image(image, target=SIDE, decode="reduced")
    coloured, photo = _is_coloured(whole), whole.convert("L")
    scale = SIDE / math.sqrt(photo.width * photo.height)
    size = (max(16, round(side * scale)) for side in photo.size)
    # No copy is stretched to 12 times another side's length; a strip of paper is compared as such.
    width, height = (min(side, 12 * SIDE) for side in size)
    gray = np.asarray(photo.resize((width, height)))
    part = round(width / _COLOR_PART), round(height / _COLOR_PART)
    colors = np.asarray(whole.resize(part, Image.Resampling.BOX))
    # Contrast far below OpenCV's default: a dark copy has the same keypoints.
    sift: Any = cv2.SIFT_create(nfeatures=KEYPOINTS, contrastThreshold=0.01)
    found, descriptors = sift.detectAndCompute(gray, None)
    if descriptors is None:
        none = np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8)
        return Keypoints(gray, *none, coloured, colors)
    points = np.array([point.pt for point in found], np.float32)
    return Keypoints(gray, points, descriptors.astype(np.uint8), coloured, colors)


def _is_coloured(photo: Image.Image) -> bool:
    """By some of its pixels. Copies in grey are stored as RGB as often as not."""
    some = np.asarray(photo.resize((64, 64), Image.Resampling.NEAREST), np.int16)
    difference, share = _COLOURED
    return bool((some.max(axis=2) - some.min(axis=2) > difference).mean() > share)
