"""How the colours of one image differ from another's, by pixels of the same place.

The values are those of the method's views (``clever_training.views.color``), and of Pillow's and
torchvision's functions, applied in the order brightness, contrast, saturation, hue: brightness
multiplies; contrast moves away from the mean grey of what there is; saturation mixes with the grey
of each pixel. Hue is turned in HSV, as photo editors, Pillow and torchvision do, or in YIQ, as the
views of training do: whichever explains the pixels better.

So grey g of a becomes brightness · (contrast · g + (1 − contrast) · mean), and the chroma of a
pixel is multiplied by brightness · contrast · saturation: with a line through the greys and the
ratio of the chromas all four are known. Pixels that are clipped in either image tell nothing, and
those that do not follow the rest, such as of a caption, are given little weight.

Needs OpenCV, the extra ``jobs``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import require
from clever_hub.jobs.relation import Colors

Array = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float32)
_RGB = np.linalg.inv(_YIQ)
_LEAST_PIXELS, _PIXELS = 60, 1500  # compared; more are not more exact
LEAST_CHROMA = 4.0  # of 255; with less there are no colours whose change could be seen
_FLAT = 3.0  # of 255: where greys deviate less, contrast cannot be seen
_GREY = 0.05  # a lower saturation is none: in grey, there is no hue
# Where the chromas are less of one kind, by more than compression does, something else was done:
# sepia, another light.
_LEAST_COHERENCE, _MOST_MISFIT = 0.975, 4.0  # the latter of 255
_EDGE = 12.0  # of 255; nearer to black and white, some of the pixels behind a mean were clipped
_BETTER = 0.9  # by how much a hue must lower the residual, or there is none
# Two thirds of the errors stay below, by the share of pixels that are clipped: natural logarithm.
# `python benchmarks/jobs.py recolouring` measures how well that holds.
_CLIPPED = (0.0, 0.1, 0.3, 0.6)
_BRIGHTNESS_ERROR = (0.02, 0.025, 0.03, 0.08)
_CONTRAST_ERROR = (0.02, 0.03, 0.06, 0.15)
# Of the factor; added to it; and that times 255ths of a's chroma.
_SATURATION_ERROR, _SATURATION_NOISE, _CHROMA_NOISE = 0.03, 0.01, 0.4
_HUE_ERROR, _HUE_NOISE = 0.4, 5.0  # degrees; and degrees times 255ths of chroma


class Recolouring(NamedTuple):
    """How the colours of b differ from those of a.

    Attributes:
        colors: What is known of them; a saturation of 0 is b in grey.
        errors: Two thirds of such values are wrong by less; as ``Relation.colors_error``.
        otherwise: Whether the colours differ in a way that these values do not describe.
        beyond: Of images that cannot be laid onto each other: which of the four values lie, by the
            images as a whole, far beyond what a model's heads are trained on.
    """

    colors: Colors
    errors: Colors
    otherwise: bool = False
    beyond: tuple[bool, bool, bool, bool] = (False, False, False, False)

    def words(self) -> list[str]:
        """What was done, such as ``["brighter", "recoloured"]``.

        Example:
            >>> none = Colors(None, None, None, None)
            >>> Recolouring(Colors(1.0, 1.0, 0.0, None), none).words()
            ['in grey']
        """
        brightness, contrast, saturation, hue = self.colors
        done = []
        if brightness is not None and abs(math.log(brightness)) > _TOLD:
            done.append("brighter" if brightness > 1 else "darker")
        factors = (one for one in (contrast, saturation) if one)
        if saturation == 0:
            done.append("in grey")
        elif (
            self.otherwise
            or any(abs(math.log(one)) > _TOLD for one in factors)
            or (hue is not None and abs(hue) > _TOLD_HUE)
        ):
            done.append("recoloured")
        return done


_TOLD, _TOLD_HUE = 0.15, 8.0  # natural logarithm, degrees; what is less is not put into words
UNKNOWN = Recolouring(Colors(*4 * (None,)), Colors(*4 * (None,)))


class _Fit(NamedTuple):
    """A line through greys, and the ratio of chromas, after a turn of the hue is undone."""

    hue: float  # radians
    gain: float
    offset: float
    chroma: float
    coherence: float
    residual: float


def compare_colors(a: Array, b: Array, mean: float) -> Recolouring:
    """Compare pixels of the same places.

    Args:
        a: float32 (N, 3), RGB, 0 to 255.
        b: float32 (N, 3), of the same places.
        mean: Mean grey of the whole of image a, around which contrast was changed; 0 to 255.

    Returns:
        How b differs; a value is None where these pixels cannot tell it.

    Example:
        >>> a = np.random.default_rng(0).uniform(30, 130, (500, 3)).astype(np.float32)
        >>> found = compare_colors(a, 1.5 * a, 80.0)
        >>> [round(value, 2) for value in found.colors if value is not None]
        [1.5, 1.0, 1.0, 0.0]
    """
    step = len(a) // _PIXELS + 1
    a, b = a[::step], b[::step]
    clear = _clear(a) & _clear(b)
    if clear.sum() < _LEAST_PIXELS:
        return UNKNOWN
    undo, hue = _turn(a[clear], b[clear])
    fit = _fit(a[clear], undo(b[clear], hue), hue)
    predicted = _predicted(a, fit)
    unclipped = clear & (predicted.min(1) > _EDGE) & (predicted.max(1) < 255 - _EDGE)
    if unclipped.sum() >= _LEAST_PIXELS:
        clear = unclipped
        fit = _fit(a[clear], undo(b[clear], hue), hue)
    return _described(a, b, clear, fit, mean)


def _described(a: Array, b: Array, clear: NDArray[np.bool_], fit: _Fit, mean: float) -> Recolouring:
    brightness = fit.gain + fit.offset / max(mean, 1.0)
    if fit.gain <= 0 or brightness <= 0:  # a negative
        return UNKNOWN._replace(otherwise=True)
    clipped = 1 - float(clear.mean())
    bright_error = float(np.interp(clipped, _CLIPPED, _BRIGHTNESS_ERROR))
    contrast_error = float(np.interp(clipped, _CLIPPED, _CONTRAST_ERROR))
    flat = float((a[clear] @ LUMA).std()) < _FLAT

    def found(
        saturation: float | None = None,
        hue: float | None = None,
        saturation_error: float | None = None,
        hue_error: float | None = None,
        otherwise: bool = False,
    ) -> Recolouring:
        if flat:  # then nothing tells saturation from contrast
            in_grey = 0.0 if saturation == 0 else None
            colors = Colors(brightness, None, in_grey, hue)
            return Recolouring(colors, Colors(bright_error, None, None, hue_error), otherwise)
        return Recolouring(
            Colors(brightness, fit.gain / brightness, saturation, hue),
            Colors(bright_error, contrast_error, saturation_error, hue_error),
            otherwise,
        )

    of_a, of_b = (spread(chroma_of(x)[clear]) for x in (a, b))
    if of_a < LEAST_CHROMA:  # of colours that are put in nothing can be said
        return found(otherwise=of_b > 2 * LEAST_CHROMA)
    saturation = fit.chroma / fit.gain
    if saturation < _GREY and of_b < LEAST_CHROMA:
        return found(0.0)
    misfit = of_b * math.sqrt(max(0.0, 1 - fit.coherence**2))
    if fit.coherence < _LEAST_COHERENCE and misfit > _MOST_MISFIT:
        return found(otherwise=True)
    saturation = max(saturation, 0.01)
    noise = _SATURATION_NOISE / saturation, _CHROMA_NOISE / of_a
    error = math.hypot(_SATURATION_ERROR, *noise, contrast_error / 2)
    if of_b < LEAST_CHROMA / 2:
        return found(saturation, None, error)
    hue = math.degrees(math.remainder(fit.hue, 2 * math.pi))
    return found(saturation, hue, error, _HUE_ERROR + _HUE_NOISE / min(of_a, of_b))


def _clear(pixels: Array) -> NDArray[np.bool_]:
    return np.asarray((pixels.min(1) > 3) & (pixels.max(1) < 252), bool)


def _turn(a: Array, b: Array) -> tuple[Callable[[Array, float], Array], float]:
    """How the turn of the hue is undone, and by what angle; by none, unless that is much better."""
    turns: list[tuple[Callable[[Array, float], Array], float]] = [(_unturned_yiq, 0.0)]
    turns.append((_unturned_yiq, _yiq_turn(a, b)))
    if (angle := _hsv_turn(a, b)) is not None:
        turns.append((_unturned_hsv, angle))
    left = [_fit(a, undo(b, angle), angle).residual for undo, angle in turns]
    best = int(np.argmin(left))
    return turns[best if left[best] < _BETTER * left[0] else 0]


def _hsv_turn(a: Array, b: Array) -> float | None:
    """The difference of hues that most pixels agree on, in radians.

    Brightness, contrast and saturation leave a pixel's hue as it is.
    """
    weights = np.minimum(np.ptp(a, axis=1), np.ptp(b, axis=1))
    weights = np.where(weights > 6, weights, 0.0)
    if not weights.any():
        return None
    turns = np.radians(hsv_of(b)[:, 0] - hsv_of(a)[:, 0])
    places = (np.degrees(turns) % 360 // 10).astype(int) % 36
    counts = np.bincount(places, weights, 36)
    peak = int((counts + np.roll(counts, 1) + np.roll(counts, -1)).argmax())
    angle = math.radians(10 * peak + 5)
    for _ in range(5):
        away = np.angle(np.exp(1j * (turns - angle)))
        near = weights / (1 + (away / 0.15) ** 2) ** 2
        angle += float((near * away).sum() / near.sum())
    return angle


def _unturned_hsv(pixels: Array, angle: float) -> Array:
    hsv = hsv_of(pixels)
    hsv[:, 0] = (hsv[:, 0] - math.degrees(angle)) % 360
    cv2 = require("cv2", "jobs")
    return np.asarray(255 * cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], np.float32)


def hsv_of(pixels: Array) -> Array:
    """Hue in degrees, saturation and value in [0, 1]."""
    cv2 = require("cv2", "jobs")
    found: Array = cv2.cvtColor(pixels[None] / np.float32(255), cv2.COLOR_RGB2HSV)[0]
    return found


def _yiq_turn(a: Array, b: Array) -> float:
    chroma_a, chroma_b = chroma_of(a), chroma_of(b)
    ratio = _robust(
        lambda w: (w * chroma_a.conj() * chroma_b).sum() / _energy(w, chroma_a),
        lambda k: np.abs(chroma_b - k * chroma_a),
        len(a),
    )[0]
    return -float(np.angle(ratio))  # the views turn the other way round


def _unturned_yiq(pixels: Array, angle: float) -> Array:
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]], np.float32)
    return np.asarray(pixels @ (_RGB @ turn @ _YIQ).T, np.float32)


def _fit(a: Array, b: Array, hue: float) -> _Fit:
    grey_a, grey_b = a @ LUMA, b @ LUMA
    (gain, offset), _ = _robust(
        lambda w: _line(grey_a, grey_b, w),
        lambda line: np.abs(grey_b - line[0] * grey_a - line[1]),
        len(a),
    )
    chroma_a, chroma_b = chroma_of(a), chroma_of(b)
    ratio, weights = _robust(
        lambda w: float((w * (chroma_a.conj() * chroma_b).real).sum() / _energy(w, chroma_a)),
        lambda k: np.abs(chroma_b - k * chroma_a),
        len(a),
    )
    both = math.sqrt(_energy(weights, chroma_a) * _energy(weights, chroma_b))
    alike = float((weights * (chroma_a.conj() * chroma_b).real).sum()) / both
    left = np.abs(grey_b - gain * grey_a - offset) + np.abs(chroma_b - ratio * chroma_a)
    return _Fit(hue, gain, offset, ratio, alike, _median(left))


def _line(x: Array, y: Array, weights: Array) -> tuple[float, float]:
    """The line by the deviations of both: neither is free of noise, as a regression has it."""
    w = weights / weights.sum()
    mean_x, mean_y = float(w @ x), float(w @ y)
    of_x, of_y = x - mean_x, y - mean_y
    if float(w @ of_x**2) < _FLAT**2:
        return mean_y / max(mean_x, 1.0), 0.0
    gain = math.sqrt(float(w @ of_y**2) / float(w @ of_x**2))
    gain = math.copysign(gain, float(w @ (of_x * of_y)))
    return gain, mean_y - gain * mean_x


def _robust(
    fit: Callable[[Array], Any], residual: Callable[[Any], Array], count: int
) -> tuple[Any, Array]:
    """Fit again and again, with less weight for what lies far off (Geman–McClure); and weights."""
    weights = np.ones(count, np.float32)
    for _ in range(5):
        off = residual(fit(weights))
        scale = 2 * (1.4826 * _median(off) + 0.5)
        weights = np.asarray(1 / (1 + (off / scale) ** 2) ** 2, np.float32)
    return fit(weights), weights


def _median(values: Array) -> float:
    """Of many values, in a fifth of the time that ``np.median`` takes."""
    return float(np.partition(values, len(values) // 2)[len(values) // 2])


def _predicted(a: Array, fit: _Fit) -> Array:
    """Image b's pixels before its hue was turned, which does not change what is clipped."""
    yiq = a @ _YIQ.T
    yiq[:, 0] = fit.gain * yiq[:, 0] + fit.offset
    yiq[:, 1:] *= fit.chroma
    return np.asarray(yiq @ _RGB.T, np.float32)


def chroma_of(pixels: Array) -> NDArray[np.complex64]:
    """I and Q of YIQ as one complex number."""
    yiq = pixels @ _YIQ[1:].T
    return np.asarray(yiq[:, 0] + 1j * yiq[:, 1], np.complex64)


def _energy(weights: Array, chroma: NDArray[np.complex64]) -> float:
    return max(float((weights * np.abs(chroma) ** 2).sum()), 1e-9)


def spread(chroma: NDArray[np.complex64]) -> float:
    """Root mean square."""
    return math.sqrt(float((np.abs(chroma) ** 2).mean())) if len(chroma) else 0.0
