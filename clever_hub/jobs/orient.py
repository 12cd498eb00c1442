"""How a photo is turned from upright, from its embedding alone, with a confidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings, Skipped
from clever_hub.errors import ConfigError, DataError, ModelFormatError
from clever_hub.jobs.calibration import TURNS, OrientationCalibration
from clever_hub.jobs.heads import Array, Heads
from clever_hub.jobs.relate import check_embeddings, check_raw, turned

QUARTERS = (0, 90, 180, 270)
_UNITS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]], np.float32)  # sine, cosine of each
_UNCALIBRATED = 0.25


@dataclass(frozen=True, eq=False)
class Orientation:
    """How N images are turned from upright.

    Attributes:
        angle: float32 (N,), degrees counter-clockwise from upright, in (−180, 180].
        quarter: int64 (N,), the likeliest of 0, 90, 180 and 270 degrees counter-clockwise: turn
            the image *clockwise* by it and it is upright.
        confidence: float32 (N,), probability of ``quarter``, in [0.25, 1].
        probabilities: float32 (N, 4), of each of ``QUARTERS``.
        skipped: The images that have no row, with ``on_error="skip"``.
    """

    angle: Array
    quarter: NDArray[np.int64]
    confidence: Array
    probabilities: Array
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.angle)

    @classmethod
    def joined(cls, parts: Sequence[Orientation]) -> Orientation:
        """Those of several batches, one after the other; of none, no rows."""
        empty = _orientation(np.empty((0, 2), np.float32), None, 0.25)
        columns = ("angle", "quarter", "confidence", "probabilities")
        joined = (np.concatenate([getattr(p, c) for p in (empty, *parts)]) for c in columns)
        angle, quarter, confidence, probabilities = joined
        skipped = tuple(one for part in parts for one in part.skipped)
        return cls(angle, quarter, confidence, probabilities, skipped)


def orientation(embeddings: Embeddings, heads: Heads, *, upright: float = 0.25) -> Orientation:
    """How each image is turned from upright.

    Args:
        embeddings: N embeddings, raw: not normalised.
        heads: The model's.
        upright: The share of images that is believed to be upright before looking; the other
            quarters share the rest. The default favours none.

    Returns:
        Angle, quarter turn and confidence of each.

    Raises:
        DataError: When there are no embeddings, or they are normalised, or their equivariant part
            is not as long as the model's.
        ConfigError: When ``upright`` is no probability.

    Example:
        >>> o = orientation(model.encode(["a.jpg"]), model.heads)  # doctest: +SKIP
        >>> o.quarter, o.confidence  # doctest: +SKIP
        (array([90]), array([0.97], dtype=float32))
    """
    found = heads.config.calibration
    return _orientation(_turns(embeddings, heads), found.orientation if found else None, upright)


def orientation_from_four(
    four: Sequence[Embeddings], heads: Heads, *, upright: float = 0.25
) -> Orientation:
    """As ``orientation``, from each image and its three quarter turns.

    Surer, at four times the cost: a photo whose turn the model does not see in one position, it may
    see in another. The four predictions are turned back and averaged.

    Args:
        four: The embeddings of N images as they are, and turned by 90, 180 and 270 degrees
            counter-clockwise.
        heads: The model's.
        upright: As for ``orientation``.

    Returns:
        How the images as they are, the first of the four, are turned.

    Raises:
        DataError: As for ``orientation``; or when there are not four of one length.
        ConfigError: As for ``orientation``.
    """
    if len(four) != len(QUARTERS) or len({len(one) for one in four}) != 1:
        raise DataError(
            f"orientation_from_four: expected the images at 0, 90, 180 and 270 degrees, got "
            f"{[len(one) for one in four]} rows"
        )
    turns = [turned(_turns(e, heads), -q) for e, q in zip(four, QUARTERS, strict=True)]
    found = heads.config.calibration
    level = found.orientation.from_four or found.orientation if found else None
    return _orientation(np.mean(turns, axis=0), level, upright)


def quarter_probabilities(
    vectors: Array, temperature: float, upright: float = 0.25, power: float = 0.0
) -> Array:
    """Probability of each quarter turn.

    It is in proportion to its prior and exp(v · u · |v|^power / temperature).

    Args:
        vectors: float32 (N, 2), predicted sines and cosines.
        temperature: Of the calibration.
        upright: Prior probability of no turn; the other three share the rest.
        power: Of the calibration.

    Returns:
        float32 (N, 4), in the order of ``QUARTERS``.
    """
    prior = np.array([upright, *(3 * [(1 - upright) / 3])])
    exact = vectors.astype(np.float64)
    # No longer than 1, as all that were measured; a longer one would be surer without reason.
    length = np.minimum(np.linalg.norm(exact, axis=1, keepdims=True), 1.0)
    logits = exact @ _UNITS.T * length**power / temperature + np.log(prior)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def least_confidences(
    heads: Heads, rate: float, *, from_four: bool, upright: float = 0.9
) -> dict[int, float]:
    """The confidences above which no more than a share ``rate`` is wrong, by the calibration.

    Args:
        heads: The model's.
        rate: Such as 0.01: the share of the photos said to be turned that is turned wrongly.
        from_four: Whether the answers come from ``orientation_from_four``.
        upright: The share of upright photos that the answers were given for.

    Returns:
        The confidence by quarter turn: 90, 180 and 270 degrees. Between two shares of upright
        photos that were measured it is the larger one.

    Raises:
        ModelFormatError: When the model is not calibrated.
        ConfigError: When it was not calibrated for this rate; names those that it was.

    Example:
        >>> least_confidences(model.heads, 0.01, from_four=True)  # doctest: +SKIP
        {90: 0.79, 180: 0.94, 270: 0.79}
    """
    found = heads.config.calibration
    if found is None:
        raise ModelFormatError(
            "the model's heads are not calibrated, so no confidence follows from a rate of error. "
            "Give the confidence itself, or calibrate them: clever-hub heads MODEL --calibration"
        )
    level = (found.orientation.from_four if from_four else None) or found.orientation
    if level.by_turn is None:
        return dict.fromkeys(QUARTERS[1:], _at_rate(level.confidence_at, rate))
    sideways, upside_down = (
        max(_at_rate(shares[share], rate) for share in _around(shares, upright))
        for shares in (level.by_turn[turn] for turn in TURNS)
    )
    return {90: sideways, 180: upside_down, 270: sideways}


def _at_rate(levels: Mapping[str, float], rate: float) -> float:
    for text, confidence in levels.items():
        if float(text) == rate:
            return confidence
    raise ConfigError(
        f"rate of error: this model is calibrated for {', '.join(levels) or 'none'}, got {rate:g}"
    )


def _around(shares: Iterable[str], wanted: float) -> set[str]:
    """The nearest share that is not above the wanted one, and the nearest that is not below."""
    known = sorted(shares, key=float)
    below = [share for share in known if float(share) <= wanted]
    above = [share for share in known if float(share) >= wanted]
    return {below[-1] if below else known[0], above[0] if above else known[-1]}


def _turns(embeddings: Embeddings, heads: Heads) -> Array:
    check_embeddings(embeddings, "orientation", "model.orientation(images)")
    if embeddings.equivariant.shape[1] != heads.config.in_dim:
        raise DataError(
            f"orientation: the heads read an equivariant part of {heads.config.in_dim} entries, "
            f"the embeddings have {embeddings.equivariant.shape[1]}"
        )
    check_raw(embeddings)
    return heads.turns(embeddings.equivariant)


def _orientation(
    vectors: Array, level: OrientationCalibration | None, upright: float
) -> Orientation:
    if not 0 < upright < 1:
        raise ConfigError(f"upright: expected a share between 0 and 1, got {upright}")
    temperature = level.temperature if level else _UNCALIBRATED
    chances = quarter_probabilities(vectors, temperature, upright, level.power if level else 0.0)
    best = chances.argmax(axis=1)
    angle = np.degrees(np.arctan2(vectors[:, 0], vectors[:, 1])).astype(np.float32)
    return Orientation(
        angle=np.where(angle <= -180, angle + 360, angle),
        quarter=np.asarray(QUARTERS)[best],
        confidence=chances.max(axis=1),
        probabilities=chances,
    )
