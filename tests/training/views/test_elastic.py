"""The cheap elastic field has the law of torchvision's: size, smoothness, edges, independence."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_training.views.elastic import elastic_field
from clever_training.views.published import displacement

SIZE, ALPHA, SIGMA, DRAWS = 96, 100.0, 5.0, 200


def _published(alpha: float, sigma: float, seed: int, size: int) -> NDArray[np.float32]:
    """In pixels, as ours."""
    field = displacement(alpha, sigma, seed, size)[0] * (size / 2)
    return np.asarray(field, dtype=np.float32)


@pytest.fixture(scope="module")
def fields() -> dict[str, NDArray[np.float32]]:
    """Draws of both, (draws, size, size, 2)."""
    made = {"fast": elastic_field, "torchvision": _published}
    return {
        name: np.stack([make(ALPHA, SIGMA, seed, SIZE) for seed in range(DRAWS)])
        for name, make in made.items()
    }


def test_displacements_have_the_published_size(fields: dict[str, NDArray[np.float32]]) -> None:
    # Uniform noise in ±α/2, blurred: α/√12 · 1/(2√π·σ), away from the edges.
    expected = ALPHA / np.sqrt(12) / (2 * np.sqrt(np.pi) * SIGMA)
    for field in fields.values():
        inner = field[:, 20:-20, 20:-20]
        assert inner.std() == pytest.approx(expected, rel=0.05)
        assert abs(inner.mean()) < 0.05
    ours, theirs = (np.percentile(np.abs(field), (50, 90, 99)) for field in fields.values())
    np.testing.assert_allclose(ours, theirs, rtol=0.06)


def test_edges_move_as_much_as_the_published(fields: dict[str, NDArray[np.float32]]) -> None:
    # The noise is mirrored there: larger by √2 right at an edge, by 2 in a corner.
    for field in fields.values():
        inner = field[:, 20:-20, 20:-20].std()
        assert field[:, 0, 20:-20].std() == pytest.approx(2**0.5 * inner, rel=0.12)


@pytest.mark.parametrize("distance", [1, 2, 5, 8, 12])
def test_it_is_as_smooth_as_the_published(
    fields: dict[str, NDArray[np.float32]], distance: int
) -> None:
    # The mean step over a distance, against that of a Gaussian's autocorrelation exp(-d²/4σ²).
    law = np.sqrt(2 - 2 * np.exp(-(distance**2) / (4 * SIGMA**2)))
    for field in fields.values():
        inner = field[:, 16:-16, 16:-16]
        step = (inner[:, :, distance:] - inner[:, :, :-distance]).std() / inner.std()
        assert step == pytest.approx(law, rel=0.06)


def test_across_and_down_are_independent(fields: dict[str, NDArray[np.float32]]) -> None:
    x, y = fields["fast"][..., 0].ravel(), fields["fast"][..., 1].ravel()
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.08


def test_a_field_is_a_pure_function_of_its_seed() -> None:
    np.testing.assert_array_equal(elastic_field(9.0, 3.0, 5, 32), elastic_field(9.0, 3.0, 5, 32))
    assert np.abs(elastic_field(9.0, 3.0, 5, 32) - elastic_field(9.0, 3.0, 6, 32)).max() > 0.1
    assert (displacement(9.0, 3.0, 5, 32) == displacement(9.0, 3.0, 5, 32)).all()


def test_a_blur_narrower_than_a_pixel_keeps_a_cell_for_each() -> None:
    field = elastic_field(10.0, 0.5, 0, 16)
    assert field.shape == (16, 16, 2)
    assert np.isfinite(field).all()
    assert 0 < np.abs(field).max() <= 5
