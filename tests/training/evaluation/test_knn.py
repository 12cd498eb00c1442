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
    shuffled = np.random.default_rng(3).permutation(labels)
    assert top1(knn_predict(train, shuffled, queries), truth) < 35  # 10 classes, 10 directions
    noise = np.random.default_rng(4).normal(size=(500, 32)).astype(np.float32)
    assert top1(knn_predict(noise, labels, noise[::-1].copy()), truth[::-1]) > 0
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
