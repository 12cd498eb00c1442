"""The cosine that a given share of pairs of different photos exceeds, seen or extrapolated.

A rate r is seen directly where r of the pairs are ten or more. Beyond that the tail is a
generalised Pareto distribution (Pickands, 1975), fitted by probability-weighted moments (Hosking &
Wallis, Technometrics 29, 1987), which take weights, as scipy's fit does not. Pairs depend on each
other, for each photo is in many: intervals are by bootstrap over photos.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import DataError
from clever_hub.jobs.calibration import Threshold

RATES = ("1e-3", "1e-4", "1e-5", "1e-6", "1e-7")
LEAST_PHOTOS = 100
_LEAST_PAIRS = 10  # above a threshold that is seen directly
_TAIL_PAIRS = 200.0  # that a tail is fitted to
_TAIL_SHARE = 0.01  # of the pairs are kept
_BLOCK = 1024
_INTERVAL = (2.5, 97.5)

Floats = NDArray[np.float64]


class _Pairs(NamedTuple):
    """The pairs with the highest cosines, descending, and the number of photos."""

    cosine: Floats
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    photos: int


def thresholds(
    rows: NDArray[np.float32], *, bootstraps: int = 100, seed: int = 0
) -> dict[str, Threshold]:
    """The thresholds of every rate of false pairs.

    Args:
        rows: float32 (N, d), centred embeddings of N different photos.
        bootstraps: Draws of photos, for the intervals.
        seed: Seed of the draws.

    Returns:
        Threshold by rate.

    Raises:
        DataError: When the photos are too few for even the highest rate.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
        >>> found = thresholds(rows, bootstraps=20)
        >>> found["1e-3"].extrapolated, found["1e-7"].extrapolated
        (False, True)
    """
    if len(rows) < LEAST_PHOTOS:
        raise DataError(
            f"calibration: expected {LEAST_PHOTOS} different photos or more, got {len(rows)}. "
            "4,500 photos measure a rate of 1e-6 without extrapolation"
        )
    pairs = _highest(rows)
    random = np.random.default_rng(seed)
    draws = [
        random.multinomial(len(rows), np.full(len(rows), 1 / len(rows))) for _ in range(bootstraps)
    ]
    once = np.ones(len(rows), np.int64)
    found = {}
    for rate in RATES:
        value, extrapolated = _threshold(pairs, once, float(rate))
        drawn = [_threshold(pairs, draw, float(rate))[0] for draw in draws]
        low, high = np.percentile(drawn, _INTERVAL) if drawn else (value, value)
        found[rate] = Threshold(
            round(value, 5), round(float(low), 5), round(float(high), 5), extrapolated
        )
    return found


def _highest(rows: NDArray[np.float32]) -> _Pairs:
    """The pairs with the highest cosines, found block by block."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(norms, 1e-12)
    count = len(unit)
    # Of a sample: what is kept is a little more or less than the share, which is all the same.
    some = unit[np.linspace(0, count - 1, min(count, 2000)).astype(int)]
    above = np.triu_indices(len(some), 1)
    floor = np.quantile((some @ some.T)[above], 1 - _TAIL_SHARE)
    parts = []
    for start in range(0, count, _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit[start:].T
        i, j = np.nonzero(cosines >= floor)
        later = j > i
        parts.append((cosines[i[later], j[later]], start + i[later], start + j[later]))
    cosine, first, second = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-cosine, kind="stable")
    return _Pairs(cosine[order].astype(np.float64), first[order], second[order], count)


def _threshold(pairs: _Pairs, times: NDArray[np.int64], rate: float) -> tuple[float, bool]:
    """The threshold where photo i was drawn ``times[i]`` times; and whether it is extrapolated."""
    weights = (times[pairs.first] * times[pairs.second]).astype(np.float64)
    total = (float(times.sum()) ** 2 - float(np.square(times).sum())) / 2
    above = np.cumsum(weights)
    if rate * total >= _LEAST_PAIRS:
        return _at(pairs.cosine, above, rate * total), False
    count = min(_TAIL_PAIRS, above[-1] / 2)
    start = _at(pairs.cosine, above, count)
    inside = (pairs.cosine > start) & (weights > 0)
    shape, scale = _pareto(pairs.cosine[inside] - start, weights[inside])
    share = rate * total / count
    excess = -scale * np.log(share) if abs(shape) < 1e-6 else scale * (share**-shape - 1) / shape
    return float(min(1.0, start + excess)), True


def _at(cosine: Floats, above: Floats, count: float) -> float:
    """The cosine that so many pairs reach."""
    place = min(int(np.searchsorted(above, count)), len(cosine) - 1)
    return float(cosine[place])


def _pareto(excess: Floats, weights: Floats) -> tuple[float, float]:
    """Shape ξ and scale of a generalised Pareto distribution, by probability-weighted moments.

    With a₀ = E[x] and a₁ = E[x (1 − F(x))]: ξ = 2 − a₀ / (a₀ − 2a₁), scale = 2a₀a₁ / (a₀ − 2a₁).
    """
    if len(excess) < 2:
        return 0.0, max(1e-6, float(excess.mean()) if len(excess) else 1e-6)
    share = weights / weights.sum()
    # Descending: the share of pairs that exceed each one, in the middle of its own weight.
    survival = np.cumsum(share) - share / 2
    first = float((share * excess).sum())
    second = float((share * excess * survival).sum())
    apart = max(first - 2 * second, 1e-12)
    return 2 - first / apart, 2 * first * second / apart
