"""Relations measured on the pixels: where keypoints match, b is laid onto a, and says all exactly.

A model's heads estimate how b is made from a. With both images at hand there is a better witness:
``clever_hub.jobs.alignment``. What it measures takes the place of the estimates of the angle, the
mirroring, zoom, shift and colours, and speaks for or against the same photo.

How far that can be trusted was measured on 1,900 pairs made of ImageNet photos: turned by any
angle, mirrored, cropped to 30 to 100 % of the area, recoloured, recompressed; and on 4,000 pairs of
different photos. docs/jobs/relate.md says how far it holds on others.

Needs OpenCV, the extra ``jobs``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clever_hub.config import PreprocessingConfig
from clever_hub.errors import require
from clever_hub.images.opening import ImageSource, load_image
from clever_hub.jobs.alignment import Alignment
from clever_hub.jobs.heads import Array
from clever_hub.jobs.keypoints import SIDE, Keypoints, keypoints
from clever_hub.jobs.pairs import Progress
from clever_hub.jobs.recolouring import UNKNOWN
from clever_hub.jobs.relation import Relations
from clever_hub.jobs.verifying import CACHED, PixelVerifier

# What two thirds of the errors stay below, by the number of keypoints that agree.
_INLIERS = (8.0, 16.0, 30.0, 60.0, 120.0)
_DEGREES = (0.5, 0.2, 0.15, 0.08, 0.03)
_ZOOM_ERROR = 0.005  # octaves
_SHIFT_ERROR = 0.005  # of the side
_WRONG_MIRRORING = 0.001
# By how much the odds of the same photo change. Of pairs of different photos fewer than one in a
# thousand can be aligned; of pairs of the same photo all but a few in a hundred can.
_ALIGNED, _NOT_ALIGNED = 1000.0, 1 / 20
_TELLING = 32  # keypoints in both images; with fewer, that they do not match says nothing


_NONE = Alignment(False)


def can_measure() -> bool:
    """Whether OpenCV is installed."""
    return importlib.util.find_spec("cv2") is not None


def check_measurable() -> None:
    """Say at once what is missing.

    Raises:
        MissingExtraError: When OpenCV is not installed.
    """
    require("cv2", "jobs")


def keypoints_as_seen(image: ImageSource, preprocessing: PreprocessingConfig) -> Keypoints:
    """Keypoints of the middle square of an image, which is what the model sees.

    Args:
        image: Anything that ``load_image`` takes.
        preprocessing: The model's.

    Returns:
        The keypoints.

    Raises:
        ImageError: When it cannot be read.
        MissingExtraError: When OpenCV is not installed.
    """
    share = preprocessing.crop_size / preprocessing.resize_size
    photo = load_image(image, target=round(SIDE / share), decode="reduced")
    side = max(1, round(min(photo.size) * share))
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return keypoints(photo.crop((left, top, left + side, top + side)))


def aligner(
    images: Sequence[ImageSource],
    preprocessing: PreprocessingConfig,
    *,
    progress: Progress | None = None,
    cached: int = CACHED,
) -> PixelVerifier:
    """Lays the middle squares of pairs of images one onto the other.

    Args:
        images: Of each row.
        preprocessing: The model's.
        progress: Called with the pairs that are done, and how many there are.
        cached: How many images' keypoints are kept in memory, of 80 kB each; others on disk.

    Returns:
        Takes rows of the first and of the second images.

    Raises:
        MissingExtraError: When OpenCV is not installed.
    """
    read = partial(keypoints_as_seen, preprocessing=preprocessing)
    return PixelVerifier(images, progress=progress, cached=cached, read=read, differences=True)


def measured(
    relations: Relations, alignments: Sequence[Alignment | None], *, given_same: bool = False
) -> Relations:
    """Put what was measured on the pixels in the place of the model's estimates.

    Args:
        relations: Of N pairs, by the model, with ``given_same=True``.
        alignments: Of the same pairs; None where there is none.
        given_same: As for ``relate``.

    Returns:
        The relations: measured where the images could be aligned, else the model's.
    """
    found = [one if one is not None and one.same else _NONE for one in alignments]
    aligned = np.array([one.same for one in found])

    def put(estimate: Array, measure: NDArray[Any] | float) -> Array:
        mask = aligned if estimate.ndim == 1 else aligned[:, None]
        return np.where(mask, measure, estimate).astype(np.float32)

    def of(name: str) -> NDArray[np.float64]:
        return np.array([getattr(one, name) for one in found], np.float64)

    chance = np.where(of("mirrored") > 0, 1 - _WRONG_MIRRORING, _WRONG_MIRRORING)
    same = _same(relations.same, alignments)
    measures, errors, beyond_heads = _colors(alignments)
    # One in grey has no saturation and no hue, wherever it lies on the other.
    grey = (measures[:, 2] == 0)[:, None] & np.array([False, False, True, True])
    told = aligned[:, None] | grey | beyond_heads
    result = replace(
        relations,
        same=same,
        angle=put(relations.angle, of("angle")),
        angle_error=put(relations.angle_error, np.interp(of("inliers"), _INLIERS, _DEGREES)),
        mirrored_probability=put(relations.mirrored_probability, chance),
        zoom=put(relations.zoom, of("zoom")),
        zoom_error=put(relations.zoom_error, _ZOOM_ERROR),
        colors=np.where(told, measures, relations.colors).astype(np.float32),
        colors_error=np.where(told, errors, relations.colors_error).astype(np.float32),
        stretch=put(relations.stretch, of("stretch")),
        recolored=put(relations.recolored, np.array([one.recolouring.otherwise for one in found])),
        shift=put(relations.shift, of("shift")),
        shift_error=put(relations.shift_error, _SHIFT_ERROR),
        by_pixels=aligned,
    )
    return result if given_same else result.hidden(same < 0.5)


def _colors(alignments: Sequence[Alignment | None]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """What was measured of the colours, its errors, and which the heads cannot know, each (N, 4).

    Of the first two, float32, NaN is unknown.
    """
    told = [one.recolouring if one is not None else UNKNOWN for one in alignments]
    both = np.array([[one.colors, one.errors] for one in told], np.float64).reshape(-1, 2, 4)
    beyond = np.array([one.beyond for one in told], bool).reshape(-1, 4)
    return both[:, 0].astype(np.float32), both[:, 1].astype(np.float32), beyond


def _same(same: Array, alignments: Sequence[Alignment | None]) -> Array:
    """The probability, after what the alignment says."""
    factors = np.array([_evidence(one) for one in alignments])
    odds = factors * same / np.maximum(1 - same.astype(np.float64), 1e-9)
    return np.asarray(odds / (1 + odds), np.float32)


def _evidence(alignment: Alignment | None) -> float:
    if alignment is None:
        return 1.0
    if alignment.same:
        return _ALIGNED
    return _NOT_ALIGNED if alignment.keypoints >= _TELLING else 1.0
