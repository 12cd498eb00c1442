"""Every similar pair is found, whatever the blocks; memory stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.jobs.pairs import Pairs, similar_pairs, unit_rows

Vectors = NDArray[np.float32]


@pytest.fixture
def vectors() -> Vectors:
    """60 vectors, some of them near each other, far from the origin."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 12))
    near = centres[rng.integers(20, size=60)] + rng.normal(size=(60, 12)) * 0.4
    return (near + 5).astype(np.float32)


def brute_force(
    a: Vectors, b: Vectors, threshold: float, mean: Vectors
) -> dict[tuple[int, int], float]:
    """The same by one product of everything, in double precision."""
    units = [(x - mean).astype(np.float64) for x in (a, b)]
    left, right = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in units)
    cosine = left @ right.T
    return {(int(i), int(j)): float(cosine[i, j]) for i, j in np.argwhere(cosine >= threshold)}


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    return {(int(a), int(b)): float(c) for a, b, c in zip(*pairs, strict=True)}


@pytest.mark.parametrize("block", [1, 7, 60, 4096])
def test_all_pairs_are_found_whatever_the_blocks(vectors: Vectors, block: int) -> None:
    mean = vectors.mean(0)
    expected = brute_force(vectors, vectors, 0.6, mean)
    expected = {(a, b): c for (a, b), c in expected.items() if a < b}
    found = as_dict(similar_pairs(vectors, 0.6, mean=mean, block=block))
    assert 10 < len(found) < 1000
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[key] for key in expected], list(expected.values()), atol=1e-5)


def test_pairs_of_two_collections(vectors: Vectors) -> None:
    a, b, mean = vectors[:25], vectors[25:], vectors.mean(0)
    found = as_dict(similar_pairs(a, 0.6, others=b, mean=mean, block=8))
    assert found.keys() == brute_force(a, b, 0.6, mean).keys()


def test_the_most_alike_come_first_and_are_kept_when_there_are_too_many(vectors: Vectors) -> None:
    mean = vectors.mean(0)
    everything = similar_pairs(vectors, -1, mean=mean)
    assert len(everything.a) == 60 * 59 // 2
    assert (np.diff(everything.cosine) <= 0).all()
    best = similar_pairs(vectors, -1, mean=mean, max_pairs=50, block=5)
    np.testing.assert_allclose(best.cosine, everything.cosine[:50], atol=1e-6)


def test_the_scale_of_a_vector_and_the_order_of_rows_change_nothing(vectors: Vectors) -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(60)
    scaled = vectors * rng.uniform(0.1, 10, (60, 1)).astype(np.float32)
    expected = as_dict(similar_pairs(vectors, 0.99)).keys()
    moved = similar_pairs(scaled[order], 0.99)
    back = {
        tuple(sorted((int(order[a]), int(order[b])))) for a, b in zip(moved.a, moved.b, strict=True)
    }
    assert back == expected


def test_float16_vectors_are_taken_as_they_are(vectors: Vectors) -> None:
    small = vectors.astype(np.float16)
    found = similar_pairs(small, 0.999)
    expected = similar_pairs(small.astype(np.float32), 0.999)
    np.testing.assert_array_equal(found.a, expected.a)


def test_nothing_in_nothing_out() -> None:
    assert len(similar_pairs(np.empty((0, 3), np.float32), 0.5).a) == 0
    assert len(similar_pairs(np.ones((1, 3), np.float32), 0.5).a) == 0


def test_a_row_of_zeros_is_like_no_other() -> None:
    assert len(similar_pairs(np.zeros((3, 4), np.float32), 0.01).a) == 0


def test_progress_ends_at_its_total(vectors: Vectors) -> None:
    seen: list[tuple[int, int]] = []
    similar_pairs(vectors, 0.9, block=20, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize(
    ("a", "options", "message"),
    [
        (np.zeros(3, np.float32), {}, "expected vectors"),
        (
            np.zeros((2, 3), np.float32),
            {"others": np.zeros((2, 4), np.float32)},
            "expected vectors",
        ),
        (np.zeros((2, 3), np.float32), {"mean": np.zeros(4, np.float32)}, "mean: expected shape"),
        (np.array([[1, 2], [np.nan, 1]], np.float32), {}, "row 1"),
    ],
)
def test_wrong_input_is_named(a: Vectors, options: dict[str, Vectors], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similar_pairs(a, 0.5, **options)  # type: ignore[arg-type]


def test_a_threshold_that_is_no_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match="a cosine, -1 to 1, got 2"):
        similar_pairs(np.ones((2, 2), np.float32), 2)


def test_unit_rows_leaves_its_input(vectors: Vectors) -> None:
    before = vectors.copy()
    unit = unit_rows(vectors, vectors.mean(0))
    np.testing.assert_array_equal(vectors, before)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_a_threshold_of_one_finds_all_equal_vectors(centred: bool) -> None:
    x = np.random.default_rng(0).normal(size=(500, 96)).astype(np.float32)
    found = similar_pairs(np.concatenate([x, x]), 1.0, mean=x.mean(0) if centred else None)
    assert sorted(zip(found.a, found.b, strict=True)) == [(i, i + 500) for i in range(500)]
    assert (found.cosine <= 1).all()
