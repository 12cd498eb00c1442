"""Ridge regression is scikit-learn's; the MLP learns what no linear map can."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from clever_training.evaluation import regression
from clever_training.evaluation.regression import fit_mlp, fit_ridge, r2_each


def sample(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


def test_ridge_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regression, "PENALTIES", (0.3,))
    x = sample(200, 0)
    y = (x @ sample(6, 1)[:, :3] + 0.5 * sample(200, 2)[:, :3]).astype(np.float32)
    scaled_x, scaled_y = ((v - v.mean(0)) / v.std(0) for v in (x, y))
    theirs = Ridge(alpha=0.3 * 200, fit_intercept=False).fit(scaled_x, scaled_y)
    expected = theirs.predict(scaled_x) * y.std(0) + y.mean(0)
    np.testing.assert_allclose(fit_ridge(x, y)(x), expected, atol=1e-4)


def test_noise_is_not_predicted_and_gets_the_strongest_penalty() -> None:
    """With half as many dimensions as photos, an unregularised fit would be far below 0."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 200)).astype(np.float32)
    y = random.normal(size=(400, 2)).astype(np.float32)
    fresh = random.normal(size=(400, 200)).astype(np.float32)
    for predict in (fit_ridge(x, y), fit_mlp(x, y)):
        assert -0.35 < r2_each(y[::-1], predict(fresh)).mean() < 0.05
    assert r2_each(y[::-1], fit_ridge(x, y)(fresh)).mean() > -0.1


def test_the_mlp_learns_a_product_and_ridge_cannot() -> None:
    x, fresh = sample(2000, 0), sample(500, 1)
    product, truth = (v[:, :1] * v[:, 1:2] for v in (x, fresh))
    assert r2_each(truth, fit_mlp(x, product)(fresh)).mean() > 0.6
    assert r2_each(truth, fit_ridge(x, product)(fresh)).mean() < 0.05


def test_one_seed_gives_one_mlp_and_leaves_torchs_generator_alone() -> None:
    import torch

    x = sample(300, 0)
    state = torch.random.get_rng_state()
    same, again, other = (fit_mlp(x, x[:, :2], seed=seed)(x) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)


def test_r2_is_scikit_learns_average_over_targets() -> None:
    truth, predicted = sample(50, 0), sample(50, 0) * 0.9 + 0.1
    each = r2_each(truth, predicted)
    assert each.mean() == pytest.approx(r2_score(truth, predicted))
    np.testing.assert_allclose(r2_each(truth, np.repeat(truth.mean(0)[None], 50, 0)), 0, atol=1e-6)


def test_a_constant_feature_does_no_harm() -> None:
    x = sample(100, 0)
    x[:, 2] = 4.0
    predict = fit_ridge(x, x[:, :1])
    assert r2_each(x[:, :1], predict(x)).mean() > 0.99
