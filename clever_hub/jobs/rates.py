"""The cosine that makes a pair a candidate, from the rate of false pairs that it lets through.

A cosine of 0.6 is a copy for one model and chance for another. So a threshold is said as the number
of pairs of *different* photos that are expected above it: by the model's calibration where it has
one, else by the tail of the cosines of the data themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import ConfigError
from clever_hub.jobs.pairs import Vectors, unit_rows

SAMPLE = 4096  # rows: 8.4 million pairs, 8,400 of them above the smallest rate that is seen
MIN_PHOTOS = 500
LOWEST_RATE = 1e-7
# The tail is fitted at these rates; most copies among the data lie above the last.
_SEEN = (1e-2, 1e-3)
_EXACT = 1 - 1e-6  # cosines from here on are of exact copies


@dataclass(frozen=True)
class Threshold:
    """A cosine, and what it costs.

    Attributes:
        cosine: Pairs from here on are candidates; of centred vectors.
        pairs: How many pairs there are.
        rate: Share of pairs of different photos that are expected above; NaN is unknown.
        source: ``"calibration"``, ``"data"`` or ``"given"``.
        extrapolated: Whether the rate lies beyond what could be counted.
    """

    cosine: float
    pairs: int
    rate: float
    source: str
    extrapolated: bool = False

    @property
    def expected_false(self) -> float:
        """How many pairs of different photos are expected above; NaN is unknown."""
        return self.rate * self.pairs

    def __str__(self) -> str:
        if math.isnan(self.rate):
            return f"cosine {self.cosine:.3f}, as given; the rate of false pairs is unknown"
        origin = {
            "calibration": "by the model's calibration",
            "data": "by the tail of these photos' own cosines",
        }[self.source]
        beyond = ", extrapolated" if self.extrapolated else ""
        return (
            f"cosine {self.cosine:.3f}: {self.rate:.1e} of {self.pairs:,} pairs, "
            f"{self.expected_false:,.3g} false ones expected ({origin}{beyond})"
        )


def threshold_by_calibration(
    table: Mapping[float, tuple[float, bool]], rate: float, pairs: int
) -> Threshold:
    """The threshold of a rate, interpolated in the logarithm of the rate.

    Args:
        table: By rate, the threshold and whether it was extrapolated.
        rate: The rate that is wanted; rates beyond the table's are brought to its ends.
        pairs: How many pairs there are.

    Returns:
        The threshold, with the rate that it has.

    Example:
        >>> found = threshold_by_calibration({1e-3: (0.4, False), 1e-5: (0.6, False)}, 1e-4, 1000)
        >>> round(found.cosine, 3)
        0.5
    """
    rates = sorted(table)
    used = min(max(rate, rates[0]), rates[-1])
    cosine = np.interp(math.log(used), np.log(rates), [table[r][0] for r in rates])
    below = max(r for r in rates if r <= used)
    return Threshold(float(cosine), pairs, used, "calibration", table[below][1])


def threshold_by_data(
    vectors: Vectors,
    rate: float,
    pairs: int,
    *,
    mean: NDArray[np.float32] | None = None,
    others: Vectors | None = None,
    counted: bool = True,
    seed: int = 0,
) -> Threshold:
    """The threshold of a rate, by the cosines of a sample of the data.

    Down to 1e-3 the pairs above are counted. Below, the tail is continued as a straight line of
    Fisher's z = artanh(cosine) over the logarithm of the rate, through the rates 1e-2 and 1e-3: of
    Gaussian vectors and of photos' embeddings alike that holds to within a factor of a few down to
    1e-6 (docs/jobs/duplicates.md). Copies among the photos raise it a little.

    Args:
        vectors: float32 or float16 (N, d).
        rate: Share of pairs of different photos above; below 1e-7 it is brought there.
        pairs: How many pairs there are.
        mean: float32 (d,), taken from every vector first.
        others: (M, d): pairs are of a row of ``vectors`` and one of these.
        counted: Whether a few photos will do for a rate that can be counted on them. Copies among
            them count as well: good enough to choose candidates that are looked at, not more.
        seed: Chooses the sample.

    Returns:
        The threshold.

    Raises:
        ConfigError: When there are too few photos to see a tail.
    """
    used = max(rate, LOWEST_RATE)
    check_measurable(rate, len(vectors), None if others is None else len(others), counted)
    rng = np.random.default_rng(seed)
    left = _sample(vectors, rng, mean)
    if others is None:
        cosines = (left @ left.T)[np.triu_indices(len(left), 1)]
    else:
        cosines = (left @ _sample(others, rng, mean).T).ravel()
    if used >= _SEEN[-1]:
        return Threshold(_upper_quantile(cosines, used), pairs, used, "data")
    return Threshold(_tail(cosines, used), pairs, used, "data", extrapolated=True)


def check_measurable(rate: float, photos: int, others: int | None, counted: bool) -> None:
    """Refuse a rate that so few photos do not show.

    Args:
        rate: Share of pairs of different photos above the threshold.
        photos: How many there are.
        others: How many others, where pairs are of one of each; else None.
        counted: As for ``threshold_by_data``.

    Raises:
        ConfigError: When there are too few photos to see a tail.
    """
    few = photos if others is None else min(photos, others)
    if few >= MIN_PHOTOS or (counted and rate >= _SEEN[-1]):
        return
    if counted:
        other = f"let more pairs be candidates: a rate of {_SEEN[-1]:g} at least (--expected-false)"
    elif others is None:
        other = (
            "verify candidates by pixels (--verify pixels; in Python verify=PixelVerifier(photos)) "
            "or by heads with a calibration (--verify heads; heads=model.heads)"
        )
    else:  # leaks have no heads that could be asked
        other = "verify candidates by pixels (in Python verify=PixelVerifier(a, others=b))"
    raise ConfigError(
        f"a rate of false pairs of {rate:.1e} cannot be measured on {few} photos, {MIN_PHOTOS} "
        f"are needed. Give a cosine (--threshold), or {other}"
    )


def _sample(
    vectors: Vectors, rng: np.random.Generator, mean: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    rows = rng.choice(len(vectors), min(SAMPLE, len(vectors)), replace=False)
    return unit_rows(vectors[np.sort(rows)], mean)


def _upper_quantile(cosines: NDArray[np.float32], rate: float) -> float:
    rank = min(len(cosines) - 1, max(0, len(cosines) - 1 - int(rate * len(cosines))))
    return float(np.partition(cosines, rank)[rank])


def _tail(cosines: NDArray[np.float32], rate: float) -> float:
    """The line through Fisher's z of two quantiles, over the logarithm of the rate."""
    # Exact copies say nothing of how alike different photos are, and Fisher's z of 1 is infinite.
    cosines = cosines[cosines < _EXACT]
    if not len(cosines):
        return _EXACT
    first, second = (math.atanh(_upper_quantile(cosines, seen)) for seen in _SEEN)
    decades = math.log(_SEEN[1] / rate) / math.log(_SEEN[0] / _SEEN[1])
    return math.tanh(second + (second - first) * decades)
