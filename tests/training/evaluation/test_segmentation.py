"""J and F against their definitions, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_training.evaluation.segmentation import (
    boundary_accuracy,
    mask_boundary,
    region_similarity,
)


def blob(seed: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """A few random discs."""
    random = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=bool)
    for _ in range(3):
        row, column = random.integers(shape[0]), random.integers(shape[1])
        mask |= (rows - row) ** 2 + (columns - column) ** 2 < random.integers(4, 120)
    return mask


def literal_boundary(mask: NDArray[np.bool_]) -> set[tuple[int, int]]:
    height, width = mask.shape
    found = set()
    for row in range(height):
        for column in range(width):
            down, right = min(row + 1, height - 1), min(column + 1, width - 1)
            others = mask[row, right], mask[down, column], mask[down, right]
            if any(bool(other) != bool(mask[row, column]) for other in others):
                found.add((row, column))
    return found


def literal_boundary_accuracy(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], share: float
) -> float:
    """The definition: each boundary pixel looks for one of the other within so many pixels."""
    radius = math.ceil(share * math.hypot(*truth.shape))
    ours, theirs = literal_boundary(predicted), literal_boundary(truth)
    if not ours and not theirs:
        return 1.0
    if not ours or not theirs:
        return 0.0

    def near(pixel: tuple[int, int], others: set[tuple[int, int]]) -> bool:
        return any(
            (pixel[0] - row) ** 2 + (pixel[1] - column) ** 2 <= radius**2 for row, column in others
        )

    precision = sum(near(pixel, theirs) for pixel in ours) / len(ours)
    recall = sum(near(pixel, ours) for pixel in theirs) / len(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.008, 0.03, 0.06])
def test_boundary_accuracy_is_the_literal_one(seed: int, share: float) -> None:
    predicted, truth = blob(seed, (37, 45)), blob(seed + 100, (37, 45))
    assert set(zip(*mask_boundary(truth).nonzero(), strict=True)) == literal_boundary(truth)
    expected = literal_boundary_accuracy(predicted, truth, share)
    assert boundary_accuracy(predicted, truth, share) == pytest.approx(expected)


def test_values_lie_between_the_extremes() -> None:
    found = [
        boundary_accuracy(blob(seed, (37, 45)), blob(seed + 100, (37, 45)), 0.03)
        for seed in range(8)
    ]
    assert 0 < np.mean(found) < 1


def test_empty_masks() -> None:
    empty, square = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    square[5:9, 5:9] = True
    for measure in (region_similarity, boundary_accuracy):
        assert measure(empty, empty) == 1
        assert measure(empty, square) == 0
        assert measure(square, empty) == 0
        assert measure(square, square) == 1


def test_half_of_a_region() -> None:
    whole, half = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    whole[2:6], half[2:4] = True, True
    assert region_similarity(half, whole) == 0.5
