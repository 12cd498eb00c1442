"""The linear probe is scikit-learn's, finds what was planted, and nothing where nothing is."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy

from clever_training.data.labelled import stratified_positions
from clever_training.evaluation import probe
from clever_training.evaluation.probe import L2_GRID, Spectrum, fit_probe, logistic_fit


def planted(
    noise: float, seed: int, width: int = 24, count: int = 600
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ten directions, one per class, plus noise; columns of unlike scale and offset."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(42).normal(size=(10, width))
    labels = np.arange(count) % 10
    features = centres[labels] + noise * random.normal(size=(count, width))
    scale = np.geomspace(0.01, 100, width)
    return (features * scale + 3 * scale).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("l2", [1.0, 0.01])
def test_logistic_regression_is_scikit_learns(l2: float) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 12)).astype(np.float32)
    y = random.integers(0, 5, 400)
    theirs = LogisticRegression(C=1 / (len(x) * l2), tol=1e-8, max_iter=1000).fit(x, y)
    ours = logistic_fit(torch.from_numpy(x), torch.from_numpy(y), 5, l2, max_iterations=300)
    np.testing.assert_allclose(ours[:-1].T, theirs.coef_, atol=2e-3)
    # A constant added to every class's bias changes nothing: scikit-learn's sum to zero.
    np.testing.assert_allclose(ours[-1] - ours[-1].mean(), theirs.intercept_, atol=2e-3)


def test_starting_elsewhere_ends_in_the_same_place() -> None:
    features, labels = planted(1.0, seed=0)
    x = torch.from_numpy((features - features.mean(0)) / features.std(0))
    y = torch.from_numpy(labels)
    far = torch.full((25, 10), 0.5)
    cold, warm = (logistic_fit(x, y, 10, 0.1, start=start) for start in (None, far))
    # The bias may differ by a constant, which no prediction sees.
    torch.testing.assert_close(cold[:-1], warm[:-1], atol=2e-3, rtol=0)


def test_correlated_features_do_not_slow_it_down() -> None:
    features, labels = planted(3.0, seed=0)
    mixed = features / features.std(0) @ np.random.default_rng(1).normal(size=(24, 24))
    x = torch.from_numpy(((mixed - mixed.mean(0)) / mixed.std(0)).astype(np.float32))
    y, l2 = torch.from_numpy(labels), 1e-3

    def reached(iterations: int, spectrum: Spectrum | None = None) -> float:
        w = logistic_fit(x, y, 10, l2, max_iterations=iterations, spectrum=spectrum)
        return float(cross_entropy(x @ w[:-1] + w[-1], y) + l2 / 2 * w[:-1].square().sum())

    optimum = reached(500)
    as_if_round = Spectrum(torch.ones(24), torch.eye(24))
    assert reached(10) < optimum + 1e-4
    assert reached(10, as_if_round) > optimum + 1e-2


@pytest.mark.parametrize("kind", ["lbfgs", "sgd"])
def test_a_planted_class_is_found_and_shuffled_labels_are_not(
    kind: Literal["lbfgs", "sgd"],
) -> None:
    (train, labels), (queries, truth) = planted(0.7, seed=1), planted(0.7, seed=2)
    assert fit_probe(train, labels, 10, kind=kind).accuracy(queries, truth) > 95
    shuffled = np.random.default_rng(3).permutation(labels)
    found = fit_probe(train, shuffled, 10, kind=kind).accuracy(queries, truth)
    assert 0 < found < 25  # chance is 10; ten directions make predictions of a class go together


def test_regularisation_is_chosen_by_what_is_noise() -> None:
    random = np.random.default_rng(0)
    hint = random.normal(size=(1500, 900)).astype(np.float32)
    labels = np.arange(1500) % 2
    hint[:, :2] += labels[:, None]
    hard = fit_probe(hint, labels, 2).chosen["l2"]
    features, classes = planted(0.3, seed=1)
    easy = fit_probe(features, classes, 10)
    assert hard >= 0.1
    assert easy.chosen["l2"] in L2_GRID
    assert easy.accuracy(features, classes) == 100


def test_the_last_fit_starts_where_the_chosen_one_ended_and_ends_in_the_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, labels = planted(2.0, seed=1)
    starts = []

    def recording(*args: Any, start: Any = None, **options: Any) -> Any:
        starts.append(start)
        return logistic_fit(*args, start=start, **options)

    monkeypatch.setattr(probe, "logistic_fit", recording)
    fitted = fit_probe(features, labels, 10)
    assert starts[0] is None
    assert starts[-1] is not None
    x = (features - features.mean(0)) / features.std(0)
    cold = logistic_fit(
        torch.from_numpy(x), torch.from_numpy(labels), 10, fitted.chosen["l2"], max_iterations=500
    )
    ours = torch.from_numpy(fitted.scores(features)).softmax(1)
    theirs = (torch.from_numpy(x) @ cold[:-1] + cold[-1]).softmax(1)
    assert float((ours - theirs).abs().max()) < 0.02


def test_scale_and_offset_of_the_features_do_not_matter() -> None:
    (train, labels), (queries, truth) = planted(1.0, seed=1), planted(1.0, seed=2)
    first = fit_probe(train, labels, 10)
    second = fit_probe(1000 * train - 7, labels, 10)
    assert first.chosen == second.chosen
    agree = first.scores(queries).argmax(1) == second.scores(1000 * queries - 7).argmax(1)
    assert agree.mean() > 0.99
    assert first.accuracy(queries, truth, k=5) > first.accuracy(queries, truth)


def test_a_constant_column_and_a_class_with_one_photo_are_no_obstacle() -> None:
    features, labels = planted(0.5, seed=1, count=60)
    features[:, 3] = 5.0
    labels[labels == 9] = 0
    labels[-1] = 9
    fitted = fit_probe(features, labels, 10)
    assert np.isfinite(fitted.scores(features)).all()


def test_steps_are_reported_to_the_end() -> None:
    features, labels = planted(0.5, seed=1, count=100)
    seen: list[tuple[int, int]] = []
    fit_probe(features, labels, 10, report=lambda *step: seen.append(step))
    assert seen[-1] == (len(L2_GRID) + 1, len(L2_GRID) + 1)


def test_of_single_photos_nothing_is_held_out() -> None:
    features, labels = planted(1.0, seed=0, count=10)
    found = fit_probe(features, labels, 10)
    assert found.chosen == {"l2": L2_GRID[0]}
    assert found.accuracy(features, labels) == 100


def test_the_only_photo_of_a_class_is_fitted_to() -> None:
    labels = np.array([0] * 5 + [1] * 5 + [*range(2, 30)])
    for seed in range(5):
        held = probe._held_out(labels, seed)
        assert 1 <= held.sum() <= 10
        assert not held[10:].any()
    balanced = np.arange(100) % 10
    assert np.flatnonzero(probe._held_out(balanced, 3)).tolist() == (
        stratified_positions(balanced, 20, 3).tolist()
    )
