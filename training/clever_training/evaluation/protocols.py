"""The protocols by name: each measures one model with one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import ConfigError, suggest
from clever_training.evaluation import knn
from clever_training.evaluation.data import Photos, Splits
from clever_training.evaluation.features import FeatureStore
from clever_training.evaluation.invariance import invariance_figures
from clever_training.evaluation.models import FeatureExtractor
from clever_training.evaluation.perturbations import PLAIN, ROTATED, UPRIGHT, Perturbation
from clever_training.evaluation.results import Figures


@dataclass(frozen=True)
class Profile:
    """How much is measured.

    Attributes:
        name: For evaluation.json.
        train: Photos to fit on; None for all.
        validation: Photos to measure on; None for all.
        seeds: How many seeds when the user does not say.
        random_models: Whether every seed gets another random initialisation to compare with.
            Otherwise all use one, and its features are computed once.
    """

    name: str
    train: int | None
    validation: int | None
    seeds: int
    random_models: bool


PROFILES = {
    "quick": Profile("quick", train=10_000, validation=2_000, seeds=3, random_models=False),
    "full": Profile("full", train=None, validation=None, seeds=3, random_models=True),
}


@dataclass(frozen=True)
class Context:
    """What a protocol works with.

    Attributes:
        extractor: The model.
        splits: The photos, already cut down to the profile.
        store: Computes and caches features.
        profile: How much is measured.
        seed: Of everything that is random.
        label: Names the model in the progress report.
    """

    extractor: FeatureExtractor
    splits: Splits
    store: FeatureStore
    profile: Profile
    seed: int
    label: str = ""

    @property
    def parts(self) -> dict[str, slice]:
        """Columns of each part."""
        return self.extractor.parts

    def train(self, perturbation: Perturbation, label: str = "") -> NDArray[np.float32]:
        """Features of the training photos, float32 (N, d); fixed seed, so that seeds share them."""
        return self.of(self.splits.train, perturbation, label or "train", seed=0)

    def validation(self, perturbation: Perturbation, label: str = "") -> NDArray[np.float32]:
        """Features of the validation photos, float32 (N, d), perturbed by the seed."""
        return self.of(self.splits.validation, perturbation, label or "validation", seed=self.seed)

    def of(
        self, photos: Photos, perturbation: Perturbation, label: str, *, seed: int, view: int = 0
    ) -> NDArray[np.float32]:
        """Features of some photos, float32 (N, d)."""
        text = f"{self.label} {label}"
        return self.store.features(
            self.extractor, photos, perturbation, seed=seed, view=view, label=text
        )


class Protocol(NamedTuple):
    """A way to measure.

    Attributes:
        run: Measures one model with one seed.
        settings: What evaluation.json says about it.
        headline: The metric that tables show.
        unit: Of the headline metric.
    """

    run: Callable[[Context], Figures]
    settings: dict[str, Any]
    headline: tuple[str, ...]
    unit: Literal["%", ""] = ""


KNN_CONDITIONS = {
    # name: (what the bank of training photos sees, what the queries see)
    "plain": (PLAIN, PLAIN),
    "upright": (UPRIGHT, UPRIGHT),
    "rotated": (UPRIGHT, ROTATED),
}


def run_knn(context: Context) -> Figures:
    """k-NN Top-1 of each part, in per cent."""
    train, validation = context.splits
    figures: Figures = {}
    for condition, (bank, queries) in KNN_CONDITIONS.items():
        fitted = context.train(bank, f"train {condition}")
        asked = context.validation(queries, f"validation {condition}")
        figures[condition] = {}
        for part, columns in context.parts.items():
            k = min(knn.K, len(train))
            predicted = knn.knn_predict(fitted[:, columns], train.labels, asked[:, columns], k=k)
            figures[condition][part] = {"top1": knn.top1(predicted, validation.labels)}
    return figures


def run_invariance(context: Context) -> Figures:
    """Cosines of photos with their rotated copies, next to those of different photos."""
    mean = context.train(UPRIGHT).mean(axis=0)
    originals = context.validation(UPRIGHT, "validation upright")
    copies = context.validation(ROTATED, "validation rotated")
    return {
        "rotation": {
            part: invariance_figures(originals[:, columns], copies[:, columns], mean[columns])
            for part, columns in context.parts.items()
        }
    }


PROTOCOLS = {
    "knn": Protocol(
        run_knn,
        {
            "k": knn.K,
            "temperature": knn.TEMPERATURE,
            "similarity": "cosine",
            "plain": "the whole square, upright",
            "upright": "through the disc, upright",
            "rotated": "through the disc, queries rotated uniformly in ±90°, training photos not",
        },
        ("top1",),
        "%",
    ),
    "invariance": Protocol(
        run_invariance,
        {
            "rotation": "uniform in ±90°, original and copy through the disc",
            "same": "mean cosine of a photo with its own copy",
            "different": "mean cosine of a photo with the copy of another",
            "gap": "same - different",
            "centred": "after the mean of the training photos' features was taken off",
        },
        ("same", "different", "gap", "gap_centred"),
    ),
}


def chosen(names: str | None) -> list[str]:
    """The protocols that the user asked for.

    Args:
        names: Separated by commas; None for all.

    Returns:
        Their names, in the order of ``PROTOCOLS``.

    Raises:
        ConfigError: When one is unknown.

    Example:
        >>> chosen("knn")
        ['knn']
    """
    if names is None:
        return list(PROTOCOLS)
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in PROTOCOLS:
            raise ConfigError(f"--protocols: unknown {name!r}. {suggest(name, PROTOCOLS)}")
    if not asked:
        raise ConfigError(f"--protocols: expected some of {', '.join(PROTOCOLS)}")
    return [name for name in PROTOCOLS if name in asked]
