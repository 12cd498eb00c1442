"""What an index finds is right; what it misses is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.jobs import duplicates, leaks, nearest
from clever_hub.jobs.duplicates import find_duplicates
from clever_hub.jobs.embedded import EmbeddedPhotos
from clever_hub.jobs.leaks import find_leaks
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
    found, recall, _ = nearest_pairs(vectors, 0.5, mean=mean)
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
    found, recall, _ = nearest_pairs(vectors, -1, mean=mean, neighbours=2)
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


def test_pairs_of_one_set_and_another(vectors: Vectors) -> None:
    """Of 600 photos and 40 copies, the last ones first: no row is taken for another's."""
    photos, copies = vectors[:600], vectors[600:640][::-1]
    mean = photos.mean(0)
    exact = similar_pairs(photos, 0.5, others=copies, mean=mean)
    found, recall, _ = nearest_pairs(photos, 0.5, others=copies, mean=mean)
    there = [{*zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)} for pairs in (exact, found)]
    assert len(exact.a) >= 40
    assert there[1] <= there[0]
    assert recall == pytest.approx(len(there[1]) / len(there[0]), abs=1e-6)
    assert recall > 0.98
    assert found.a[:40].tolist() == (39 - found.b[:40]).tolist(), "copies are the most alike"
    assert (np.diff(found.cosine) <= 0).all()


@pytest.mark.parametrize("within", [True, False])
def test_coverage_counts_what_lies_beyond_the_nearest(
    vectors: Vectors, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "SAMPLE", len(vectors))
    mean, others = vectors.mean(0), None if within else vectors[:90]
    exact = similar_pairs(vectors, 0.2, others=others, mean=mean)
    found, recall, coverage = nearest_pairs(vectors, 0.2, others=others, mean=mean, neighbours=5)
    assert coverage == pytest.approx(len(found.a) / len(exact.a), abs=1e-4)
    assert coverage < 0.5 < recall


def test_what_does_not_fit_together_is_refused(vectors: Vectors) -> None:
    with pytest.raises(ValueError, match=r"got \(1200, 40\) and \(2, 8\)"):
        nearest_pairs(vectors, 0.5, others=np.ones((2, 8), np.float32))


def test_leaks_by_an_index(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = (
        EmbeddedPhotos([Path("a")] * len(part), Embeddings(part, part[:, :0]), "")
        for part in (vectors[:600], vectors[600:700])
    )
    exact = find_leaks(train, validation, threshold=0.8)
    monkeypatch.setattr(leaks, "APPROXIMATE_PAIRS", 60_000)
    assert find_leaks(train, validation, threshold=0.8).recall is None, "so many are compared"
    monkeypatch.setattr(leaks, "APPROXIMATE_PAIRS", 59_999)
    found = find_leaks(train, validation, threshold=0.8)
    assert (exact.recall, found.recall) == (None, 1.0)
    assert found.leaked == exact.leaked == list(range(100))


def test_an_index_is_used_beyond_what_can_be_compared(
    vectors: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "APPROXIMATE_FROM", len(vectors))
    assert find_duplicates(vectors, threshold=0.8).recall is None
    assert find_duplicates(np.concatenate([vectors, vectors[:1]]), threshold=0.8).recall is not None


def test_bounded_and_of_any_kind(vectors: Vectors) -> None:
    reports = []
    found, _, _ = nearest_pairs(
        vectors.astype(np.float16), 0.5, max_pairs=9, progress=lambda *done: reports.append(done)
    )
    assert len(found.a) == 9
    assert reports[-1] == (1200, 1200)
    few, recall, _ = nearest_pairs(vectors[[0, 600, 1]] - vectors.mean(0), 0.8)
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
