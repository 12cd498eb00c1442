"""How one image is made from another: the same photo or not, turned, mirrored, zoomed, recoloured.

From embeddings alone: cosines say whether two images show the same photo, and the head of the
equivariant parts says what was done to it. ``clever_hub.jobs.heads`` describes the head,
``clever_hub.jobs.calibration`` what its answers are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.errors import DataError
from clever_hub.images.opening import describe
from clever_hub.jobs.calibration import Calibration, EightCalibration
from clever_hub.jobs.heads import Array, Heads, PairValues
from clever_hub.jobs.pairs import Vectors
from clever_hub.jobs.relation import COLORS, Relations, unsure

# A value is "unknown" where the head explains less than this share of its variance.
_LEAST_R2 = 0.25
_LEAST_LENGTH = 0.5  # where nothing was calibrated
_QUARTERS = (0, 90, 180, 270)
POSITIONS = 2 * len(_QUARTERS)  # of an image: each quarter turn, mirrored or not
_ROUNDING = 1e-5  # of a vector's length; batches of another size differ by less
_UNIT = 1e-3  # around a length of 1; as many are lost where float16 is normalised
_LOOKED_AT = 4096  # rows
_FLIP_FIRST = np.array([-1, 1], np.float32)


def relate(
    e_a: Embeddings, e_b: Embeddings, heads: Heads, *, given_same: bool = False
) -> Relations:
    """How the image of each row of b is made from that of the same row of a.

    Args:
        e_a: N embeddings of one model, raw: not normalised.
        e_b: N embeddings of the same model.
        heads: The model's, ``model.heads`` or ``Heads.load(folder)``.
        given_same: Take for granted that the images of a pair show the same photo. Otherwise
            everything but ``same`` is unknown for pairs that more likely do not.

    Returns:
        The relations of the N pairs. Where two embeddings are the same, nothing was done to b:
        the angle is 0 and so on, whatever the head would say.

    Raises:
        DataError: When there are no embeddings, or they are normalised, not as many, or of other
            lengths than the model's.

    Example:
        >>> a, b = model.encode(["a.jpg"]), model.encode(["b.jpg"])  # doctest: +SKIP
        >>> relate(a, b, model.heads)[0].angle  # doctest: +SKIP
        90.0
    """
    _check(e_a, e_b, heads)
    values = symmetric(heads, e_a.equivariant, e_b.equivariant)
    features = pair_features(e_a, e_b, heads, values)
    calibration = heads.config.calibration
    branch = _Branch.of(values, calibration)
    same, equal = _same(features, calibration), _equal(e_a, e_b)
    return _relations(values, branch, same, equal, calibration, given_same)


def relate_from_eight(
    eight_a: Sequence[Embeddings],
    eight_b: Sequence[Embeddings],
    heads: Heads,
    *,
    given_same: bool = False,
) -> Relations:
    """As ``relate``, from both images in all eight positions: each quarter turn, mirrored or not.

    Every position of a is compared with every one of b. Surer, above all of the mirroring, at eight
    times the cost: what the head leans to whatever it sees cancels.

    Args:
        eight_a: N embeddings each, raw: of the images a as they are and turned by 90, 180 and 270
            degrees counter-clockwise, then the same of the mirrored ones.
        eight_b: Those of the images b.
        heads: The model's.
        given_same: As for ``relate``.

    Returns:
        The relations of a and b as they are, the first of each eight.

    Raises:
        DataError: As for ``relate``; or when there are not eight.
    """
    for name, eight in (("a", eight_a), ("b", eight_b)):
        if len(eight) != POSITIONS:
            raise DataError(
                f"relate_from_eight: expected eight positions of {name}, got {len(eight)}"
            )
    for e_a, e_b in zip(eight_a, eight_b, strict=True):
        _check(e_a, e_b, heads)
    mean = from_all_positions(heads, *([e.equivariant for e in e] for e in (eight_a, eight_b)))
    calibration = heads.config.calibration
    # Whether it is the same was calibrated on one look.
    one = symmetric(heads, eight_a[0].equivariant, eight_b[0].equivariant)
    same = _same(pair_features(eight_a[0], eight_b[0], heads, one), calibration)
    branch = _Branch.of(mean, calibration, calibration.from_eight if calibration else None)
    equal = _equal(eight_a[0], eight_b[0])
    return _relations(mean, branch, same, equal, calibration, given_same)


def from_all_positions(heads: Heads, a: Sequence[Array], b: Sequence[Array]) -> PairValues:
    """What the heads say of a and b as they are, from every position of both, in the mean.

    Args:
        heads: The model's.
        a: Eight of float32 (N, e), raw equivariant parts, as ``relate_from_eight`` orders them.
        b: The same of the other images.

    Returns:
        The mean.
    """
    looks = [
        of_a_as_it_is(as_it_is(symmetric(heads, one, other), of_b), of_a)
        for of_a, one in enumerate(a)
        for of_b, other in enumerate(b)
    ]
    return mean_of_looks(looks)


def as_it_is(values: PairValues, position: int) -> PairValues:
    """What a look at b in one of its eight positions says of b as it is.

    Args:
        values: Of that look.
        position: 0 to 3 is turned by so many quarters, 4 to 7 mirrored first.

    Returns:
        The same of b as it is.
    """
    quarter, mirrored = _QUARTERS[position % 4], position >= 4
    straight = turned(values.straight, quarter)
    other = turned(values.mirrored, -quarter)
    if mirrored:
        return values._replace(straight=other, mirrored=straight, logit=-values.logit)
    return values._replace(straight=straight, mirrored=other)


def of_a_as_it_is(values: PairValues, position: int) -> PairValues:
    """What a look from a in one of its eight positions says of a as it is.

    Args:
        values: Of that look.
        position: 0 to 3 is turned by so many quarters, 4 to 7 mirrored first.

    Returns:
        The same of a as it is.
    """
    quarter, mirrored = _QUARTERS[position % 4], position >= 4
    # Where b's centre lies in a turns with a; y points down.
    place = turned(values.crop[:, :2], -quarter)
    if mirrored:
        place = place * _FLIP_FIRST
        other = turned(values.straight * _FLIP_FIRST, quarter)
        straight = turned(values.mirrored * _FLIP_FIRST, quarter)
    else:
        straight, other = (turned(one, -quarter) for one in (values.straight, values.mirrored))
    return values._replace(
        straight=straight,
        mirrored=other,
        crop=np.concatenate([place, values.crop[:, 2:]], axis=1),
        logit=-values.logit if mirrored else values.logit,
    )


def mean_of_looks(looks: Sequence[PairValues]) -> PairValues:
    """The mean of what several looks at the same pairs say."""
    parts = zip(*looks, strict=True)
    return PairValues(*(np.asarray(np.mean(part, axis=0), np.float32) for part in parts))


def turned(vectors: Array, degrees: float) -> Array:
    """Sines and cosines (N, 2) of the angles plus ``degrees``."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.asarray(vectors @ np.array([[cosine, -sine], [sine, cosine]]), np.float32)


class _Branch(NamedTuple):
    """Mirrored or not, and the angle that goes with it."""

    chance: Array
    angle: Array
    error: Array

    @classmethod
    def of(
        cls,
        values: PairValues,
        calibration: Calibration | None,
        eight: EightCalibration | None = None,
    ) -> _Branch:
        found = eight or calibration
        scale, shift = found.mirrored if found else (1.0, 0.0)
        chance = _sigmoid(scale * values.logit + shift)
        mirrored = chance > 0.5
        vector = np.where(mirrored[:, None], values.mirrored, values.straight)
        length = np.linalg.norm(vector, axis=1)
        phi = np.degrees(np.arctan2(vector[:, 0], vector[:, 1]))
        angle = np.where(mirrored, phi, -phi)
        angle = np.where(angle <= -180, angle + 360, angle)
        least = found.angle.unknown_below if found else _LEAST_LENGTH
        error = found.angle.error(length) if found else np.full_like(length, np.nan)
        unknown = (length < least) | unsure(chance)
        return cls(chance, _hide(angle, unknown), _hide(error, unknown))


def _relations(
    values: PairValues,
    branch: _Branch,
    same: Array,
    equal: NDArray[np.bool_],
    calibration: Calibration | None,
    given_same: bool,
) -> Relations:
    zoom = np.exp(-values.crop[:, 2:].mean(axis=1))
    colors = np.concatenate([np.exp(values.color[:, :3]), 360 * values.color[:, 3:]], axis=1)
    known = {name: _value(calibration, name) for name in ("zoom", "shift", *COLORS)}
    untold = np.array([math.isnan(known[name]) and calibration is not None for name in COLORS])
    errors = np.array([known[name] for name in COLORS], np.float32) * (1, 1, 1, 360)
    # What a head explains less of, it draws the more towards no change.
    drawn = np.array([_drawn(calibration, name) for name in COLORS], np.float32)
    sizes = np.abs(values.color * np.array([1, 1, 1, 360], np.float32))
    many = len(same)
    found = Relations(
        same=same,
        angle=branch.angle,
        angle_error=branch.error,
        mirrored_probability=branch.chance,
        zoom=_hide(zoom, _untold(calibration, known["zoom"])),
        zoom_error=np.full(many, known["zoom"], np.float32),
        shift=_hide(values.crop[:, :2] / 2, _untold(calibration, known["shift"])),
        shift_error=np.full(many, known["shift"], np.float32),
        colors=_hide(colors, np.broadcast_to(untold, colors.shape)),
        colors_error=np.hypot(errors, drawn * sizes).astype(np.float32),
        by_pixels=np.zeros(many, bool),
        stretch=np.full(many, np.nan, np.float32),
        recolored=np.full(many, np.nan, np.float32),
    )
    found = found if given_same else found.hidden(same < 0.5)
    return found.untouched(equal)


def _equal(e_a: Embeddings, e_b: Embeddings) -> NDArray[np.bool_]:
    """Rows that are the same but for rounding: those of one picture, and of no other."""
    gap, size = (np.einsum("nd,nd->n", x, x) for x in (e_a.full - e_b.full, e_a.full))
    return np.asarray(gap <= _ROUNDING**2 * size, bool)


def symmetric(heads: Heads, a: Array, b: Array) -> PairValues:
    """The head's predictions from both sides: of b from a, and of a from b turned round.

    Args:
        heads: The model's.
        a: float32 (N, e), raw equivariant parts.
        b: float32 (N, e).

    Returns:
        The means. Where b's centre lies in a is from one side alone: the other side's answer is in
        another frame.
    """
    there, back = heads.pairs(a, b), heads.pairs(b, a)
    # The way back turns by the opposite angle; with a mirroring between, by the same.
    half = np.float32(0.5)
    straight = half * (there.straight + back.straight * np.array([-1, 1], np.float32))
    sizes = half * (there.crop[:, 2:] - back.crop[:, 2:])
    return PairValues(
        straight,
        half * (there.mirrored + back.mirrored),
        np.concatenate([there.crop[:, :2], sizes], axis=1),
        half * (there.color - back.color),
        half * (there.logit + back.logit),
    )


def pair_features(
    e_a: Embeddings, e_b: Embeddings, heads: Heads, values: PairValues
) -> dict[str, Array]:
    """What the probability of "same" is made of.

    Args:
        e_a: N embeddings.
        e_b: N embeddings.
        heads: The model's.
        values: What ``symmetric`` gives for these pairs.

    Returns:
        float32 (N,) by name, all of ``clever_hub.jobs.calibration.FEATURES``: centred cosines; the
        length of the predicted rotation; how sure the mirroring is; and how far the rotation
        between the two agrees with the turns of each from upright.
    """
    a, b = centered(e_a, heads), centered(e_b, heads)
    products = [np.einsum("nd,nd->n", a[part], b[part]) for part in (0, 1)]
    squares = [np.einsum("nd,nd->n", one[part], one[part]) for one in (a, b) for part in (0, 1)]
    both = np.sqrt((squares[0] + squares[1]) * (squares[2] + squares[3]))
    mirrored = values.logit > 0
    vector = np.where(mirrored[:, None], values.mirrored, values.straight)
    turn_a, turn_b = heads.turns(e_a.equivariant), heads.turns(e_b.equivariant)
    # Sine and cosine of θ_a − θ_b, or of θ_a + θ_b where one of the two is mirrored.
    sign = np.where(mirrored, 1, -1).astype(np.float32)
    sine = turn_a[:, 0] * turn_b[:, 1] + sign * turn_a[:, 1] * turn_b[:, 0]
    cosine = turn_a[:, 1] * turn_b[:, 1] - sign * turn_a[:, 0] * turn_b[:, 0]
    return {
        "cosine_invariant": _ratio(products[0], np.sqrt(squares[0] * squares[2])),
        "cosine_equivariant": _ratio(products[1], np.sqrt(squares[1] * squares[3])),
        "cosine_full": _ratio(products[0] + products[1], both),
        "rotation_length": np.linalg.norm(vector, axis=1),
        "mirroring_margin": np.abs(values.logit),
        "turn_agreement": vector[:, 0] * sine + vector[:, 1] * cosine,
    }


def centered(embeddings: Embeddings, heads: Heads) -> tuple[Array, Array]:
    """Both parts less the mean of the calibration's photos: cosines of these are comparable."""
    return (
        embeddings.invariant - heads.invariant_mean,
        embeddings.equivariant - heads.equivariant_mean,
    )


def _same(features: dict[str, Array], calibration: Calibration | None) -> Array:
    if calibration is None:
        return np.full(len(features["cosine_full"]), np.nan, np.float32)
    model = calibration.same
    logits = sum(
        weight * features[name].astype(np.float64)
        for name, weight in zip(model.features, model.weights, strict=True)
    )
    return _sigmoid(np.asarray(logits + model.bias))


def _value(calibration: Calibration | None, name: str) -> float:
    """Error of a value; NaN where the head does not tell it."""
    found = calibration.values.get(name) if calibration else None
    return math.nan if found is None or found.r2 < _LEAST_R2 else found.error


def _drawn(calibration: Calibration | None, name: str) -> float:
    """How much larger a value may be than the head says, as a share of it.

    By regression to the mean, a head that explains a share R² of a value's variance says R² of it.
    """
    found = calibration.values.get(name) if calibration else None
    return 0.0 if found is None or found.r2 < _LEAST_R2 else max(0.0, 1 / found.r2 - 1)


def _untold(calibration: Calibration | None, error: float) -> bool:
    return calibration is not None and math.isnan(error)


def _check(e_a: Embeddings, e_b: Embeddings, heads: Heads) -> None:
    for embeddings in (e_a, e_b):
        check_embeddings(embeddings, "relate", "model.relate(a, b)")
    if len(e_a) != len(e_b):
        raise DataError(f"relate: expected as many rows in both, got {len(e_a)} and {len(e_b)}")
    wanted = len(heads.invariant_mean), len(heads.equivariant_mean)
    for embeddings in (e_a, e_b):
        found = embeddings.invariant.shape[1], embeddings.equivariant.shape[1]
        if found != wanted:
            raise DataError(
                f"relate: the heads are of a model whose parts have {wanted[0]} and {wanted[1]} "
                f"entries, the embeddings have {found[0]} and {found[1]}"
            )
        check_raw(embeddings)


def check_embeddings(given: object, name: str, of_images: str) -> None:
    """Refuse what is no embeddings, such as images, which the methods of a model take.

    Args:
        given: What was given.
        name: Of the function, for the message.
        of_images: How it is asked for images.

    Raises:
        DataError: When it is something else.
    """
    if not isinstance(given, Embeddings):
        raise DataError(
            f"{name}: expected Embeddings, as model.encode(images) gives them, got "
            f"{describe(given)}. Of images: {of_images}"
        )


def check_raw(embeddings: Embeddings | Vectors, heads: Heads | None = None) -> None:
    """Heads read embeddings as the model gives them; those of unit length are another thing.

    Args:
        embeddings: What is to be read, or vectors of one part.
        heads: What reads them; embeddings of other lengths are left for them to refuse.

    Raises:
        DataError: When most rows of a part, or of the whole, have length 1.
    """
    if not isinstance(embeddings, Embeddings):
        squares = [_squares(embeddings)]
    elif heads is not None and embeddings.equivariant.shape[1] != len(heads.equivariant_mean):
        return
    else:
        squares = [_squares(part) for part in (embeddings.equivariant, embeddings.invariant)]
        squares.append(squares[0] + squares[1])  # of the whole
    if any(map(_are_units, squares)):
        raise DataError(
            "the embeddings are normalised, the model's heads read raw ones. Embed the images "
            "again without normalize"
        )


def _squares(rows: Vectors) -> Array:
    """Squared lengths of some thousand rows, evenly spaced: enough to tell of most."""
    some = rows[:: max(1, len(rows) // _LOOKED_AT)].astype(np.float32, copy=False)
    return np.asarray(np.einsum("nd,nd->n", some, some))


def _are_units(squares: Array) -> bool:
    norms = np.sqrt(squares[squares > 0])
    return len(norms) > 0 and float(np.mean(np.abs(norms - 1) < _UNIT)) > 0.5


def _hide(values: NDArray[Any], hidden: NDArray[np.bool_] | bool) -> Array:
    mask = np.asarray(hidden)
    while mask.ndim < values.ndim and mask.ndim:
        mask = mask[:, None]
    return np.where(mask, np.float32(np.nan), values).astype(np.float32)


def _sigmoid(logits: NDArray[Any]) -> Array:
    # exp of a large number overflows; the limit does not change a float32.
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


def _ratio(numerator: Array, denominator: Array) -> Array:
    return (numerator / np.maximum(denominator, 1e-12)).astype(np.float32)
