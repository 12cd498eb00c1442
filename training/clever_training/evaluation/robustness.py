"""Robustness: the accuracy of a linear probe on perturbed photos."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from clever_training.evaluation import strengths
from clever_training.evaluation.context import Context
from clever_training.evaluation.linear import PROBE_SETTINGS, trained_probe
from clever_training.evaluation.perturbations import ROTATED, UPRIGHT
from clever_training.evaluation.results import Figures

# Perturbations of the probe's training photos.
TRAINED = {"upright": UPRIGHT, "rotated": ROTATED}

GRID_SETTINGS = {
    **PROBE_SETTINGS,
    "trained": "upright, or rotated uniformly in ±90°; all photos through the disc",
    "cj": "colour jitter 0.4, 0.4, 0.4, 0.1",
    "flip": "horizontal, half of the time",
    "ro": "rotation uniform in ±90°",
    "et": "elastic transform, alpha 100 and sigma 5 at 224 px, scaled to the photo's size",
}
SWEEP_SETTINGS = {
    **PROBE_SETTINGS,
    "trained": GRID_SETTINGS["trained"],
    **strengths.STRENGTHS,
    "seeds": "one draw of crops and one set of photos for all",
}
SWEEPS_SHOWN = tuple(
    f"{trained}/{name}"
    for trained in TRAINED
    for name in (
        *(f"rotation/{angle}" for angle in (0, 45, 90, 135, 180)),
        *("crop/0.6", "crop/0.2", "brightness/0.5", "brightness/2", "blur/1", "blur/3"),
    )
)


def run_robustness(context: Context) -> Figures:
    """Top-1 on the paper's grid of perturbations, in per cent."""
    labels = context.splits.validation.labels
    asked = (
        (name, context.validation(perturbation, f"validation {name}"))
        for name, perturbation in strengths.GRID.items()
    )
    return _accuracies(context, asked, labels)


def run_sweeps(context: Context) -> Figures:
    """Top-1 against the strength of each transformation, in per cent."""
    labels = strengths.sweep_photos(context).labels
    asked = (
        (name, strengths.sweep_features(context, name, perturbation))
        for name, perturbation in strengths.sweep_names().items()
    )
    return _accuracies(context, asked, labels)


def _accuracies(
    context: Context,
    asked: Iterator[tuple[str, NDArray[np.float32]]],
    labels: NDArray[np.int64],
) -> Figures:
    """The accuracy of each probe on each matrix of features, by ``TRAINED/name``."""
    probes = {
        trained: {
            part: trained_probe(context, bank, part, columns)
            for part, columns in context.parts.items()
        }
        for trained, bank in TRAINED.items()
    }
    found: Figures = {}
    for name, features in asked:
        for trained, by_part in probes.items():
            found[f"{trained}/{name}"] = {
                part: {"top1": by_part[part].accuracy(features[:, columns], labels)}
                for part, columns in context.parts.items()
            }
    order = sorted(found, key=lambda condition: list(TRAINED).index(condition.split("/")[0]))
    return {condition: found[condition] for condition in order}
