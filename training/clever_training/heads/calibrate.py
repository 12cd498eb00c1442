"""Measure how far heads can be trusted, on photos that they were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from clever_hub.embeddings import Embeddings
from clever_hub.jobs.calibration import (
    FEATURES,
    PARTS,
    TURNS,
    AngleCalibration,
    Calibration,
    EightCalibration,
    OrientationCalibration,
    SameCalibration,
    ValueCalibration,
)
from clever_hub.jobs.heads import Heads, PairValues
from clever_hub.jobs.orient import QUARTERS, quarter_probabilities
from clever_hub.jobs.relate import (
    centered,
    from_all_positions,
    pair_features,
    symmetric,
    turned,
)
from clever_training.heads.embedding import EmbeddedViews
from clever_training.heads.tail import thresholds
from clever_training.heads.views import POSITIONED
from clever_training.objectives.transformation import Relative, relative_transformation

RATES_OF_ERROR = ("0.002", "0.01", "0.05")
UPRIGHT = 0.9  # the share of upright photos that ``orient`` believes in by default
SHARES_UPRIGHT = (0.25, UPRIGHT)
_PAIRS = 20_000
_DIFFERENT = 100_000
_PRIOR = 0.5
_TWO_THIRDS = 0.68
_USELESS = 45.0  # degrees: an angle whose error is as likely above as below is none
_BINS = 10
_MOST_POWER = 4.0  # of a vector's length, in how sure it is

Progress = Callable[[str], None]
Random = np.random.Generator


class Truth(NamedTuple):
    """What was done to the second view of each pair, and what the heads say.

    Attributes:
        a: Embeddings of the first views.
        b: Of the second.
        said: By the heads.
        done: In truth.
    """

    a: Embeddings
    b: Embeddings
    said: PairValues
    done: Relative


def calibrate(
    heads: Heads,
    views: EmbeddedViews,
    *,
    bootstraps: int = 100,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Calibration:
    """Measure thresholds, probabilities and errors.

    Args:
        heads: Fitted, with the mean for centring.
        views: Of photos that the heads were not fitted to, each a different one.
        bootstraps: Draws of photos, for the intervals of the thresholds.
        seed: Seed of all random draws.
        progress: Called with what is being measured.

    Returns:
        The calibration.

    Raises:
        DataError: When the photos are too few.
    """
    random = np.random.default_rng(seed)
    progress("cosines of different photos")
    clean = views.at(np.arange(len(views)), 0)
    parts = dict(zip(PARTS, _centered_parts(clean, heads), strict=True))
    cosine = {
        part: thresholds(rows, bootstraps=bootstraps, seed=seed) for part, rows in parts.items()
    }
    progress("relations")
    truth = draw_pairs(heads, views, random)
    progress("same or different")
    same = _same(heads, views, truth, random)
    progress("orientation")
    return Calibration(
        photos=len(views),
        data=views.data,
        cosine=cosine,
        same=same,
        orientation=orientation_calibration(heads, views),
        angle=_angle(truth),
        mirrored=_mirrored(truth),
        values=_values(truth),
        measured=_measured(heads, views, truth),
        from_eight=_eight(heads, views),
    )


def draw_pairs(heads: Heads, views: EmbeddedViews, random: Random, count: int = _PAIRS) -> Truth:
    """Random pairs of views of the same photo.

    Args:
        heads: Say what they see.
        views: Of the photos.
        random: Draws.
        count: How many.

    Returns:
        The pairs.
    """
    views_each = views.embeddings.shape[1]
    photo = random.integers(len(views), size=count)
    first = random.integers(views_each, size=count)
    second = (first + random.integers(1, views_each, size=count)) % views_each
    a, b = views.at(photo, first), views.at(photo, second)
    done = relative_transformation(
        *(torch.from_numpy(views.parameters[photo, view]) for view in (first, second))
    )
    return Truth(a, b, symmetric(heads, a.equivariant, b.equivariant), done)


def angle_errors(truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error of each pair's angle in degrees, and the length that it was read from.

    The branch is the one that the heads themselves believe in: what a user gets.
    """
    mirrored = truth.said.logit > 0
    vector = np.where(mirrored[:, None], truth.said.mirrored, truth.said.straight)
    said = np.degrees(np.arctan2(vector[:, 0], vector[:, 1]))
    sine, cosine = truth.done.values[:, 0].numpy(), truth.done.values[:, 1].numpy()
    apart = said - np.degrees(np.arctan2(sine, cosine))
    error = np.abs((apart + 180) % 360 - 180).astype(np.float64)
    # Wrong about the mirroring, an angle means nothing.
    error[mirrored != truth.done.mirrored.numpy()] = 180.0
    return error, np.linalg.norm(vector, axis=1).astype(np.float64)


def turn_vectors(heads: Heads, views: EmbeddedViews) -> NDArray[np.float32]:
    """Predicted turns (N, 4, 2) of the photos as they are, and turned by each quarter."""
    four = views.equivariant[:, : len(QUARTERS)]
    flat = heads.turns(four.reshape(-1, four.shape[-1]))
    return flat.reshape(len(views), len(QUARTERS), 2)


def averaged(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The four looks (N, 4, 2) at each photo, turned back and averaged: (N, 2)."""
    back = [turned(vectors[:, k], -quarter) for k, quarter in enumerate(QUARTERS)]
    return np.asarray(np.mean(back, axis=0), np.float32)


def orientation_calibration(heads: Heads, views: EmbeddedViews) -> OrientationCalibration:
    """Temperature and confidences, of one look and of four."""
    vectors = turn_vectors(heads, views)
    one = vectors.reshape(-1, 2)
    truth = np.tile(np.arange(len(QUARTERS)), len(views))
    # Four looks at a photo turned by a quarter are the same four in another order.
    mean = averaged(vectors)
    four = np.concatenate([turned(mean, quarter) for quarter in QUARTERS])
    return _quarters(one, truth, _quarters(four, np.repeat(np.arange(len(QUARTERS)), len(views))))


def _quarters(
    vectors: NDArray[np.float32],
    truth: NDArray[np.int64],
    from_four: OrientationCalibration | None = None,
) -> OrientationCalibration:
    # With the temperature alone, what long vectors say would be less sure than it is: sideways
    # photos would hardly ever be sure enough for the belief that most photos are upright.
    def surprise(values: NDArray[np.float64]) -> float:
        chances = quarter_probabilities(vectors, float(np.exp(values[0])), power=float(values[1]))
        right = chances[np.arange(len(truth)), truth].astype(np.float64)
        return float(-np.log(np.maximum(right, 1e-12)).mean())

    bounds = ((np.log(0.02), np.log(20.0)), (0.0, _MOST_POWER))
    best: Any = minimize(surprise, (np.log(0.3), 0.5), method="Nelder-Mead", bounds=bounds)
    temperature, power = round(float(np.exp(best.x[0])), 5), round(float(best.x[1]), 5)
    by_share = {u: quarter_probabilities(vectors, temperature, u, power) for u in SHARES_UPRIGHT}
    said = {"sideways": (1, 3), "upside_down": (2,)}
    return OrientationCalibration(
        temperature,
        confidences(by_share[UPRIGHT], truth, UPRIGHT),
        from_four,
        power,
        {
            turn: {str(u): confidences(by_share[u], truth, u, said[turn]) for u in SHARES_UPRIGHT}
            for turn in TURNS
        },
    )


def confidences(
    chances: NDArray[np.float32],
    truth: NDArray[np.int64],
    upright: float,
    said: Sequence[int] = (1, 2, 3),
) -> dict[str, float]:
    """The least confidences that keep what is turned wrongly below a share of what is turned.

    Args:
        chances: float32 (N, 4), probability of each quarter.
        truth: int64 (N,), which it is; each as often.
        upright: The share of upright photos in the libraries that this is for.
        said: The answers that this is for, in quarters.

    Returns:
        Confidence by rate of error; 1 where none keeps it.
    """
    best, sure = chances.argmax(axis=1), chances.max(axis=1)
    weights = np.where(truth == 0, upright, (1 - upright) / 3)
    turns = np.isin(best, said)
    order = np.argsort(-sure[turns], kind="stable")
    wrong = np.cumsum((weights * (best != truth))[turns][order])
    share = wrong / np.maximum(np.cumsum(weights[turns][order]), 1e-12)
    found = {}
    for rate in RATES_OF_ERROR:
        kept = np.flatnonzero(share <= float(rate))
        found[rate] = round(float(sure[turns][order][kept[-1]]), 5) if len(kept) else 1.0
    return found


def _same(heads: Heads, views: EmbeddedViews, truth: Truth, random: Random) -> SameCalibration:
    """A logistic regression on pairs of the same photo and of different ones."""
    photos = random.integers(len(views), size=_DIFFERENT)
    others = (photos + random.integers(1, len(views), size=_DIFFERENT)) % len(views)
    views_each = views.embeddings.shape[1]
    a, b = (
        views.at(rows, random.integers(views_each, size=_DIFFERENT)) for rows in (photos, others)
    )
    said = symmetric(heads, a.equivariant, b.equivariant)
    positive = _columns(pair_features(truth.a, truth.b, heads, truth.said))
    negative = _columns(pair_features(a, b, heads, said))
    inputs = np.concatenate([positive, negative])
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    weights = np.where(labels == 1, _PRIOR / len(positive), (1 - _PRIOR) / len(negative))
    scale = inputs.std(axis=0) + 1e-9
    model: Any = LogisticRegression(C=1e4, max_iter=1000)
    model.fit(inputs / scale, labels, sample_weight=weights * len(labels))
    return SameCalibration(
        features=FEATURES,
        weights=tuple(float(w) for w in model.coef_[0] / scale),
        bias=float(model.intercept_[0]),
        prior=_PRIOR,
    )


def _angle(truth: Truth) -> AngleCalibration:
    """Two thirds of the errors, by length: shorter vectors are less sure."""
    error, length = angle_errors(truth)
    order = np.argsort(length)
    bins = np.array_split(order, _BINS)
    lengths = [float(length[rows].mean()) for rows in bins]
    degrees = [float(np.quantile(error[rows], _TWO_THIRDS)) for rows in bins]
    # A longer vector is never less sure; what says otherwise is chance.
    falling = np.maximum.accumulate(degrees[::-1])[::-1]
    useful = [at for at, degree in zip(lengths, falling, strict=True) if degree <= _USELESS]
    return AngleCalibration(
        tuple(round(at, 4) for at in lengths),
        tuple(round(float(degree), 2) for degree in falling),
        round(min(useful), 4) if useful else 2.0,
    )


def _mirrored(truth: Truth) -> tuple[float, float]:
    """Platt's scaling of the log-odds."""
    model: Any = LogisticRegression(C=1e6)
    model.fit(truth.said.logit[:, None], truth.done.mirrored.numpy().astype(int))
    return round(float(model.coef_[0, 0]), 5), round(float(model.intercept_[0]), 5)


def _eight(heads: Heads, views: EmbeddedViews) -> EightCalibration | None:
    """What is other where both images are seen in all positions: photo and copy, or two copies."""
    if views.eight is None:
        return None
    said, rows = list[PairValues](), list[tuple[int, int]]()
    for first, second in ((0, 1), (0, 2), (1, 2), (2, 1)):
        a, b = (list(views.eight[:, at, :, views.split :].swapaxes(0, 1)) for at in (first, second))
        said.append(from_all_positions(heads, a, b))
        rows.append((POSITIONED[first], POSITIONED[second]))
    photo = np.tile(np.arange(len(views)), len(rows))
    one, other = np.repeat(np.array(rows).T, len(views), axis=1)
    done = relative_transformation(
        torch.from_numpy(views.parameters[photo, one]),
        torch.from_numpy(views.parameters[photo, other]),
    )
    all_said = PairValues(*(np.concatenate(part) for part in zip(*said, strict=True)))
    truth = Truth(views.at(photo, one), views.at(photo, other), all_said, done)
    return EightCalibration(_angle(truth), _mirrored(truth))


def _values(truth: Truth) -> dict[str, ValueCalibration]:
    """Error and R² of all that is regressed but the angles."""
    done, known = truth.done.values.numpy(), truth.done.known.numpy() > 0
    said = truth.said
    octave = np.log(2)
    found = {
        "zoom": _value(said.crop[:, 2:].mean(axis=1) / octave, done[:, 4:6].mean(axis=1) / octave),
        "shift": _value(said.crop[:, :2].ravel() / 2, done[:, 2:4].ravel() / 2),
    }
    for column, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        rows = known[:, 6 + column]
        found[name] = _value(said.color[rows, column], done[rows, 6 + column])
    return found


def _measured(heads: Heads, views: EmbeddedViews, truth: Truth) -> dict[str, float]:
    vectors = turn_vectors(heads, views)
    one = quarter_probabilities(vectors.reshape(-1, 2), 1.0).argmax(axis=1)
    four = quarter_probabilities(averaged(vectors), 1.0).argmax(axis=1)
    error, _ = angle_errors(truth)
    right = (truth.said.logit > 0) == truth.done.mirrored.numpy()
    return {
        "angle_median": round(float(np.median(error)), 2),
        "mirrored": round(float(right.mean()), 4),
        "quarter": round(float((one.reshape(-1, 4) == np.arange(4)).mean()), 4),
        "quarter_from_four": round(float((four == 0).mean()), 4),
    }


def _value(said: NDArray[Any], done: NDArray[Any]) -> ValueCalibration:
    error = np.abs(said - done)
    unexplained = np.square(error).mean() / max(float(done.var()), 1e-12)
    return ValueCalibration(
        round(float(np.quantile(error, _TWO_THIRDS)), 5), round(1 - float(unexplained), 4)
    )


def _centered_parts(clean: Embeddings, heads: Heads) -> tuple[NDArray[np.float32], ...]:
    invariant, equivariant = centered(clean, heads)
    return invariant, equivariant, np.concatenate([invariant, equivariant], axis=1)


def _columns(features: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.stack([features[name] for name in FEATURES], axis=1).astype(np.float64)
