"""How well a mask fits another: region similarity J, boundary accuracy F, intersection over union.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR
2016, section 5; the tolerance and the empty cases are those of DAVIS's own evaluation.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

# Of the image's diagonal: how far a boundary pixel may be from the true boundary.
TOLERANCE = 0.008


def region_similarity(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """J: intersection over union of two masks.

    Args:
        predicted: bool (height, width).
        truth: bool (height, width).

    Returns:
        In [0, 1]; 1 where both are empty.

    Example:
        >>> region_similarity(np.array([[True, True]]), np.array([[True, False]]))
        0.5
    """
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def boundary_accuracy(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], tolerance: float = TOLERANCE
) -> float:
    """F: harmonic mean of precision and recall of a mask's boundary pixels.

    A predicted boundary pixel is right where a true one is no farther than the tolerance, rounded
    up to whole pixels; a true one is found where a predicted one is.

    Args:
        predicted: bool (height, width).
        truth: bool (height, width).
        tolerance: As a share of the diagonal; 1 and more are pixels.

    Returns:
        In [0, 1]; 1 where neither has a boundary, 0 where only one has.

    Example:
        >>> mask = np.zeros((8, 8), dtype=bool)
        >>> mask[2:6, 2:6] = True
        >>> boundary_accuracy(mask, mask)
        1.0
    """
    ours, theirs = mask_boundary(predicted), mask_boundary(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    reach = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    pixels = float(reach)
    precision = np.count_nonzero(ours & _widened(theirs, pixels)) / np.count_nonzero(ours)
    recall = np.count_nonzero(theirs & _widened(ours, pixels)) / np.count_nonzero(theirs)
    both = precision + recall
    return float(2 * precision * recall / both) if both else 0.0


def mask_boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that differ from their right, lower or lower right neighbour.

    Args:
        mask: bool (height, width).

    Returns:
        bool (height, width). Beyond the last row and column the mask goes on as it ends.

    Example:
        >>> mask_boundary(np.array([[False, True, True]])).tolist()
        [[True, False, False]]
    """
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here: NDArray[np.bool_] = wide[:-1, :-1]
    return (here ^ wide[:-1, 1:]) | (here ^ wide[1:, :-1]) | (here ^ wide[1:, 1:])


def _widened(boundary: NDArray[np.bool_], pixels: float) -> NDArray[np.bool_]:
    """All pixels no farther than so many from one of the boundary."""
    reach = int(pixels)
    rows, columns = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = (rows * rows + columns * columns <= pixels * pixels).astype(np.uint8)
    wide: NDArray[np.uint8] = np.asarray(cv2.dilate(boundary.astype(np.uint8), disc))
    return wide.astype(bool)
