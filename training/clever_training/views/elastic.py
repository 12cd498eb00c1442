"""Elastic displacement fields, generated at a low resolution.

torchvision's ElasticTransform draws white noise for every pixel and blurs it with a wide kernel.
The result has no detail below the kernel's width, and takes longer than the rest of the
augmentation together. Here the noise is drawn for cells of about 0.8 σ and blurred, and the field
is interpolated. The distribution is the same up to 1 %: standard deviation, smoothness, and the
larger values at the edges, where the noise is mirrored. The individual values differ.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
# At 0.8 σ less than a millionth of the field's power is beyond the grid's resolution.
_CELL = 0.8


def elastic_field(alpha: float, sigma: float, seed: int, size: int) -> Field:
    """The displacements of an elastic distortion.

    Args:
        alpha: Strength, as torchvision's: the noise is uniform in ±α/2 pixels before the blur.
        sigma: Standard deviation of the blur, in pixels, more than 0.
        seed: Seed of the noise; the field is a pure function of it and the other arguments.
        size: Side of the view, in pixels.

    Returns:
        float32 (size, size, 2): the displacement of the point that each pixel shows, in pixels to
        the right and down.

    Example:
        >>> field = elastic_field(100.0, 5.0, 0, 224)
        >>> field.shape, round(float(np.abs(field).mean()), 1)
        ((224, 224, 2), 1.4)
    """
    cells = min(size, math.ceil(size / (_CELL * sigma)))
    cell = size / cells
    noise = np.random.default_rng(seed).random((cells, cells, 2), dtype=np.float32)
    # A cell stands for cell² pixels; their mean has 1/cell of a pixel's standard deviation.
    noise -= np.float32(0.5)
    noise *= np.float32(alpha / cell)
    kernel = _kernel(sigma / cell)
    blurred = cv2.sepFilter2D(noise, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    if cells != size:
        blurred = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(blurred, dtype=np.float32)


@cache
def _kernel(sigma: float) -> NDArray[np.float32]:
    """A Gaussian out to 4 σ, as torchvision's."""
    reach = math.ceil(4 * sigma)
    values = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(values / values.sum(), dtype=np.float32)
