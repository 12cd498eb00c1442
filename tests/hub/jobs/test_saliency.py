"""The cut against the definition, and what cannot be cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.errors import DataError
from clever_hub.jobs import saliency
from clever_hub.jobs.saliency import token_cut

scipy_linalg = pytest.importorskip("scipy.linalg")


def planted(rows: int, columns: int, noise: float = 0.2) -> NDArray[np.float32]:
    """An object of one kind of feature on a background of another."""
    features = np.zeros((rows, columns, 32), dtype=np.float32)
    features[..., 0] = 1
    features[2:5, 3:7] = np.eye(32)[1]
    return features + noise * np.random.default_rng(0).standard_normal(features.shape).astype(
        np.float32
    )


def test_a_planted_object_is_cut_out() -> None:
    cut = token_cut(planted(9, 12, noise=0.05))
    expected = np.zeros((9, 12), bool)
    expected[2:5, 3:7] = True
    assert cut.box == (3, 2, 7, 5)
    assert np.array_equal(cut.mask, expected)
    assert np.array_equal(cut.object, expected)
    assert cut.strength[3, 4] > cut.strength.mean() > cut.strength[8, 11]


def test_the_vector_solves_the_generalised_problem() -> None:
    features = planted(6, 9)
    cut = token_cut(features)
    flat = features.reshape(-1, 32).astype(np.float64)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    weights = np.where(flat @ flat.T > 0.2, 1.0, 1e-5)
    degree = np.diag(weights.sum(axis=1))
    values, vectors = scipy_linalg.eigh(degree - weights, degree)
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[2] - values[1] > 1e-4
    cosine = cut.strength.ravel() @ vectors[:, 1]
    cosine /= np.linalg.norm(cut.strength) * np.linalg.norm(vectors[:, 1])
    assert abs(cosine) == pytest.approx(1, abs=1e-6)


def test_both_solvers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    features = planted(9, 12)
    dense = token_cut(features)
    monkeypatch.setattr(saliency, "DENSE_PATCHES", 10)
    lanczos = token_cut(features)
    np.testing.assert_allclose(lanczos.strength, dense.strength, atol=1e-5)
    assert np.array_equal(lanczos.mask, dense.mask)


def test_only_the_piece_with_the_strongest_patch_is_the_object() -> None:
    features = np.zeros((8, 12, 2), dtype=np.float32)
    features[..., 0] = 1
    features[1:4, 1:4] = (0, 1)
    features[6, 10] = (0, 1)
    cut = token_cut(features)
    assert cut.mask.sum() == 10
    assert cut.object.sum() in (1, 9)


def test_a_mean_that_hides_the_object_can_be_taken_off() -> None:
    features = planted(9, 12, noise=0.05) + 10 * np.eye(32, dtype=np.float32)[2]
    with pytest.raises(DataError, match="all pairs of patches have a cosine above"):
        token_cut(features)
    assert token_cut(features, centred=True).box == (3, 2, 7, 5)


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(DataError, match="all pairs of patches have a cosine above"):
        token_cut(np.eye(4, dtype=np.float32).reshape(2, 2, 4))
    with pytest.raises(DataError, match="of two patches or more"):
        token_cut(np.ones((1, 1, 4), dtype=np.float32))
    with pytest.raises(DataError, match="not all finite"):
        token_cut(np.full((2, 2, 4), np.nan, dtype=np.float32))
    with pytest.raises(DataError, match="threshold: expected a cosine"):
        token_cut(planted(4, 8), threshold=1.5)
