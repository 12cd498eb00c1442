"""Pixels of two images that show the same places, once it is known how one lies on the other.

Needs OpenCV, the extra ``jobs``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import require

Array = NDArray[np.float32]

_BLUR = 0.8  # pixels: what the map misses by, and compression, shall not count


def overlap(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    mirrored: bool,
) -> tuple[Array, Array]:
    """Bring b back onto a, and take what both show.

    Args:
        a: uint8 (height, width, 3), RGB.
        b: uint8 (height, width, 3).
        matrix: float64 (2, 3), the affine map from b to a, mirrored if it is; in pixels of larger
            images of the same.
        shapes: Height and width of those images.
        mirrored: Whether a is mirrored left to right before b is laid onto it.

    Returns:
        Two of float32 (N, 3), 0 to 255: the same N places in a and in b. The finer image is
        blurred to what the coarser one can show.
    """
    cv2 = require("cv2", "jobs")
    to_a, to_b = (_resizing(*pair) for pair in zip(shapes, (a.shape, b.shape), strict=True))
    whole = to_a @ np.vstack([matrix, [0.0, 0.0, 1.0]]) @ np.linalg.inv(to_b)
    small = np.ascontiguousarray(whole[:2])
    size = math.sqrt(abs(float(np.linalg.det(small[:, :2]))))  # of b's pixels in a
    a = np.ascontiguousarray(a[:, ::-1]) if mirrored else a
    first, second = (
        cv2.GaussianBlur(x.astype(np.float32), (0, 0), sigma)
        for x, sigma in ((a, max(_BLUR, _BLUR * size)), (b, max(_BLUR, _BLUR / max(size, 1e-3))))
    )
    height, width = a.shape[:2]
    back = cv2.warpAffine(second, small, (width, height), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones(b.shape[:2], np.uint8), small, (width, height), flags=0)
    shown = cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1) > 0
    return first[shown], back[shown]


def _resizing(large: tuple[int, ...], small: tuple[int, ...]) -> NDArray[np.float64]:
    """The map from an image's pixels to those of a smaller one; middles have whole numbers."""
    y, x = (after / before for before, after in zip(large[:2], small[:2], strict=True))
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
