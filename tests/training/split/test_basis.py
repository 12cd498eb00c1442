"""The rotation: planted directions are found, and no centred cosine changes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from clever_hub.errors import DataError
from clever_training.split.basis import basis, scatter, stability
from clever_training.split.choose import find_split
from clever_training.split.embedding import Views
from clever_training.split.measure import explained, similarity
from clever_training.split.telling import telling_directions

DIM, MOVING = 24, 6


def planted(photos: int, seed: int) -> Views:
    """18 directions say which photo it is, 6 how it was transformed; all of them rotated."""
    random = np.random.default_rng(seed)
    parameters = np.zeros((photos, 4, 14), np.float32)
    parameters[:, 1:, 5] = random.uniform(-np.pi, np.pi, (photos, 3))
    parameters[:, 1:, 6:10] = random.uniform(-1, 1, (photos, 3, 4))
    parameters[..., 2:4] = 1
    angle = parameters[..., 5]
    moving = np.stack(
        [np.sin(angle), np.cos(angle), *np.moveaxis(parameters[..., 6:10], -1, 0)], axis=-1
    )
    staying = random.normal(size=(photos, 1, DIM - MOVING)) + 0.05 * random.normal(
        size=(photos, 4, DIM - MOVING)
    )
    rows = np.concatenate([3 * moving, staying], axis=-1)
    rotation = ortho_group.rvs(DIM, random_state=1)
    return Views((rows @ rotation + 5).astype(np.float32), parameters)


def test_planted_directions_are_found_and_told_apart() -> None:
    fit, choose, ask = (planted(photos, seed) for seed, photos in enumerate((200, 60, 100)))
    found = find_split(fit, choose, ask, DIM - MOVING)
    moving = ortho_group.rvs(DIM, random_state=1)[:MOVING]
    inside = np.square(moving @ found.basis[:, DIM - MOVING :]).sum(axis=1)
    assert inside.min() > 0.99, "the equivariant part is the space that was planted"
    assert found.after["invariant"].mrr > 0.999 > found.before["full"].mrr
    assert found.after["invariant"].gap > found.before["full"].gap + 0.2
    for name in ("turn, sine", "turn, cosine", "hue"):
        assert found.r2["equivariant"][name] > 0.95
        assert found.r2["invariant"][name] < 0.1
    assert "zoom" not in found.r2["full"], "no view was zoomed"
    assert found.stable > 0.98
    assert found.shrinkage == (0.0, 0.0)


def faint(photos: int, seed: int) -> Views:
    """As ``planted``, but that the turn moves the embedding less than all else does."""
    random = np.random.default_rng(seed)
    parameters = np.zeros((photos, 4, 14), np.float32)
    parameters[:, 1:, 5] = random.uniform(-np.pi / 2, np.pi / 2, (photos, 3))
    parameters[..., 2:4] = 1
    rows = random.normal(size=(photos, 1, DIM)) + 0.3 * random.normal(size=(photos, 4, DIM))
    rows[..., -MOVING:] += 0.7 * random.normal(size=(photos, 4, MOVING))
    rows[..., 0] = 0.6 * np.cos(parameters[..., 5]) + 0.005 * random.normal(size=(photos, 4))
    rotation = ortho_group.rvs(DIM, random_state=1)
    return Views((rows @ rotation).astype(np.float32), parameters)


def test_a_faint_direction_that_tells_the_turn_is_not_left_in_the_invariant_part() -> None:
    fit, choose, ask = (faint(photos, seed) for seed, photos in enumerate((300, 100, 100)))
    found = find_split(fit, choose, ask, DIM - MOVING)
    assert found.told == ("turn, cosine",)
    assert found.r2["invariant"]["turn, cosine"] < 0.05
    # By how much it moves alone it would be among what stays.
    cut, plain = DIM - MOVING, basis(scatter(fit.embeddings), found.c)
    rows = [(views.embeddings - found.mean) @ plain[:, :cut] for views in (choose, ask)]
    there = explained(rows[0], rows[1], (choose.parameters, ask.parameters))
    assert there["turn, cosine"] > 0.9


def test_what_is_not_in_an_embedding_has_no_direction() -> None:
    views = faint(300, 0)
    random = np.random.default_rng(1)
    blind = Views(random.normal(size=views.embeddings.shape).astype(np.float32), views.parameters)
    names, directions = telling_directions(blind, 6)
    assert len(names) <= 1, "of two transformations; one in twenty shuffles is as long by chance"
    assert directions.shape == (DIM, len(names))
    names, directions = telling_directions(planted(200, 0), 2)
    assert len(names) == 2
    assert directions.shape == (DIM, 2)


def test_centred_cosines_stay() -> None:
    views = planted(120, 0)
    found = scatter(views.embeddings)
    rotation = basis(found, 0.3)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(DIM), atol=1e-12)
    before = (views.embeddings[:, 0] - found.mean).astype(np.float32)
    after = before @ rotation.astype(np.float32)
    one, two = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (before, after))
    assert np.abs(one @ one.T - two @ two.T).max() <= 1e-6


def test_the_views_own_movement_is_taken_off_the_photos_differences() -> None:
    random = np.random.default_rng(0)
    photos, views = 4000, 3
    rows = random.normal(size=(photos, 1, 2)) * (2, 1) + random.normal(size=(photos, views, 2))
    found = scatter(rows)
    np.testing.assert_allclose(found.within, np.eye(2), atol=0.05)
    np.testing.assert_allclose(found.between, np.diag([4.0, 1.0]), atol=0.15)


def test_few_photos_are_shrunk_and_that_is_nearer_the_truth() -> None:
    random = np.random.default_rng(0)
    deviation = np.linspace(0.5, 2, 60)

    def off(photos: int) -> tuple[float, float, tuple[float, float]]:
        rows = random.normal(size=(photos, 1, 60)) * deviation
        rows = rows + random.normal(size=(photos, 4, 60))
        found = scatter(rows)
        apart = rows.mean(axis=1)
        raw = np.cov(apart.T) - found.within / 4
        truth = np.diag(deviation**2)
        return (
            float(np.linalg.norm(found.between - truth)),
            float(np.linalg.norm(raw - truth)),
            found.shrinkage,
        )

    shrunk, raw, shares = off(40)
    assert shrunk < 0.6 * raw
    assert all(0 < share <= 1 for share in shares)
    assert off(61)[2] == (0.0, 0.0)


def test_a_ridge_figure_does_not_depend_on_the_basis() -> None:
    sets = [planted(60, seed) for seed in range(2)]
    parameters = sets[0].parameters, sets[1].parameters
    rows = [views.embeddings - 5 for views in sets]
    turned = [one @ ortho_group.rvs(DIM, random_state=2) for one in rows]
    one = explained(rows[0], rows[1], parameters)
    two = explained(turned[0], turned[1], parameters)
    assert one == pytest.approx(two, abs=1e-6)
    assert one["turn, cosine"] > 0.9


def test_similarity_is_that_of_a_loop() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 3, 5)) + np.arange(7)[:, None, None]
    found = similarity(rows)
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    own = [unit[i, 0] @ unit[i, v] for i in range(7) for v in (1, 2)]
    other = [unit[i, 0] @ unit[j, v] for i in range(7) for j in range(7) for v in (1, 2) if i != j]
    assert found.own == pytest.approx(np.mean(own), abs=1e-6)
    assert found.other == pytest.approx(np.mean(other), abs=1e-6)


def test_two_random_subspaces_share_what_chance_gives() -> None:
    a, b = ortho_group.rvs(50, size=2, random_state=0)
    assert stability(a, a, 10) == pytest.approx(1.0)
    assert stability(a, b, 10) == pytest.approx(0.2, abs=0.08)


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"two views each, got \(5, 1, 3\)"):
        scatter(np.zeros((5, 1, 3)))
    with pytest.raises(DataError, match="finite"):
        scatter(np.full((5, 2, 3), np.nan))
    few = planted(10, 0)
    with pytest.raises(DataError, match=r"expected at least 20 photos .* got 10, 10, 10"):
        find_split(few, few, few, 18)
