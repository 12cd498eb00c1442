"""The directions in which an embedding tells what was done to a photo."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from clever_training.split.embedding import Views
from clever_training.split.measure import targets_of

_SHUFFLES = 20


def telling_directions(
    views: Views, most: int
) -> tuple[tuple[str, ...], Float[np.ndarray, "dim count"]]:
    """The covariances of an embedding with each transformation that it tells.

    What is linear in an embedding about a value lies in one direction, its covariance with the
    value: a part that is orthogonal to it has no covariance with the value, and no linear
    regression finds it there (Shao et al. 2023, "Gold Doesn't Always Glitter: Spectral Removal of
    Linear and Nonlinear Guarded Attribute Information", https://arxiv.org/abs/2203.07893; with one
    value instead of a set of labels). The covariances are those within photos, of a view less the
    mean of its photo's views: what tells photos apart would only add noise.

    Args:
        views: Of the photos that a basis is fitted to; the first view is left out.
        most: How many directions at most; those with the largest covariances.

    Returns:
        Names of the transformations, and float64 (d, count), a column for each. A transformation is
        told where its covariance is longer than those of the photos' parameters dealt out to other
        photos, in twenty of twenty times.

    Example:
        >>> telling_directions(views, 256)[0]  # doctest: +SKIP
        ('turn, cosine', 'gray')
    """
    names, values = targets_of(views.parameters)
    if not names:
        return (), np.zeros((views.embeddings.shape[-1], 0))
    rows = _within(np.asarray(views.embeddings[:, 1:], np.float64))
    values = _within(values.reshape(len(views), -1, len(names)))
    values /= np.maximum(np.sqrt(np.square(values).mean(axis=(0, 1))), 1e-12)
    found = _covariances(rows, values)
    length = np.linalg.norm(found, axis=0)
    random = np.random.default_rng(0)
    chance = np.max(
        [
            np.linalg.norm(_covariances(rows, values[random.permutation(len(values))]), axis=0)
            for _ in range(_SHUFFLES)
        ],
        axis=0,
    )
    order = [int(one) for one in np.argsort(-length) if length[one] > chance[one]]
    told = sorted(order[:most])
    return tuple(names[one] for one in told), found[:, told]


def _within(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(photos, views, entries), less the mean of each photo's views."""
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _covariances(
    rows: NDArray[np.float64], values: NDArray[np.float64]
) -> Float[np.ndarray, "dim count"]:
    flat = rows.reshape(-1, rows.shape[-1])
    return np.asarray(flat.T @ values.reshape(-1, values.shape[-1]) / len(flat))
