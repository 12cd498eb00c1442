"""Invariance: how similar a photo's embedding stays under a perturbation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clever_training.evaluation.knn import unit


def cosines(originals: NDArray[np.float32], copies: NDArray[np.float32]) -> tuple[float, float]:
    """Mean cosine of photos with their own copies, and with the copies of other photos.

    The second mean is over all N·(N-1) ordered pairs of different photos. Only the difference
    between the two is informative: in a collapsed representation both are 1.

    Args:
        originals: float32 (N, d), N at least 2.
        copies: float32 (N, d); row i is the perturbed copy of photo i.

    Returns:
        The cosine of the same photo and of different photos, each in [-1, 1].

    Raises:
        ValueError: When the shapes differ or there are fewer than two photos.

    Example:
        >>> cosines(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
        (1.0, 0.0)
    """
    if originals.shape != copies.shape or len(originals) < 2:
        raise ValueError(
            f"expected two matrices of one shape, at least 2 photos, "
            f"got {originals.shape} and {copies.shape}"
        )
    a, b = unit(originals).astype(np.float64), unit(copies).astype(np.float64)
    own = float((a * b).sum())
    every = float(a.sum(axis=0) @ b.sum(axis=0))  # all N² pairs at once
    count = len(a)
    return own / count, (every - own) / (count * (count - 1))


def invariance_figures(
    originals: NDArray[np.float32], copies: NDArray[np.float32], mean: NDArray[np.float32]
) -> dict[str, float]:
    """Cosines of the features, and of the features minus the mean of the training features.

    Features after a ReLU are not negative, so all their cosines are high. Centred cosines compare
    directions around the mean.

    Args:
        originals: float32 (N, d).
        copies: float32 (N, d).
        mean: float32 (d,), the mean feature of the training photos.

    Returns:
        ``same``, ``different`` and their difference ``gap``; the centred ones end in ``_centred``.
    """
    figures = {}
    for suffix, shift in (("", np.zeros_like(mean)), ("_centred", mean)):
        same, different = cosines(originals - shift, copies - shift)
        figures[f"same{suffix}"] = same
        figures[f"different{suffix}"] = different
        figures[f"gap{suffix}"] = same - different
    return figures
