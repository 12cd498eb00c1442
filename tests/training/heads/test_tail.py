"""Thresholds: against a distribution whose tail is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clever_hub.errors import DataError
from clever_training.heads.tail import thresholds

DIM = 12


def exact(rate: float) -> float:
    """What a share ``rate`` of cosines of independent directions exceeds: (1 + t) / 2 is a beta."""
    half = (DIM - 1) / 2
    return float(2 * stats.beta(half, half).isf(rate) - 1)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1500, DIM)).astype(np.float32)


def test_thresholds_are_those_of_the_distribution(rows: np.ndarray) -> None:
    found = thresholds(rows, bootstraps=20)
    pairs = 1500 * 1499 / 2
    for rate, threshold in found.items():
        assert threshold.extrapolated is (float(rate) * pairs < 10), rate
        assert threshold.threshold == pytest.approx(exact(float(rate)), abs=0.02), rate
        assert threshold.low <= threshold.threshold <= threshold.high
    values = [threshold.threshold for threshold in found.values()]
    assert values == sorted(values)


def test_intervals_hold_the_truth_and_are_wider_for_what_is_extrapolated(rows: np.ndarray) -> None:
    found = thresholds(rows[:400], bootstraps=50)
    held = [found[rate].low <= exact(float(rate)) <= found[rate].high for rate in found]
    assert sum(held) >= 4
    assert found["1e-7"].high - found["1e-7"].low > found["1e-3"].high - found["1e-3"].low


def test_order_and_scale_of_photos_do_not_matter(rows: np.ndarray) -> None:
    some = rows[:300]
    shuffled = 7 * np.random.default_rng(0).permutation(some)
    one, two = thresholds(some, bootstraps=0), thresholds(shuffled, bootstraps=0)
    for rate, threshold in one.items():
        assert two[rate].threshold == pytest.approx(threshold.threshold, abs=2e-3)


def test_a_cosine_is_never_above_one() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(120, 2)).astype(np.float32)  # directions in a plane: many coincide
    assert all(t.threshold <= 1 for t in thresholds(rows, bootstraps=5).values())


def test_few_photos_are_refused() -> None:
    with pytest.raises(DataError, match="expected 100 different photos or more, got 99"):
        thresholds(np.ones((99, 4), np.float32))
