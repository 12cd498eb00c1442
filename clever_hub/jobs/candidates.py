"""Which pairs become candidates: what is compared, and the cosine from which pairs are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.errors import ConfigError, DataError
from clever_hub.images.opening import describe
from clever_hub.jobs.calibration import PARTS
from clever_hub.jobs.pairs import Vectors
from clever_hub.jobs.rates import (
    Threshold,
    check_measurable,
    threshold_by_calibration,
    threshold_by_data,
)

if TYPE_CHECKING:
    from clever_hub.jobs.heads import Heads

# Candidates that are no copies, for each photo. A verified pair costs a millisecond; a copy
# that is missed here cannot be found again.
FALSE_PER_PHOTO = 25.0
UNVERIFIED_FALSE = 1.0
_MIN_CENTRED = 16  # photos; the mean of a few says more of them than of photos
_MEAN_OF = 16_384


def choose_threshold(
    vectors: Vectors,
    *,
    part: str,
    threshold: float | None,
    expected_false: float | None,
    heads: Heads | None = None,
    mean: NDArray[np.float32] | None = None,
    others: Vectors | None = None,
    verified: bool = True,
    by_heads: bool = False,
) -> Threshold:
    """The cosine from which a pair is a candidate.

    Args:
        vectors: (N, d).
        part: Which part of the embeddings they are.
        threshold: A cosine that was given; None for one of a rate.
        expected_false: How many pairs of different photos may be candidates; None: 25 for each
            photo (of the others, where there are any) if candidates are looked at, else one in all.
        heads: A model's heads, with a calibration or without.
        mean: (d,), taken from every vector first.
        others: (M, d): pairs are of a row of ``vectors`` and one of these.
        verified: Whether candidates are looked at.
        by_heads: Whether the heads alone look at them. They take some two in a hundred pairs of
            different photos for the same, so the rate is the calibration's highest, 1e-3, at most.

    Returns:
        Of a threshold that was given, itself; else by the model's calibration where its rates go
        so far; else by the data.

    Raises:
        ConfigError: When an option is out of range, or the data are too few.
    """
    check_options(threshold, expected_false)
    pairs, rate = _pairs_and_rate(
        len(vectors), None if others is None else len(others), expected_false, verified
    )
    if threshold is not None:
        return Threshold(threshold, pairs, float("nan"), "given")
    calibration = heads.config.calibration if heads is not None else None
    if calibration is not None and part in calibration.cosine:
        table = {
            float(known): (found.threshold, found.extrapolated)
            for known, found in calibration.cosine[part].items()
        }
        if rate <= max(table) or by_heads or not verified:
            return threshold_by_calibration(table, rate, pairs)
    if rate >= 1 and verified:  # so few photos that all pairs may as well be looked at
        return Threshold(-1.0, pairs, 1.0, "data")
    return threshold_by_data(vectors, rate, pairs, mean=mean, others=others, counted=verified)


def check_options(threshold: float | None, expected_false: float | None) -> None:
    """Refuse a threshold or a number of false pairs that cannot be, or both at once.

    Args:
        threshold: Least cosine of a candidate.
        expected_false: How many pairs of different photos may be candidates.

    Raises:
        ConfigError: When one is out of range, or both are given.
    """
    if threshold is not None and expected_false is not None:
        raise ConfigError(
            f"threshold and expected_false: expected one of them, got both ({threshold} and "
            f"{expected_false}); each sets the least cosine of a candidate"
        )
    if threshold is not None and not -1 <= threshold <= 1:
        raise ConfigError(f"threshold: expected a cosine, -1 to 1, got {threshold}")
    if expected_false is not None and not 0 < expected_false < math.inf:
        raise ConfigError(f"expected_false: expected a number above 0, got {expected_false}")


def check_enough(
    photos: int,
    others: int | None = None,
    *,
    threshold: float | None,
    expected_false: float | None,
    verified: bool,
) -> None:
    """Refuse before photos are embedded what ``choose_threshold`` would refuse without heads.

    Args:
        photos: How many there are.
        others: How many others, where pairs are of one of each.
        threshold: As for ``choose_threshold``.
        expected_false: As there.
        verified: As there.

    Raises:
        ConfigError: When there are too few photos to measure a rate on, or an option is wrong.
    """
    check_options(threshold, expected_false)
    _, rate = _pairs_and_rate(photos, others, expected_false, verified)
    if threshold is None and not (rate >= 1 and verified):
        check_measurable(rate, photos, others, verified)


def _pairs_and_rate(
    photos: int, others: int | None, expected_false: float | None, verified: bool
) -> tuple[int, float]:
    """How many pairs there are, and which share of those of different photos may be candidates."""
    pairs = photos * (photos - 1) // 2 if others is None else photos * others
    per_photo = FALSE_PER_PHOTO * max(1, photos if others is None else others)
    wanted = per_photo if verified else UNVERIFIED_FALSE
    return pairs, (wanted if expected_false is None else expected_false) / max(pairs, 1)


def vectors_of(embeddings: Embeddings | Vectors, part: str) -> Vectors:
    """The vectors that are compared: a part of embeddings, or vectors as they are.

    Args:
        embeddings: Of N photos, or vectors (N, d).
        part: ``"invariant"``, ``"equivariant"`` or ``"full"``.

    Returns:
        (N, d).

    Raises:
        ConfigError: When there is no such part, or the model has none.
        DataError: When they are no embeddings and no vectors.
    """
    if part not in PARTS:
        raise ConfigError(f"part: expected one of {', '.join(PARTS)}, got {part!r}")
    if not isinstance(embeddings, Embeddings):
        return _as_vectors(embeddings)
    vectors: NDArray[np.float32] = getattr(embeddings, part)
    if not vectors.shape[1]:
        raise ConfigError(f"part: this model has no {part} part. Take part='full'")
    return vectors


def _as_vectors(given: Any) -> Vectors:
    vectors = np.asarray(given) if hasattr(given, "__array__") else given
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise DataError(
            f"expected Embeddings, as model.encode gives them, or vectors (N, d) of floats, got "
            f"{describe(given)}"
        )
    return vectors


def centre(vectors: Vectors, part: str, heads: Heads | None) -> NDArray[np.float32] | None:
    """The mean that is subtracted from every vector: the model's training mean, or the data's own.

    Without centring all cosines are high, because all vectors share their mean.

    Args:
        vectors: (N, d).
        part: Which part of the embeddings they are.
        heads: A model's heads, or None.

    Returns:
        float32 (d,); None of a handful of vectors without heads, whose own mean says more of them
        than of photos.

    Raises:
        DataError: When the vectors are not as long as the heads' model makes them.
    """
    if heads is not None:
        parts = (heads.invariant_mean, heads.equivariant_mean)
        mean = {"invariant": parts[0], "equivariant": parts[1], "full": np.concatenate(parts)}[part]
        if vectors.shape[1] != len(mean):
            raise DataError(
                f"the heads are of a model whose {part} part has {len(mean)} entries, the vectors "
                f"have {vectors.shape[1]}. Take the heads of the model that made them"
            )
        return np.asarray(mean, np.float32)
    if len(vectors) < _MIN_CENTRED:
        return None
    step = max(1, len(vectors) // _MEAN_OF)
    return np.asarray(vectors[::step].mean(axis=0, dtype=np.float64), np.float32)
