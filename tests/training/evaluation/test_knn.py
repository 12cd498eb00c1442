"""k-NN agrees with scikit-learn, finds what was planted, and finds nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from clever_training.evaluation.knn import knn_predict, top1, unit


def planted(noise: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ten random directions, one per class, plus noise: float32 (500, 32) and labels."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(42).normal(size=(10, 32))
    labels = np.arange(500) % 10
    features = centres[labels] + noise * random.normal(size=(500, 32))
    return features.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (50, 1.0)])
def test_it_equals_scikit_learns(k: int, temperature: float) -> None:
    random = np.random.default_rng(1)
    train = random.normal(size=(300, 16)).astype(np.float32)
    queries = random.normal(size=(200, 16)).astype(np.float32)
    labels = random.integers(0, 7, 300)
    theirs = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        # scikit-learn's cosine distance is 1 - cosine.
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(train, labels)
    ours = knn_predict(train, labels, queries, k=k, temperature=temperature)
    np.testing.assert_array_equal(ours, theirs.predict(queries))


def test_a_planted_class_is_found() -> None:
    (train, labels), (queries, truth) = planted(0.5, seed=1), planted(0.5, seed=2)
    assert top1(knn_predict(train, labels, queries), truth) > 99


def test_shuffled_labels_score_at_chance() -> None:
    (train, labels), (queries, truth) = planted(0.5, seed=1), planted(0.5, seed=2)
    # Photos of a class mostly get one answer: one shuffle may be far from the chance of 10 %.
    random = np.random.default_rng(3)
    scores = [
        top1(knn_predict(train, random.permutation(labels), queries), truth) for _ in range(20)
    ]
    assert 8 < np.mean(scores) < 12
    assert max(scores) < 35
    noise = np.random.default_rng(4).normal(size=(500, 32)).astype(np.float32)
    found = knn_predict(noise, labels, noise[::-1].copy())
    assert top1(found, labels[::-1]) == 100, "each finds itself, whatever its neighbours are"
    unrelated = np.random.default_rng(5).normal(size=(500, 32)).astype(np.float32)
    assert 4 < top1(knn_predict(noise, labels, unrelated), truth) < 16


def test_the_length_of_a_feature_does_not_matter_nor_the_order_of_the_bank() -> None:
    (train, labels), (queries, _) = planted(2.0, seed=1), planted(2.0, seed=2)
    expected = knn_predict(train, labels, queries)
    scale = np.random.default_rng(0).uniform(0.1, 10, (500, 1)).astype(np.float32)
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(
        knn_predict((train * scale)[order], labels[order], queries), expected
    )


def test_a_low_temperature_follows_the_nearest_alone() -> None:
    train = np.array([[1, 0], [0.9, 0.3], [0.9, 0.31]], np.float32)
    labels = np.array([0, 1, 1])
    query = np.array([[1, 0.01]], np.float32)
    assert knn_predict(train, labels, query, k=3, temperature=0.001).tolist() == [0]
    assert knn_predict(train, labels, query, k=3, temperature=10.0).tolist() == [1]


def test_more_neighbours_than_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 to 2"):
        knn_predict(np.eye(2, dtype=np.float32), np.array([0, 1]), np.eye(2, dtype=np.float32), k=3)


def test_a_row_of_zeros_stays_finite() -> None:
    assert unit(np.zeros((1, 4), np.float32)).tolist() == [[0, 0, 0, 0]]


def test_many_training_photos_are_compared_with_few_queries_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (train, labels), (queries, _) = planted(2.0, seed=1), planted(2.0, seed=2)
    sizes: list[int] = []

    def counting(features: NDArray[np.float32]) -> NDArray[np.float32]:
        sizes.append(len(features))
        return unit(features)

    monkeypatch.setattr("clever_training.evaluation.knn.unit", counting)
    expected = knn_predict(train, labels, queries)
    assert sizes == [500, 500], "of few training photos, all at once"
    for most, step in ((500 * 120 + 499, 120), (1, 1)):
        sizes.clear()
        monkeypatch.setattr("clever_training.evaluation.knn._SIMILARITIES", most)
        np.testing.assert_array_equal(knn_predict(train, labels, queries), expected)
        assert (max(sizes[1:]), sum(sizes[1:])) == (step, 500)


def test_features_are_scaled_in_a_copy() -> None:
    given = np.full((2, 4), 3, np.float32)
    assert unit(given).tolist() == [[0.5] * 4] * 2
    assert (given == 3).all()
