"""How good a rotated embedding is, part by part, next to the embedding before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    ask: NDArray[np.floating],
    parameters: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> dict[str, float]:
    """R² of each transformation, predicted from the embedding of the view alone.

    By ridge regression with the same penalty on every direction, so that a rotation of the entries
    changes nothing; standardised columns would make the figure depend on the basis. Each half of
    the asked photos is measured with the penalty that is best for the other half.

    Args:
        fit: Centred parts (photos, views, entries) to fit to, of photos that the parts themselves
            were not fitted to; the first view is left out.
        ask: Of other photos, which are measured.
        parameters: float32 (photos, views, 14) of both.

    Returns:
        R² by name, at most 1; transformations that the views do not have are left out.
    """
    x, halves = _flat(fit), [_flat(ask[half::2]) for half in (0, 1)]
    names, y = targets_of(parameters[0], parameters[1])
    truths = [_values(parameters[1][half::2], names) for half in (0, 1)]
    center, mean = x.mean(axis=0), y.mean(axis=0)
    values, vectors = np.linalg.eigh((x - center).T @ (x - center))
    moment = vectors.T @ ((x - center).T @ (y - mean))
    scale = max(float(values.mean()), 1e-12)
    turned = [(rows - center) @ vectors for rows in halves]
    scores = np.empty((2, len(PENALTIES), len(names)))
    for row, penalty in enumerate(PENALTIES):
        weight = moment / (np.maximum(values, 0) + penalty * scale)[:, None]
        for half in (0, 1):
            scores[half, row] = _r2(truths[half], turned[half] @ weight + mean)
    chosen = scores.argmax(axis=1)[::-1]  # for each half by the other
    found = np.mean([scores[half, chosen[half], range(len(names))] for half in (0, 1)], axis=0)
    return dict(zip(names, found.tolist(), strict=True))


def targets_of(*parameters: NDArray[np.float32]) -> tuple[list[str], Rows]:
    """The transformations that all sets of views have, and their values in the first set.

    Args:
        parameters: float32 (photos, views, 14) of each set; the first view is left out.

    Returns:
        Names, and float64 (photos · (views − 1), names).
    """
    every = list(TRANSFORMATIONS)
    varied = np.min([_values(rows, every).std(axis=0) for rows in parameters], axis=0)
    there = [name for name, least in zip(every, varied, strict=True) if least > 1e-6]
    return there, _values(parameters[0], there)


def _values(parameters: NDArray[np.float32], names: Sequence[str]) -> Rows:
    flat = _flat(parameters)
    columns = [TRANSFORMATIONS[name](flat) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(flat), 0))


def _flat(rows: NDArray[np.floating]) -> Rows:
    """The transformed views, row by row."""
    return np.asarray(rows[:, 1:], np.float64).reshape(-1, rows.shape[-1])


def _r2(truth: Rows, predicted: Rows) -> NDArray[np.float64]:
    return r2_each(truth.astype(np.float32), predicted.astype(np.float32))
