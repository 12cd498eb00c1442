"""Equivariance: predicting a transformation from a photo and its transformed copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation import regression
from clever_training.evaluation.context import SLICE, Columns, Context, rows_of
from clever_training.evaluation.perturbations import (
    ROTATED,
    UPRIGHT,
    Blur,
    Crop,
    Perturbation,
    QuarterTurn,
    draw_all,
)
from clever_training.evaluation.probe import fit_probe
from clever_training.evaluation.regression import fit_mlp, fit_ridge, r2_each
from clever_training.evaluation.results import Figures
from clever_training.evaluation.rotation_map import rotation_map_figures
from clever_training.evaluation.strengths import JITTERED, sweep_photos


@dataclass(frozen=True)
class Relation:
    """A transformation to predict from two views.

    Attributes:
        perturbation: Makes the second view; the first is the original photo under the disc.
        names: Names of the targets.
        targets: Computes the targets from the drawn parameters (N, p).
        shared: Whether other protocols perturb all validation photos in the same way, so that
            features can be shared.
    """

    perturbation: Perturbation
    names: tuple[str, ...]
    targets: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    shared: bool = False


def _sin_cos(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = np.deg2rad(parameters[:, 0])
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _first(count: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda parameters: parameters[:, :count]


RELATIONS = {
    "rotation": Relation(ROTATED, ("sin", "cos"), _sin_cos, shared=True),
    "crop": Relation(
        Perturbation((Crop(0.2, 1.0, 4 / 3),), disc=True),
        ("left", "top", "width", "height"),
        _first(4),
    ),
    "jitter": Relation(
        JITTERED, ("brightness", "contrast", "saturation", "hue"), _first(4), shared=True
    ),
    "blur": Relation(Perturbation((Blur(0.0, 2.0),), disc=True), ("sigma",), _first(1)),
}
TURNED = Perturbation((QuarterTurn(),), disc=True)

SETTINGS: dict[str, Any] = {
    "views": "the photo as it is and a transformed copy, both through the disc, concatenated",
    "r2": "scikit-learn's r2_score of each target on validation photos, then averaged",
    "ridge": f"penalty of {list(regression.PENALTIES)} times the photos, on a fifth of them",
    "mlp": f"one hidden layer of {regression.HIDDEN}, AdamW, {regression.EPOCHS} epochs at most",
    "degrees": "mean absolute error of atan2(sin, cos); always answering 0 has 45",
    "rotation": "uniform in ±90°",
    "crop": "0.2 to 1 of the area, ratio 3/4 to 4/3; left, top, width, height as shares",
    "jitter": "brightness, contrast, saturation 0.6 to 1.4, hue -0.1 to 0.1, in random order",
    "blur": "sigma 0 to 2 in pixels of a 64 px photo",
    "quarter-turns": "which of four, from the turned view alone; chance is 25 %",
    "rotation-map": (
        "(W0 + W1 sin + W2 cos) of the upright feature predicts the turned one; found by centred "
        "cosine among the photo's own 13 turned copies (pose) and all photos turned alike (photo)"
    ),
    "invariant_slice": "as many random columns of the invariant part as the equivariant one has",
}


def run_equivariance(context: Context) -> Figures:
    """How well each part predicts transformations, and how well they predict each part."""
    parts = context.parts_and_slice()
    figures = {
        name: context.kept(f"relation {name}", partial(_relation, context, name, parts))
        for name in RELATIONS
    }
    figures["quarter-turns"] = _quarter_turns(context, parts)
    figures["rotation-map"] = rotation_map_figures(context, parts)
    return figures


def _relation(
    context: Context, name: str, parts: Mapping[str, Columns]
) -> dict[str, dict[str, float]]:
    """R² of every part on one transformation."""
    relation = RELATIONS[name]
    (fit_x, fit_y), (ask_x, ask_y) = (_views(context, name, fitting) for fitting in (True, False))
    found: dict[str, dict[str, float]] = {}
    for part, columns in parts.items():
        x, asked = (np.concatenate([v[:, columns] for v in views], 1) for views in (fit_x, ask_x))
        report = context.progress(f"{name} {part}")
        # A ridge fit is deterministic, so the seeds share it; only the slice's columns differ.
        key = ("ridge", name, part, context.seed if part == SLICE else None)
        predictors = {
            "ridge": context.once(key, lambda x=x: fit_ridge(x, fit_y)),  # type: ignore[misc]
            "mlp": fit_mlp(x, fit_y, seed=context.seed, report=report),
        }
        found[part] = {}
        for kind, predict in predictors.items():
            found[part] |= _scores(kind, relation.names, ask_y, predict(asked))
    return found


def _scores(
    kind: str,
    names: tuple[str, ...],
    truth: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> dict[str, float]:
    each = r2_each(truth, predicted)
    found = {f"{kind}_r2": float(each.mean())}
    if len(names) > 1:
        found |= {f"{kind}_r2_{n}": float(value) for n, value in zip(names, each, strict=True)}
    if names == ("sin", "cos"):
        found[f"{kind}_degrees"] = degrees_off(truth, predicted)
    return found


def degrees_off(truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """The mean absolute difference between angles given as (sin, cos), at most 180°.

    Args:
        truth: float32 (N, 2), sine and cosine of the true angles.
        predicted: float32 (N, 2); the vectors may have any length.

    Returns:
        Degrees, 0 to 180.

    Example:
        >>> degrees_off(np.array([[1, 0]], np.float32), np.array([[0, 2]], np.float32))
        90.0
    """
    a, b = (np.arctan2(v[:, 0].astype(float), v[:, 1]) for v in (truth, predicted))
    away = np.abs((a - b + np.pi) % (2 * np.pi) - np.pi)
    return float(np.rad2deg(away).mean())


def _views(
    context: Context, name: str, fitting: bool
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    """Features of the photos and of their copies, and the targets of the copies."""
    relation = RELATIONS[name]
    whole, photos, seed = _photos(context, fitting)
    rows = rows_of(photos, whole)
    first = context.of(whole, UPRIGHT, "upright", seed=seed)[rows]
    # The robustness probes are fitted on the same rotated training photos.
    shared = name == "rotation" if fitting else relation.shared
    if shared:
        second = context.of(whole, relation.perturbation, name, seed=seed)[rows]
    else:
        second = context.of(photos, relation.perturbation, name, seed=seed)
    drawn = draw_all(relation.perturbation, seed, photos.indices)
    targets = relation.targets(np.array([parameters[0] for parameters in drawn]))
    return (first, second), targets.astype(np.float32)


def _photos(context: Context, fitting: bool) -> tuple[LabelledPhotos, LabelledPhotos, int]:
    """All photos of a split, the subset used here, and the seed of the transformations."""
    if fitting:
        train = context.splits.train
        return train, context.subset("pairs"), 0
    return context.splits.validation, sweep_photos(context), context.seed


def _quarter_turns(context: Context, parts: Mapping[str, Columns]) -> dict[str, dict[str, float]]:
    """Accuracy of classifying the four quarter turns from the turned view alone, in per cent."""
    features, turns = [], []
    for fitting in (True, False):
        _, photos, seed = _photos(context, fitting)
        features.append(context.of(photos, TURNED, "quarter turns", seed=seed))
        drawn = draw_all(TURNED, seed, photos.indices)
        turns.append(np.array([int(parameters[0][0]) for parameters in drawn]))
    found = {}
    for part, columns in parts.items():
        key = ("quarter-turns", part, context.seed if part == SLICE else None)
        fitted = context.once(
            key,
            lambda columns=columns: fit_probe(features[0][:, columns], turns[0], 4),  # type: ignore[misc]
        )
        found[part] = {"top1": fitted.accuracy(features[1][:, columns], turns[1])}
    return found
