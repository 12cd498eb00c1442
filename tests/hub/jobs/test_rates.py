"""Thresholds as rates of false pairs: against what was counted, and with copies among the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.errors import ConfigError
from clever_hub.jobs.pairs import similar_pairs
from clever_hub.jobs.rates import Threshold, threshold_by_calibration, threshold_by_data


def gaussian(rows: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, 32)).astype(np.float32)


def counted_rate(vectors: NDArray[np.float32], cosine: float) -> float:
    return len(similar_pairs(vectors, cosine).a) / (len(vectors) * (len(vectors) - 1) / 2)


@pytest.mark.parametrize("rate", [1e-2, 1e-3, 1e-4, 1e-5])
def test_the_rate_is_what_one_counts(rate: float) -> None:
    vectors = gaussian(3000)
    found = threshold_by_data(vectors, rate, 100)
    assert found.extrapolated == (rate < 1e-3)
    assert rate / 5 < counted_rate(vectors, found.cosine) < rate * 5


def test_copies_among_the_photos_hardly_move_it() -> None:
    vectors = gaussian(2000)
    copies = vectors + 0.1 * gaussian(2000, seed=1)
    alone = threshold_by_data(vectors, 1e-5, 1).cosine
    both = threshold_by_data(np.concatenate([vectors, copies]), 1e-5, 1).cosine
    assert abs(both - alone) < 0.03, "one pair in 4,000 is a copy"


def test_between_two_collections() -> None:
    a, b = gaussian(1500), gaussian(1500, seed=1)
    found = threshold_by_data(a, 1e-3, 1, others=b)
    rate = len(similar_pairs(a, found.cosine, others=b).a) / 1500**2
    assert 0.9e-3 < rate < 1.1e-3


def test_a_tail_is_not_made_up_from_a_few_photos() -> None:
    with pytest.raises(ConfigError, match="cannot be measured on 100 photos, 500 are needed"):
        threshold_by_data(gaussian(100), 1e-5, 1)
    assert not threshold_by_data(gaussian(100), 0.1, 1).extrapolated


def test_a_calibration_is_interpolated_and_never_left() -> None:
    table = {1e-3: (0.3, False), 1e-5: (0.5, False), 1e-7: (0.6, True)}
    between = threshold_by_calibration(table, 1e-4, 10)
    assert between.cosine == pytest.approx(0.4)
    assert not between.extrapolated
    assert threshold_by_calibration(table, 1e-6, 10).extrapolated
    beyond = threshold_by_calibration(table, 1e-12, 10)
    assert (beyond.cosine, beyond.rate) == (0.6, 1e-7)


def test_a_threshold_says_what_it_costs() -> None:
    cut = Threshold(0.5, 19_999_900_000, 1e-6, "calibration")
    assert "2e+04 false ones expected (by the model's calibration)" in str(cut)
    assert "unknown" in str(Threshold(0.5, 10, math.nan, "given"))


def test_many_exact_copies_say_nothing_of_the_tail() -> None:
    vectors = gaussian(1000)
    expected = threshold_by_data(vectors, 1e-5, 1).cosine
    vectors[:60] = vectors[0]  # such as blank frames of a film
    assert threshold_by_data(vectors, 1e-5, 1).cosine == pytest.approx(expected, abs=0.05)
    vectors[:] = vectors[0]
    assert 0.9999 < threshold_by_data(vectors, 1e-5, 1).cosine < 1
