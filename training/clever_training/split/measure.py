"""How good a rotated embedding is, part by part, next to the embedding before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clever_training.evaluation.knn import unit
from clever_training.evaluation.regression import r2_each
from clever_training.evaluation.retrieval import own_ranks

# Relative to the mean variance of a part's entries.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
Rows = NDArray[np.float64]

# What was done to a view, from the parameters of ``ViewParameters.as_array``.
TRANSFORMATIONS: Mapping[str, Callable[[Rows], Rows]] = {
    "turn, sine": lambda p: np.sin(p[:, 5]),
    "turn, cosine": lambda p: np.cos(p[:, 5]),
    "mirrored": lambda p: p[:, 4],
    "zoom": lambda p: np.log2(p[:, 2] * p[:, 3]),
    "shift across": lambda p: p[:, 0] + p[:, 2] / 2,
    "shift down": lambda p: p[:, 1] + p[:, 3] / 2,
    "brightness": lambda p: p[:, 6],
    "contrast": lambda p: p[:, 7],
    "saturation": lambda p: p[:, 8],
    "hue": lambda p: p[:, 9],
    "gray": lambda p: p[:, 10],
    "blur": lambda p: p[:, 11],
}


@dataclass(frozen=True)
class Similarity:
    """How well a part holds a photo together under transformations, and apart from others.

    Attributes:
        own: Mean centred cosine of a photo and its transformed copies.
        other: Of a photo and copies of other photos.
        mrr: Mean reciprocal rank of the right photo among all, asked by its copy; 1 is best.
    """

    own: float
    other: float
    mrr: float

    @property
    def gap(self) -> float:
        """Similarity kept: ``own`` less ``other``."""
        return self.own - self.other


def similarity(rows: NDArray[np.floating]) -> Similarity:
    """Measure the similarity of photos and their views.

    Args:
        rows: Centred embeddings or parts of them (photos, views, entries); the first view is the
            photo as it is.

    Returns:
        The figures.

    Example:
        >>> rows = np.eye(3)[:, None].repeat(2, axis=1)
        >>> similarity(rows)
        Similarity(own=1.0, other=0.0, mrr=1.0)
    """
    photos, views, _ = rows.shape
    clean = unit(np.asarray(rows[:, 0], np.float32))
    copies = unit(np.asarray(rows[:, 1:], np.float32).reshape(photos * (views - 1), -1))
    targets = np.repeat(np.arange(photos), views - 1)
    cosines = copies @ clean.T
    own = float(cosines[np.arange(len(copies)), targets].astype(np.float64).mean())
    total = float(cosines.astype(np.float64).sum())
    other = (total - own * len(copies)) / (len(copies) * (photos - 1))
    ranks = own_ranks(copies, clean, targets)
    return Similarity(own, other, float((1 / ranks).mean()))


def explained(
    fit: NDArray[np.floating],
    choose: NDArray[np.floating],
    ask: NDArray[np.floating],
    parameters: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
) -> dict[str, float]:
    """R² of each transformation, predicted from the embedding of the view alone.

    By ridge regression with the same penalty on every direction, so that a rotation of the entries
    changes nothing; standardised columns would make the figure depend on the basis. The penalty of
    each transformation is the best on photos of its own.

    Args:
        fit: Centred parts (photos, views, entries) to fit to; the first view is left out.
        choose: Of other photos, which choose the penalties.
        ask: Of yet others, which are measured.
        parameters: float32 (photos, views, 14) of each of the three.

    Returns:
        R² by name, at most 1; transformations that the views do not have are left out.
    """
    x, held, asked = (_flat(rows) for rows in (fit, choose, ask))
    names, targets = _targets(*parameters)
    y, held_y, asked_y = targets
    center, mean = x.mean(axis=0), y.mean(axis=0)
    values, vectors = np.linalg.eigh((x - center).T @ (x - center))
    moment = vectors.T @ ((x - center).T @ (y - mean))
    scale = max(float(values.mean()), 1e-12)
    turned, asked_turned = (held - center) @ vectors, (asked - center) @ vectors
    best = np.full(len(names), -np.inf)
    result = np.zeros(len(names))
    for penalty in PENALTIES:
        weight = moment / (np.maximum(values, 0) + penalty * scale)[:, None]
        score = _r2(held_y, turned @ weight + mean)
        found = _r2(asked_y, asked_turned @ weight + mean)
        result = np.where(score > best, found, result)
        best = np.maximum(best, score)
    return dict(zip(names, result.tolist(), strict=True))


def _flat(rows: NDArray[np.floating]) -> Rows:
    """The transformed views, row by row."""
    return np.asarray(rows[:, 1:], np.float64).reshape(-1, rows.shape[-1])


def _targets(*parameters: NDArray[np.float32]) -> tuple[list[str], list[Rows]]:
    flat = [_flat(rows) for rows in parameters]
    columns = {name: [target(rows) for rows in flat] for name, target in TRANSFORMATIONS.items()}
    there = [name for name, values in columns.items() if min(float(v.std()) for v in values) > 1e-6]
    return there, [
        np.stack([columns[name][index] for name in there], axis=1) for index in range(len(flat))
    ]


def _r2(truth: Rows, predicted: Rows) -> NDArray[np.float64]:
    return r2_each(truth.astype(np.float32), predicted.astype(np.float32))
