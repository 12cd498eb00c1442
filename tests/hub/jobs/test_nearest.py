"""What an index finds is right; what it misses is said."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.jobs import duplicates, nearest
from clever_hub.jobs.duplicates import find_duplicates
from clever_hub.jobs.nearest import nearest_pairs
from clever_hub.jobs.pairs import similar_pairs

pytest.importorskip("lancedb", reason="needs the extra search")

Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """600 photos and a copy of each, far from the origin; 40 dimensions, which LanceDB pads."""
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(600, 40))
    copies = photos + rng.normal(size=photos.shape) * 0.3
    return (np.concatenate([photos, copies]) + 3).astype(np.float32)


def test_it_finds_nearly_what_comparing_all_pairs_finds(vectors: Vectors) -> None:
    mean = vectors.mean(0)
    exact = similar_pairs(vectors, 0.5, mean=mean)
    found, recall = nearest_pairs(vectors, 0.5, mean=mean)
    cosines = dict(zip(zip(exact.a, exact.b, strict=True), exact.cosine, strict=True))
    assert len(found.a) > 0.98 * len(exact.a) > 600
    assert (found.a < found.b).all()
    assert (np.diff(found.cosine) <= 0).all()
    assert len({*zip(found.a, found.b, strict=True)}) == len(found.a), "each pair once"
    of_exact = [cosines[pair] for pair in zip(found.a, found.b, strict=True)]
    np.testing.assert_allclose(found.cosine, of_exact, atol=1e-5)
    assert recall > 0.98


def test_recall_says_what_is_missed(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    """With each photo's two nearest out of the two that the index takes for them."""
    monkeypatch.setattr(nearest, "_TAKEN", 1)
    monkeypatch.setattr(nearest, "SAMPLE", len(vectors))
    mean = vectors.mean(0)
    found, recall = nearest_pairs(vectors, -1, mean=mean, neighbours=2)
    unit = (vectors - mean) / np.linalg.norm(vectors - mean, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -2)
    there = {*zip(found.a.tolist(), found.b.tolist(), strict=True)}
    truth = [
        (min(row, other), max(row, other))
        for row in range(len(vectors))
        for other in np.argsort(-cosine[row])[:2].tolist()
    ]
    assert recall == pytest.approx(np.mean([pair in there for pair in truth]), abs=2e-3)
    assert 0.5 < recall < 0.98


def test_the_same_groups_as_by_comparing_all_pairs(vectors: Vectors) -> None:
    exact = find_duplicates(vectors, threshold=0.8)
    found = find_duplicates(vectors, threshold=0.8, exact=False)
    assert [group.tolist() for group in found.groups] == [g.tolist() for g in exact.groups]
    assert (exact.recall, found.recall) == (None, 1.0)


def test_an_index_is_used_beyond_what_can_be_compared(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "APPROXIMATE_FROM", len(vectors))
    assert find_duplicates(vectors, threshold=0.8).recall is None
    assert find_duplicates(np.concatenate([vectors, vectors[:1]]), threshold=0.8).recall is not None


def test_bounded_and_of_any_kind(vectors: Vectors) -> None:
    reports = []
    found, _ = nearest_pairs(
        vectors.astype(np.float16), 0.5, max_pairs=9, progress=lambda *done: reports.append(done)
    )
    assert len(found.a) == 9
    assert reports[-1] == (1200, 1200)
    few, recall = nearest_pairs(vectors[[0, 600, 1]] - vectors.mean(0), 0.8)
    assert few.a.tolist() == [0]
    assert few.b.tolist() == [1]
    assert recall == 1


def test_a_vector_that_is_not_finite_is_named(vectors: Vectors) -> None:
    broken = vectors.copy()
    broken[7, 0] = np.nan
    with pytest.raises(ValueError, match="row 7"):
        nearest_pairs(broken, 0.5)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count: int) -> None:
    found = find_duplicates(np.ones((count, 8), np.float32), threshold=0.9, exact=False)
    assert (len(found.pairs.a), len(found.groups), found.recall) == (0, 0, None)
