"""Invariance and retrieval: photos compared with transformed copies, both under the disc."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clever_training.evaluation import strengths
from clever_training.evaluation.context import Context, rows_of
from clever_training.evaluation.invariance import invariance_figures
from clever_training.evaluation.perturbations import ROTATED, UPRIGHT
from clever_training.evaluation.results import Figures
from clever_training.evaluation.retrieval import own_ranks, rank_figures

_COPIES = {
    "rotation": "uniform in ±90°, original and copy through the disc",
    "cj, cj+flip, cj+ro, cj+ro+et": "the perturbations of robustness",
    "TRANSFORMATION/STRENGTH": "the strengths of sweeps",
}
INVARIANCE_SETTINGS = {
    **_COPIES,
    "same": "mean cosine of a photo with its own copy",
    "different": "mean cosine of a photo with the copy of another",
    "gap": "same - different",
    "centred": "after the mean of the training photos' features was taken off",
}
RETRIEVAL_SETTINGS = {
    **_COPIES,
    "asked": "a copy, for its original among all validation photos",
    "similarity": "cosine, after the mean of the training photos' features was taken off",
    "mrr": "mean of 1 / rank; equally similar photos share their ranks",
}
SHOWN = (
    "rotation",
    "cj",
    "cj+ro",
    "cj+ro+et",
    "rotation/15",
    "rotation/45",
    "rotation/90",
    "rotation/180",
    "crop/0.6",
    "crop/0.2",
    "brightness/0.5",
    "brightness/2",
    "blur/1",
    "blur/3",
)


def run_invariance(context: Context) -> Figures:
    """Cosines of photos with their own copies and with copies of other photos."""
    mean = context.train(UPRIGHT).mean(axis=0)
    originals = context.validation(UPRIGHT, "validation upright")
    return {
        condition: {
            part: invariance_figures(originals[rows][:, columns], copies[:, columns], mean[columns])
            for part, columns in context.parts.items()
        }
        for condition, copies, rows in _copies(context)
    }


def run_retrieval(context: Context) -> Figures:
    """How often a copy finds its original among all validation photos."""
    mean = context.train(UPRIGHT).mean(axis=0)
    gallery = context.validation(UPRIGHT, "validation upright") - mean
    return {
        condition: {
            part: rank_figures(own_ranks((copies - mean)[:, columns], gallery[:, columns], rows))
            for part, columns in context.parts.items()
        }
        for condition, copies, rows in _copies(context)
    }


def _copies(context: Context) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.int64]]]:
    """For each condition its name, features of copies, and the rows of their originals."""
    validation = context.splits.validation
    every = np.arange(len(validation))
    yield "rotation", context.validation(ROTATED, "validation rotated"), every
    for name, perturbation in strengths.GRID.items():
        if perturbation.steps:
            yield name, context.validation(perturbation, f"validation {name}"), every
    rows = rows_of(strengths.sweep_photos(context), validation)
    for name, perturbation in strengths.sweep_names().items():
        if perturbation.steps:
            yield name, strengths.sweep_features(context, name, perturbation), rows
