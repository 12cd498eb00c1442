"""Linear probes: how well a linear classifier tells the class from each part."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from clever_training.data.labelled import positions_of_every_class
from clever_training.evaluation import probe
from clever_training.evaluation.context import SLICE, Columns, Context
from clever_training.evaluation.kept import keep
from clever_training.evaluation.perturbations import PLAIN, ROTATED, UPRIGHT, Perturbation
from clever_training.evaluation.probe import Probe, fit_probe
from clever_training.evaluation.results import Figures

CONDITIONS = {
    # name: (perturbation of the training photos, perturbation of the validation photos)
    "plain": (PLAIN, PLAIN),
    "upright": (UPRIGHT, UPRIGHT),
    "rotated": (UPRIGHT, ROTATED),
}
SHARES = {"1%": 0.01, "10%": 0.1}

PROBE_SETTINGS: dict[str, Any] = {
    "lbfgs": "multinomial logistic regression on standardised features",
    "sgd": f"{probe.SGD_EPOCHS} epochs, batch {probe.SGD_BATCH}, momentum 0.9, cosine schedule",
    "chosen": (
        f"l2 of {list(probe.L2_GRID)}, or learning rate per 256 photos of "
        f"{list(probe.LEARNING_RATES)}, on a fifth of the training photos"
    ),
}
SETTINGS = {
    **PROBE_SETTINGS,
    "plain": "the whole square, upright",
    "upright": "through the disc, upright",
    "rotated": "through the disc, validation photos rotated uniformly in ±90°, training photos not",
    "invariant_slice": "as many random columns of the invariant part as the equivariant one has",
}
SEMI_SETTINGS = {
    **PROBE_SETTINGS,
    "photos": "a stratified share of all training photos, another with each seed; "
    "a class whose share rounds to 0 gives one",
    "seen": "the whole square, upright",
}


def run_linear(context: Context) -> Figures:
    """Top-1 and Top-5 of a linear probe on each part, in per cent."""
    labels = context.splits.validation.labels
    figures: Figures = {}
    for condition, (bank, queries) in CONDITIONS.items():
        asked = context.validation(queries, f"validation {condition}")
        figures[condition] = {}
        for part, columns in context.parts_and_slice().items():
            fitted = trained_probe(context, bank, part, columns)
            figures[condition][part] = _figures(fitted, asked[:, columns], labels)
    return figures


def run_semi_supervised(context: Context) -> Figures:
    """Top-1 and Top-5 of a linear probe that is fitted on few labels, in per cent."""
    validation = context.splits.validation
    asked = context.validation(PLAIN, "validation plain")
    figures: Figures = {}
    for condition, share in SHARES.items():
        features, labels = _few_labels(context, share, condition)
        fitted_on = {"photos": float(len(labels)), "classes": float(len(np.unique(labels)))}
        figures[condition] = {}
        for part, columns in context.parts.items():
            fitted = fit_probe(
                features[:, columns],
                labels,
                len(validation.classes),
                kind=context.probe,
                seed=context.seed,
                report=context.progress(f"probe {condition} {part}"),
            )
            found = _figures(fitted, asked[:, columns], validation.labels)
            figures[condition][part] = {**found, **fitted_on}
    return figures


def _few_labels(
    context: Context, share: float, condition: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features and labels of a share of the whole split, as many photos in every profile.

    They are some of the profile's photos, whose features are there, or else of all that there are.
    """
    train, every = context.splits.train, context.every_train
    wanted = max(len(train.classes), round(share * (train.split_photos or len(train.table))))
    if every is None or wanted <= len(train):
        rows = positions_of_every_class(train.labels, min(wanted, len(train)), context.seed)
        return context.train(PLAIN, "train plain")[rows], train.labels[rows]
    rows = positions_of_every_class(every.labels, min(wanted, len(every)), context.seed)
    photos = every.subset(rows)
    return context.of(photos, PLAIN, f"train {condition}", seed=0), photos.labels


def trained_probe(context: Context, bank: Perturbation, part: str, columns: Columns) -> Probe:
    """A probe fitted on the training photos; the seeds share it when its fit is deterministic.

    Args:
        context: Model, photos and seed.
        bank: Perturbation of the training photos; linear probes and robustness share it.
        part: Name of the columns.
        columns: Columns of the features.

    Returns:
        The probe.
    """
    drawn = context.seed if part == SLICE or context.probe == "sgd" else None
    key = ("probe", bank, part, context.probe, drawn)
    path = context.store.pieces.path(f"{key} {context.depends_on()}", ".safetensors")

    def fit() -> Probe:
        train = context.splits.train
        return fit_probe(
            context.train(bank)[:, columns],
            train.labels,
            len(train.classes),
            kind=context.probe,
            seed=context.seed if context.probe == "sgd" else 0,
            report=context.progress(f"probe {part}"),
        )

    return context.once(key, lambda: kept_probe(path, fit))


def kept_probe(path: Path, fit: Callable[[], Probe]) -> Probe:
    """A probe from its file, or fitted now and kept there.

    Args:
        path: The file; a damaged one counts as none.
        fit: Fits the probe.

    Returns:
        The probe, the same to the last bit.
    """
    if path.is_file():
        with suppress(SafetensorError, OSError, KeyError), safe_open(path, "pt") as file:
            chosen = json.loads(file.metadata()["chosen"])
            return Probe(file.get_tensor("weight"), file.get_tensor("bias"), chosen)
    probe = fit()
    tensors = {"weight": probe.weight.contiguous(), "bias": probe.bias.contiguous()}
    metadata = {"chosen": json.dumps(probe.chosen)}
    keep(path, lambda temporary: save_file(tensors, temporary, metadata), "linear probes")
    return probe


def _figures(
    fitted: Probe, features: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, float]:
    accuracies = {f"top{k}": fitted.accuracy(features, labels, k) for k in (1, 5)}
    return {**accuracies, **fitted.chosen}
