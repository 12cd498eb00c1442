"""How one image is made from another: the same photo or not, turned, mirrored, zoomed, recoloured.

From embeddings alone: cosines say whether two images show the same photo, and the head of the
equivariant parts says what was done to it. ``clever_hub.jobs.heads`` describes the head,
``clever_hub.jobs.calibration`` what its answers are worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.errors import DataError
from clever_hub.jobs.calibration import Calibration
from clever_hub.jobs.heads import Array, Heads, PairValues

_COLORS = ("brightness", "contrast", "saturation", "hue")
# A value is "unknown" where the head explains less than this share of its variance.
_LEAST_R2 = 0.25
_LEAST_LENGTH = 0.5  # where nothing was calibrated
_SURE = 0.8  # of mirroring, either way


class Colors(NamedTuple):
    """How the colours of b differ from those of a; None is unknown.

    Attributes:
        brightness: Factor.
        contrast: Factor.
        saturation: Factor.
        hue: Shift in degrees of the colour circle.
    """

    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None


@dataclass(frozen=True)
class Relation:
    """How image b is made from image a. What the model cannot tell is None: unknown.

    To make b of a: mirror it left to right if ``mirrored``, turn it by ``angle`` about its centre,
    then cut out what lies at ``shift`` and enlarge it by ``zoom``.

    Attributes:
        same: Probability that they show the same photo, in [0, 1].
        angle: Degrees counter-clockwise from a to b, in (−180, 180].
        angle_error: Two thirds of such angles are wrong by less; degrees.
        mirrored: Whether b is mirrored.
        mirrored_probability: Probability of that.
        zoom: How much larger things are in b; 2 shows half of a's width.
        zoom_error: Two thirds are wrong by less; octaves, 1 being a factor of two.
        shift: Where b's centre lies in a, right and down of a's centre, as shares of a's side.
        shift_error: Two thirds are wrong by less, in either direction.
        colors: Brightness, contrast, saturation, hue.
        colors_error: Of each: two thirds are wrong by less; of factors, natural logarithm.
    """

    same: float | None
    angle: float | None
    angle_error: float | None
    mirrored: bool | None
    mirrored_probability: float | None
    zoom: float | None
    zoom_error: float | None
    shift: tuple[float, float] | None
    shift_error: float | None
    colors: Colors
    colors_error: Colors

    def words(self) -> str:
        """The relation in words, such as "turned by 90° counter-clockwise, mirrored"."""
        if self.same is not None and self.same < 0.5:
            return f"different photos (same: {self.same:.0%})"
        known = list(_in_words(self))
        what = ", ".join(known) or "no change that the model can tell"
        sure = "" if self.same is None else f"the same photo ({self.same:.0%}): "
        return sure + what

    def to_dict(self) -> dict[str, Any]:
        """The values by name, flat, for tables and JSON."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        x, y = plain.pop("shift") or (None, None)
        colors, errors = plain.pop("colors"), plain.pop("colors_error")
        table = {**plain, "shift_x": x, "shift_y": y, **colors._asdict()}
        return table | {f"{name}_error": value for name, value in errors._asdict().items()}


@dataclass(frozen=True, eq=False)
class Relations:
    """The relations of N pairs, as columns; NaN is unknown. ``relations[i]`` is one ``Relation``.

    Attributes:
        same: float32 (N,), as in ``Relation``, like the rest.
        angle: float32 (N,).
        angle_error: float32 (N,).
        mirrored_probability: float32 (N,).
        zoom: float32 (N,).
        zoom_error: float32 (N,).
        shift: float32 (N, 2).
        shift_error: float32 (N,).
        colors: float32 (N, 4): brightness, contrast, saturation, hue in degrees.
        colors_error: float32 (N, 4).
    """

    same: Array
    angle: Array
    angle_error: Array
    mirrored_probability: Array
    zoom: Array
    zoom_error: Array
    shift: Array
    shift_error: Array
    colors: Array
    colors_error: Array

    def __len__(self) -> int:
        return len(self.angle)

    def __iter__(self) -> Iterator[Relation]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Relation:
        """One pair's relation."""
        chance = _known(self.mirrored_probability[row])
        x, y = (_known(value) for value in self.shift[row])
        return Relation(
            same=_known(self.same[row]),
            angle=_known(self.angle[row]),
            angle_error=_known(self.angle_error[row]),
            mirrored=None if chance is None or _unsure(chance) else chance > 0.5,
            mirrored_probability=chance,
            zoom=_known(self.zoom[row]),
            zoom_error=_known(self.zoom_error[row]),
            shift=None if x is None or y is None else (x, y),
            shift_error=_known(self.shift_error[row]),
            colors=Colors(*(_known(value) for value in self.colors[row])),
            colors_error=Colors(*(_known(value) for value in self.colors_error[row])),
        )

    def columns(self) -> dict[str, NDArray[Any]]:
        """The values as flat columns by name, for tables."""
        names = ("same", "angle", "angle_error", "mirrored_probability", "zoom", "zoom_error")
        flat: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in names}
        flat |= {"shift_x": self.shift[:, 0], "shift_y": self.shift[:, 1]}
        flat |= {"shift_error": self.shift_error}
        for column, name in enumerate(_COLORS):
            flat[name] = self.colors[:, column]
            flat[f"{name}_error"] = self.colors_error[:, column]
        return flat


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
        The relations of the N pairs.

    Raises:
        DataError: When the embeddings are of another model, normalised, or not as many.

    Example:
        >>> a, b = model.encode(["a.jpg"]), model.encode(["b.jpg"])  # doctest: +SKIP
        >>> relate(a, b, model.heads)[0].angle  # doctest: +SKIP
        90.0
    """
    _check(e_a, e_b, heads)
    values = symmetric(heads, e_a.equivariant, e_b.equivariant)
    calibration = heads.config.calibration
    scale, shift = calibration.mirrored if calibration else (1.0, 0.0)
    chance = _sigmoid(scale * values.logit + shift)
    same = _same(pair_features(e_a, e_b, heads, values), calibration)
    hidden = np.zeros(len(same), bool) if given_same else same < 0.5
    chance = _hide(chance, hidden)
    angle, angle_error = _angle(values, chance, calibration)
    zoom = np.exp(-values.crop[:, 2:].mean(axis=1))
    colors = np.concatenate([np.exp(values.color[:, :3]), 360 * values.color[:, 3:]], axis=1)
    known = {name: _value(calibration, name) for name in ("zoom", "shift", *_COLORS)}
    untold = np.array([math.isnan(known[name]) and calibration is not None for name in _COLORS])
    errors = np.array([known[name] for name in _COLORS], np.float32) * (1, 1, 1, 360)
    rows = (len(same), 1)
    return Relations(
        same=same,
        angle=angle,
        angle_error=angle_error,
        mirrored_probability=chance,
        zoom=_hide(zoom, hidden | _untold(calibration, known["zoom"])),
        zoom_error=_hide(np.full(len(same), known["zoom"], np.float32), hidden),
        shift=_hide(values.crop[:, :2] / 2, (hidden | _untold(calibration, known["shift"]))),
        shift_error=_hide(np.full(len(same), known["shift"], np.float32), hidden),
        colors=_hide(colors, hidden[:, None] | untold),
        colors_error=_hide(np.tile(errors.astype(np.float32), rows), hidden),
    )


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


def _angle(
    values: PairValues, chance: Array, calibration: Calibration | None
) -> tuple[Array, Array]:
    """Degrees counter-clockwise from a to b, and their error; NaN where it cannot be told."""
    mirrored = chance > 0.5
    vector = np.where(mirrored[:, None], values.mirrored, values.straight)
    length = np.linalg.norm(vector, axis=1)
    least = calibration.angle.unknown_below if calibration else _LEAST_LENGTH
    phi = np.degrees(np.arctan2(vector[:, 0], vector[:, 1]))
    angle = np.where(mirrored, phi, -phi)
    angle = np.where(angle <= -180, angle + 360, angle)
    error = calibration.angle.error(length) if calibration else np.full_like(length, np.nan)
    unknown = (length < least) | np.isnan(chance) | _unsure(chance)
    return _hide(angle, unknown), _hide(error, unknown)


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


def _untold(calibration: Calibration | None, error: float) -> bool:
    return calibration is not None and math.isnan(error)


def _check(e_a: Embeddings, e_b: Embeddings, heads: Heads) -> None:
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


def check_raw(embeddings: Embeddings) -> None:
    """Heads read embeddings as the model gives them; those of unit length are another thing.

    Args:
        embeddings: What is to be read.

    Raises:
        DataError: When every row of the equivariant part has length 1.
    """
    norms = np.linalg.norm(embeddings.equivariant, axis=1)
    if len(norms) and np.allclose(norms, 1, atol=1e-4):
        raise DataError(
            "the embeddings are normalised, the model's heads read raw ones. Embed the images "
            "again without normalize"
        )


def _in_words(relation: Relation) -> Iterator[str]:
    if relation.mirrored:
        yield "mirrored"
    if relation.angle is None:
        yield "turned by an unknown angle"
    elif abs(relation.angle) >= max(5.0, relation.angle_error or 0.0):
        way = "counter-clockwise" if relation.angle > 0 else "clockwise"
        near = "" if relation.angle_error is None else f" (±{relation.angle_error:.0f}°)"
        yield f"turned by {abs(relation.angle):.0f}° {way}{near}"
    if relation.zoom is not None and abs(math.log2(relation.zoom)) > (relation.zoom_error or 0.15):
        share = 1 / relation.zoom
        yield f"cropped to {share:.0%} of the side" if share < 1 else f"{share:.0%} of its side"
    for name, factor in relation.colors._asdict().items():
        error = getattr(relation.colors_error, name) or 0.1
        if name != "hue" and factor is not None and abs(math.log(factor)) > max(0.1, error):
            yield f"{name} × {factor:.2g}"
        if name == "hue" and factor is not None and abs(factor) > max(10.0, error):
            yield f"hue {factor:+.0f}°"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _unsure(chance: Any) -> Any:
    return (chance > 1 - _SURE) & (chance < _SURE)


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
