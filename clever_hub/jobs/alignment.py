"""Whether two images show the same photo, by aligning one to the other.

Keypoints of both (SIFT, Lowe, IJCV 2004, with the square roots of its descriptors: "RootSIFT",
Arandjelović & Zisserman, CVPR 2012) are matched, an affine map is fitted to the matches by RANSAC,
b is brought back onto a by it, and the pixels are compared. Works however a
copy is turned, mirrored, cropped, framed or recoloured, and says exactly what was done. What it
cannot do is find the copy among a million photos: that is what embeddings are for.

Needs OpenCV, the extra ``jobs``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import require
from clever_hub.jobs.keypoints import Keypoints
from clever_hub.jobs.overlap import overlap
from clever_hub.jobs.palettes import compare_palettes
from clever_hub.jobs.recolouring import UNKNOWN, Recolouring, compare_colors
from clever_hub.jobs.relation import LEAST_STRETCH

LEAST_INLIERS = 8
LEAST_AGREEMENT = 0.42
# Few matches must be borne out by nearly all of the picture; many by less than half of it, since a
# copy that was cut out, turned and framed shows much besides.
LEAST_EVIDENCE = 7.0  # inliers times agreement
_RATIO = 0.75  # Lowe's: of the distances to the best and to the second best match
_REPROJECTION = 4.0  # pixels of the working image
_WINDOW = 15  # pixels, of the correlation around each pixel
_ALIKE = 0.6  # correlation
_LEAST_DEVIATION = 4.0  # of 255; where both have less, there is nothing to compare
_LEAST_SEEN = 0.02  # share of a's area that can be compared
_ROUNDING, _COLOR_ROUNDING = 3, 12  # of 255; JPEG keeps colours less exactly
_FLAT = (6, 0.97)  # of 255, from the median; and share of the pixels
_MAX_STRETCH = 2.5  # of one axis against the other; more is no copy that anyone makes
# Counter-clockwise mirror images of SIFT's 8 directions, and its 4 rows upside down.
_MIRRORED_DIRECTIONS = (-np.arange(8)) % 8


@dataclass(frozen=True)
class Alignment:
    """How b lies on a, measured on the pixels. To make b of a: mirror it, turn it, cut, enlarge.

    Attributes:
        same: Whether they show the same photo.
        inliers: Matched keypoints that agree with one affine map.
        agreement: Share of the common area in which both look alike, in [0, 1].
        mirrored: Whether b is mirrored left to right.
        angle: Degrees counter-clockwise from a to b, in (-180, 180].
        zoom: How much larger things are in b; 2 shows half of a's width.
        shift: Where b's centre lies in a, right and down of a's centre, as shares of a's side.
        shown: Share of a's area that b shows.
        own: Share of b's area that is not of a: a frame, corners.
        keypoints: How many there are in the image that has fewer: whether there was much to match.
        grey: Whether a, and whether b is in shades of grey.
        corners: Share of a that are corners of one colour which b does not show, and share of b
            that are such corners and not of a: what turning a picture leaves empty.
        stretch: How much longer one axis of b became than the one across it; 1 is not stretched.
        recolouring: How its colours differ; where the photos are different, or cannot be laid onto
            each other, only what both as a whole rule out.
    """

    same: bool
    inliers: int = 0
    agreement: float = 0.0
    mirrored: bool = False
    angle: float = math.nan
    zoom: float = math.nan
    shift: tuple[float, float] = (math.nan, math.nan)
    shown: float = math.nan
    own: float = math.nan
    keypoints: int = 0
    grey: tuple[bool, bool] = (False, False)
    corners: tuple[float, float] = (0.0, 0.0)
    stretch: float = 1.0
    recolouring: Recolouring = UNKNOWN

    def words(self) -> str:
        """What was done to a, such as ``"mirrored, turned by 90° clockwise, cropped to 60 %"``.

        Example:
            >>> Alignment(True, 90, 0.98, True, -90.2, 1.3, (0.0, 0.1), 0.6, 0.0).words()
            'mirrored, turned by 90° clockwise, cropped to 60 %'
            >>> Alignment(True, angle=0, shown=1.0, own=0.0, stretch=1.8).words()
            'stretched'
        """
        if not self.same:
            return "different photos"
        return ", ".join(self._deeds()) or "the same picture"

    def _deeds(self) -> list[str]:
        deeds = []
        upside_down = self.mirrored and abs(self.angle) > 178
        if upside_down:
            deeds.append("flipped upside down")
        elif self.mirrored:
            deeds.append("mirrored")
        if abs(self.angle) >= 1 and not upside_down:
            way = "counter-clockwise" if self.angle > 0 else "clockwise"
            half = abs(self.angle) > 179
            deeds.append("turned by 180°" if half else f"turned by {abs(self.angle):.0f}° {way}")
        if self.shown < 0.95:
            deeds.append(f"cropped to {self.shown:.0%}".replace("%", " %"))
        if self.own > 0.08:
            deeds.append(f"{self.own:.0%} of it is not in the first".replace("%", " %"))
        if self.stretch >= LEAST_STRETCH:
            deeds.append("stretched")
        return deeds + self.recolouring.words()


_DIFFERENT = Alignment(False)  # millions of pairs may share it


def align(a: Keypoints, b: Keypoints, *, differences: bool = True) -> Alignment:
    """Lay b onto a, as it is and mirrored, and compare.

    Args:
        a: Keypoints of an image.
        b: Of another.
        differences: Of different photos say, too, what was found: inliers, keypoints, and what
            their colours rule out. That takes more than half of the time; False gives one and the
            same verdict for all of them.

    Returns:
        The better of the two; ``same`` is False where neither fits.

    Example:
        >>> photo = keypoints("photo.jpg")  # doctest: +SKIP
        >>> align(photo, keypoints("turned.jpg")).words()  # doctest: +SKIP
        'turned by 90° counter-clockwise'
    """
    fewer, grey = min(len(a.points), len(b.points)), (not a.coloured, not b.coloured)
    if _equal(a, b):
        same = Alignment(True, len(a.points), 1.0, False, 0.0, 1.0, (0.0, 0.0), 1.0, 0.0)
        recolouring = _recolouring(a, b, np.eye(3)[:2], False)
        return replace(same, keypoints=fewer, grey=grey, recolouring=recolouring)
    unit_a, unit_b = _root(a.descriptors), _root(b.descriptors)
    found = [Alignment(False)]
    for mirrored in (False, True):
        matches = _matches(_mirror(unit_a) if mirrored else unit_a, unit_b)
        if len(matches[0]) >= LEAST_INLIERS:
            found.append(_fit(a, b, *matches, mirrored))
    best = max(found, key=lambda one: (one.same, one.inliers))
    if not best.same:
        if not differences:
            return _DIFFERENT
        best = replace(best, recolouring=compare_palettes(a.colors, b.colors))
    return replace(best, keypoints=fewer, grey=grey)


def _equal(a: Keypoints, b: Keypoints) -> bool:
    """The same greys but for rounding: a blank page has no keypoints, but it has copies.

    Where nothing is to be seen in them, such as of red and of green paper, the colours decide.
    """
    if a.gray.shape != b.gray.shape or _farthest(a.gray, b.gray) > _ROUNDING:
        return False
    return a.gray.std() > _LEAST_DEVIATION or _farthest(a.colors, b.colors) <= _COLOR_ROUNDING


def _farthest(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(np.int16) - b).max())


def _recolouring(
    a: Keypoints, b: Keypoints, matrix: NDArray[np.float64], mirrored: bool
) -> Recolouring:
    """Compare the colours of what both show."""
    shapes = a.gray.shape, b.gray.shape
    pixels = overlap(a.colors, b.colors, matrix, shapes, mirrored)
    return compare_colors(*pixels, float(a.gray.mean()))


def _root(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RootSIFT: unit vectors whose products are Hellinger's kernel of the histograms."""
    histograms = descriptors.astype(np.float32)
    unit: NDArray[np.float32] = np.sqrt(
        histograms / np.maximum(histograms.sum(1, keepdims=True), 1)
    )
    return unit


def _mirror(unit: NDArray[np.float32]) -> NDArray[np.float32]:
    """Descriptors of the mirrored image, by moving their bins; the keypoints stay the same ones."""
    bins = unit.reshape(-1, 4, 4, 8)  # rows and columns along the keypoint's direction, directions
    return bins[:, ::-1][..., _MIRRORED_DIRECTIONS].reshape(-1, 128)


def _matches(
    unit_a: NDArray[np.float32], unit_b: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of a and of b that are much nearer to each other than a is to any other."""
    if len(unit_a) < LEAST_INLIERS or len(unit_b) < LEAST_INLIERS:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    cosine = unit_a @ unit_b.T
    rows, best = np.arange(len(cosine)), cosine.argmax(1)
    nearest = cosine[rows, best]
    cosine[rows, best] = -1
    distinct = 1 - nearest < _RATIO**2 * (1 - cosine.max(1))  # squared distances are 2 − 2·cosine
    return rows[distinct], best[distinct]


def _fit(
    a: Keypoints,
    b: Keypoints,
    rows_a: NDArray[np.intp],
    rows_b: NDArray[np.intp],
    mirrored: bool,
) -> Alignment:
    """Fit an affine map from b to a (mirrored, if it is), and compare the pixels."""
    cv2 = require("cv2", "jobs")
    gray = np.ascontiguousarray(a.gray[:, ::-1]) if mirrored else a.gray
    points_a, points_b = a.points[rows_a].copy(), b.points[rows_b]
    if mirrored:
        points_a[:, 0] = a.gray.shape[1] - 1 - points_a[:, 0]
    matrix, inlier = cv2.estimateAffine2D(
        points_b, points_a, ransacReprojThreshold=_REPROJECTION, maxIters=500, confidence=0.99
    )
    if matrix is None or not np.isfinite(matrix).all():
        return Alignment(False)
    kept = inlier.ravel().astype(bool)
    stretch = np.linalg.svd(matrix[:, :2], compute_uv=False)
    fits = np.linalg.det(matrix[:, :2]) > 0 and stretch[0] < _MAX_STRETCH * stretch[1]
    if kept.sum() < LEAST_INLIERS or not fits:
        return Alignment(False, int(kept.sum()))
    agreement = _agreement(gray, b.gray, matrix)
    inliers = int(kept.sum())
    same = agreement >= LEAST_AGREEMENT and inliers * agreement >= LEAST_EVIDENCE
    found = _described(same, inliers, agreement, mirrored, matrix, gray.shape, b.gray.shape)
    if not same:
        return found
    return replace(
        found,
        corners=_corners(gray, b.gray, matrix),
        stretch=float(stretch[0] / stretch[1]),
        recolouring=_recolouring(a, b, matrix, mirrored),
    )


def _agreement(
    gray_a: NDArray[np.uint8], gray_b: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> float:
    """Share of the common area, where there is something to see, in which both look alike.

    b is brought back onto a, and the correlation taken in a window around each pixel. The matches
    alone would not do: two screenshots of one telephone have their bars and buttons in common.
    """
    cv2 = require("cv2", "jobs")
    height, width = gray_a.shape
    size = (width, height)
    # Blurred: compression, resampling and the map's last pixel are not what is asked.
    a, b = (cv2.GaussianBlur(x, (0, 0), 1.0).astype(np.float32) for x in (gray_a, gray_b))
    back = cv2.warpAffine(b, matrix, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(b), matrix, size, flags=cv2.INTER_NEAREST)

    def window(values: NDArray[np.float32]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = cv2.boxFilter(values, -1, (_WINDOW, _WINDOW))
        return mean

    mean_a, mean_b = window(a), window(back)
    variance_a = window(a * a) - mean_a**2
    variance_b = window(back * back) - mean_b**2
    covariance = window(a * back) - mean_a * mean_b
    seen = (np.minimum(variance_a, variance_b) > _LEAST_DEVIATION**2) & (window(inside) > 0.99)
    if seen.mean() < _LEAST_SEEN:
        return 0.0
    alike = covariance[seen] ** 2 > _ALIKE**2 * (variance_a * variance_b)[seen]
    return float((alike & (covariance[seen] > 0)).mean())


def _corners(
    gray_a: NDArray[np.uint8], gray_b: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> tuple[float, float]:
    """What share of each is empty corners, where the other image does not lie."""
    cv2 = require("cv2", "jobs")
    back = cv2.invertAffineTransform(matrix)
    return _empty(gray_a, gray_b.shape, matrix), _empty(gray_b, gray_a.shape, back)


def _empty(gray: NDArray[np.uint8], other: tuple[int, ...], matrix: NDArray[np.float64]) -> float:
    """Share of an image that lies beside another, if that is its corners, all of one colour.

    A picture that was cut out of a larger one leaves no corners beside it but a frame, in one
    piece: where the larger one has a plain background, it is still the original.
    """
    cv2 = require("cv2", "jobs")
    height, width = gray.shape
    covered = cv2.warpAffine(np.ones(other, np.uint8), matrix, (width, height), flags=0)
    # Less its rim, where both pictures are blended.
    beside = cv2.erode(1 - covered, np.ones((5, 5), np.uint8))
    if not beside.any():
        return 0.0
    values = gray[beside > 0].astype(np.int16)
    difference, share = _FLAT
    flat = (np.abs(values - np.median(values)) <= difference).mean() >= share
    pieces = cv2.connectedComponents(beside)[1]
    corners = [int(piece) for piece in pieces[[0, 0, -1, -1], [0, -1, 0, -1]] if piece]
    apart = len(set(corners)) == len(corners) and set(np.unique(pieces)) - {0} <= set(corners)
    return float(beside.mean()) if flat and apart else 0.0


def _described(
    same: bool,
    inliers: int,
    agreement: float,
    mirrored: bool,
    matrix: NDArray[np.float64],
    shape_a: tuple[int, ...],
    shape_b: tuple[int, ...],
) -> Alignment:
    """Read angle, zoom and place from the map of b's pixels to a's, mirrored if it is."""
    cv2 = require("cv2", "jobs")
    there = np.linalg.inv(matrix[:, :2])  # from a to b
    # With y pointing down, a counter-clockwise turn is [[cos, sin], [-sin, cos]].
    angle = math.degrees(math.atan2(there[0, 1] - there[1, 0], there[0, 0] + there[1, 1]))
    (height, width), (height_b, width_b) = shape_a, shape_b
    side = math.sqrt(height * width)
    zoom = math.sqrt(np.linalg.det(there)) * side / math.sqrt(height_b * width_b)
    corners = np.array([[0, 0], [width_b, 0], [width_b, height_b], [0, height_b]], np.float32)
    placed = (corners @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    common = float(cv2.intersectConvexConvex(placed, frame)[0])
    x, y = (placed.mean(0) - (width / 2, height / 2)) / side
    return Alignment(
        same,
        inliers,
        agreement,
        mirrored,
        angle,
        zoom,
        (-float(x) if mirrored else float(x), float(y)),
        min(1.0, common / (width * height)),
        max(0.0, 1 - common / float(cv2.contourArea(placed))),
    )
