"""The perturbations of an evaluation: the paper's grid, and sweeps over strengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation.context import Context, rows_of
from clever_training.evaluation.perturbations import (
    UPRIGHT,
    Blur,
    Brightness,
    ColorJitter,
    Crop,
    Elastic,
    Flip,
    Perturbation,
    Rotate,
    Step,
)

_TURN = Rotate(-90.0, 90.0)
JITTERED = Perturbation((ColorJitter(),), disc=True)
# The perturbations of table 1 of the CLeVER paper, all under the disc.
GRID = {
    "original": UPRIGHT,
    "cj": JITTERED,
    "cj+flip": Perturbation((ColorJitter(), Flip()), disc=True),
    "cj+ro": Perturbation((ColorJitter(), _TURN), disc=True),
    "cj+ro+et": Perturbation((ColorJitter(), _TURN, Elastic()), disc=True),
}
ANGLES = tuple(float(angle) for angle in range(-180, 181, 15))
SWEEPS: dict[str, tuple[float, ...]] = {
    "rotation": ANGLES,
    "crop": (1.0, 0.8, 0.6, 0.4, 0.2),
    "brightness": (0.25, 0.5, 1.0, 1.5, 2.0),
    "blur": (0.0, 0.5, 1.0, 2.0, 3.0),
}
NEUTRAL = {"rotation": 0.0, "crop": 1.0, "brightness": 1.0, "blur": 0.0}
STRENGTHS = {
    "rotation": "degrees, counter-clockwise",
    "crop": "share of the area, at a random place",
    "brightness": "factor",
    "blur": "sigma in pixels of a 64 px photo",
}


def at_strength(transformation: str, strength: float) -> Perturbation:
    """One transformation at one strength, under the disc.

    Args:
        transformation: A key of ``SWEEPS``.
        strength: The strength, in the unit that ``STRENGTHS`` names.

    Returns:
        The perturbation; the upright photo at the neutral strength.

    Example:
        >>> at_strength("rotation", -180.0) == at_strength("rotation", 180.0)
        True
    """
    if strength == NEUTRAL[transformation]:
        return UPRIGHT
    # Rotations by 180° and −180° are the same photo, computed once.
    value = 180.0 if transformation == "rotation" and strength == -180 else strength
    steps: dict[str, Step] = {
        "rotation": Rotate(value, value),
        "crop": Crop(value, value),
        "brightness": Brightness(value, value),
        "blur": Blur(value, value),
    }
    return Perturbation((steps[transformation],), disc=True)


def sweep_names() -> dict[str, Perturbation]:
    """Every ``TRANSFORMATION/STRENGTH`` of the sweeps with its perturbation."""
    return {
        f"{name}/{strength:g}": at_strength(name, strength)
        for name, strengths in SWEEPS.items()
        for strength in strengths
    }


def sweep_photos(context: Context) -> LabelledPhotos:
    """The validation photos that are transformed at every strength."""
    return context.subset("sweep_photos")


def sweep_features(context: Context, name: str, perturbation: Perturbation) -> NDArray[np.float32]:
    """Features of the photos of the sweeps at one strength.

    Places of crops are drawn once and not for every seed, since the sweeps are most of the work of
    an evaluation.

    Args:
        context: Model and photos.
        name: Name in the progress report.
        perturbation: One of ``sweep_names``.

    Returns:
        float32 (N, d), in the order of ``sweep_photos``.
    """
    photos, validation = sweep_photos(context), context.splits.validation
    if not perturbation.steps:
        whole = context.validation(perturbation, "validation upright")
        return whole[rows_of(photos, validation)]
    return context.of(photos, perturbation, name, seed=0)
