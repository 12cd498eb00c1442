"""The cosine figures: against a double loop, and in the two degenerate cases."""

from __future__ import annotations

import numpy as np
import pytest

from clever_training.evaluation.invariance import cosines, invariance_figures


def test_it_equals_the_loop_over_all_pairs() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=(7, 5)).astype(np.float32)
    b = random.normal(size=(7, 5)).astype(np.float32)

    def cosine(i: int, j: int) -> float:
        return float(a[i] @ b[j] / np.linalg.norm(a[i]) / np.linalg.norm(b[j]))

    same = np.mean([cosine(i, i) for i in range(7)])
    different = np.mean([cosine(i, j) for i in range(7) for j in range(7) if i != j])
    assert cosines(a, b) == pytest.approx((same, different), abs=1e-6)


def test_a_collapsed_representation_is_perfectly_same_and_has_no_gap() -> None:
    constant = np.full((10, 4), 3.0, np.float32)
    figures = invariance_figures(constant, constant, np.zeros(4, np.float32))
    assert figures["same"] == pytest.approx(1)
    assert figures["gap"] == pytest.approx(0, abs=1e-6)


def test_centring_reveals_what_a_common_offset_hides() -> None:
    random = np.random.default_rng(0)
    originals = (random.normal(size=(200, 32)) + 20).astype(np.float32)
    unrelated = (random.normal(size=(200, 32)) + 20).astype(np.float32)
    mean = np.full(32, 20, np.float32)
    figures = invariance_figures(originals, unrelated, mean)
    assert figures["same"] > 0.99  # high, though nothing is shared but the offset
    assert abs(figures["same_centred"]) < 0.05
    own = invariance_figures(originals, originals, mean)
    assert own["gap"] < 0.01
    assert own["gap_centred"] > 0.95


def test_one_photo_has_no_other_to_compare_with() -> None:
    with pytest.raises(ValueError, match="at least 2 photos"):
        cosines(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32))
