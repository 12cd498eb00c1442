"""What two images rule out as a whole, where it is not known how one lies on the other.

A model's heads know changes of colour as those of training: factors of up to about 2, hues of up to
60 degrees. To anything beyond they give an answer as well, a wrong one.

Needs OpenCV, the extra ``jobs``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clever_hub.jobs.recolouring import (
    LEAST_CHROMA,
    LUMA,
    UNKNOWN,
    Array,
    Recolouring,
    chroma_of,
    hsv_of,
    spread,
)
from clever_hub.jobs.relation import Colors

_NO_CHROMA = 1.0  # of 255, of an image in grey
# Factors between views of training reach 2.3; another half for what a crop alone changes.
_MOST_FACTOR = 3.5
_MOST_HUE = 60  # degrees
_CLEARLY = 1.5  # times as well as within these degrees two palettes must fit beyond them
_BIN = 10  # degrees


def compare_palettes(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Recolouring:
    """Compare the colours of two images as a whole.

    Args:
        a: uint8 (height, width, 3), RGB.
        b: uint8 (height, width, 3), of any size.

    Returns:
        A saturation of 0 where b is in grey and a is not; all else is unknown. ``beyond`` tells
        which values no head can know.

    Example:
        >>> blue = np.full((9, 9, 3), (20, 40, 200), np.uint8)
        >>> compare_palettes(blue, np.full((9, 9, 3), 80, np.uint8)).colors.saturation
        0.0
    """
    first, second = (x.reshape(-1, 3).astype(np.float32) for x in (a, b))
    of_a, of_b = (spread(chroma_of(x)) for x in (first, second))
    grey_a, grey_b = of_a < LEAST_CHROMA, of_b < LEAST_CHROMA
    if not grey_a and of_b < _NO_CHROMA:
        return UNKNOWN._replace(colors=Colors(None, None, 0.0, None))
    light_a, light_b = (max(float((x @ LUMA).mean()), 1.0) for x in (first, second))
    depth_a, depth_b = (max(float((x @ LUMA).std()), 1.0) for x in (first, second))
    brightness, depth = light_b / light_a, depth_b / depth_a
    grey = grey_a or grey_b
    return UNKNOWN._replace(
        beyond=(
            _far(brightness),
            _far(depth / brightness),
            grey or _far(of_b / of_a / depth),
            grey or _hue_is_far(first, second),
        )
    )


def _far(factor: float) -> bool:
    return not 1 / _MOST_FACTOR < factor < _MOST_FACTOR


def _hue_is_far(a: Array, b: Array) -> bool:
    """Whether the hues of both fit clearly better when turned by more than heads know."""
    one, other = _hues(a), _hues(b)
    turns = np.arange(len(one))
    fits = np.array([one @ np.roll(other, -turn) for turn in turns])
    degrees = np.minimum(turns, len(turns) - turns) * _BIN
    near = degrees <= _MOST_HUE
    return bool(fits[~near].max() > _CLEARLY * fits[near].max())


def _hues(pixels: Array) -> NDArray[np.float64]:
    """How much there is of each hue, blurred by a bin."""
    places = (hsv_of(pixels)[:, 0] % 360 // _BIN).astype(int)
    counts = np.bincount(places, np.ptp(pixels, axis=1), 360 // _BIN)
    return counts + 0.5 * (np.roll(counts, 1) + np.roll(counts, -1))
