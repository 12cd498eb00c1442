"""How far a model's answers can be trusted, as it was measured on photos that it never saw.

The entry ``"calibration"`` of a config's ``"heads"``. A bare cosine says little: 0.6 is a copy for
one model and chance for another. So thresholds are given as rates of false pairs, and every answer
comes with a probability or an error that was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import ConfigError, ModelFormatError
from clever_hub.jobs.checks import mapping, number, numbers

PARTS = ("invariant", "equivariant", "full")
TURNS = ("sideways", "upside_down")
# What the probability of "same" may be made of; clever_hub.jobs.relate computes them.
FEATURES = (
    "cosine_invariant",
    "cosine_equivariant",
    "cosine_full",
    "rotation_length",
    "mirroring_margin",
    "turn_agreement",
)


@dataclass(frozen=True)
class Threshold:
    """The centred cosine that so many pairs of different photos exceed.

    Attributes:
        threshold: The cosine.
        low: Lower end of its 95 % interval, by bootstrap over photos.
        high: Upper end.
        extrapolated: Whether too few pairs were there to see it: it is of a tail fitted to them.
    """

    threshold: float
    low: float
    high: float
    extrapolated: bool

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "threshold": self.threshold,
            "low": self.low,
            "high": self.high,
            "extrapolated": self.extrapolated,
        }


@dataclass(frozen=True)
class SameCalibration:
    """A logistic model of the probability that two images show the same photo.

    Attributes:
        features: Names of what it sees, out of ``FEATURES``.
        weights: One for each feature.
        bias: What is added.
        prior: The share of pairs of the same photo that it was fitted for.
    """

    features: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    prior: float


@dataclass(frozen=True)
class OrientationCalibration:
    """How sure a predicted turn is, by the length of its (sine, cosine).

    Attributes:
        temperature: The probability of a quarter turn q goes with
            exp(v · u_q · |v|^power / temperature), v being the predicted (sine, cosine) and u_q
            that of the quarter turn.
        confidence_at: By rate of error, such as ``"0.01"``: the lowest confidence above which no
            more than that share of the calibration's photos that were said to be turned was wrong,
            if nine tenths are upright.
        from_four: All for predictions averaged over the image and its three quarter turns.
        power: How much faster than in proportion to its length a longer v is surer.
        by_turn: The same of each of ``TURNS`` alone, by the share of upright photos, such as
            ``"0.9"``: turn → share → rate of error → confidence. An upside-down photo is one whose
            other answer, upright, lies furthest away, so it must be surer at the same rate. None:
            ``confidence_at`` is of all.
    """

    temperature: float
    confidence_at: Mapping[str, float]
    from_four: OrientationCalibration | None = None
    power: float = 0.0
    by_turn: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None


@dataclass(frozen=True)
class AngleCalibration:
    """How sure a predicted angle is, by the length of its (sine, cosine).

    Attributes:
        lengths: Ascending lengths.
        degrees: The error that 68 % of the angles stay below, at each length.
        unknown_below: Where it is shorter than this, the angle is unknown.
    """

    lengths: tuple[float, ...]
    degrees: tuple[float, ...]
    unknown_below: float

    def error(self, length: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Error in degrees that two thirds of the angles stay below; interpolated."""
        degrees: NDArray[np.float32] = np.interp(length, self.lengths, self.degrees).astype(
            np.float32
        )
        return degrees


@dataclass(frozen=True)
class EightCalibration:
    """What differs if both images are looked at in all eight positions.

    Attributes:
        angle: Of angles.
        mirrored: Factor on the log-odds of mirroring, and what is added.
    """

    angle: AngleCalibration
    mirrored: tuple[float, float]


@dataclass(frozen=True)
class ValueCalibration:
    """How well one of the regressed values is predicted.

    Attributes:
        error: What 68 % of the errors stay below.
        r2: Share of the value's variance that is explained; where it is low, the value is unknown.
    """

    error: float
    r2: float


@dataclass(frozen=True)
class Calibration:
    """How far a model's answers can be trusted.

    Attributes:
        photos: How many photos it was measured on, none of them trained on.
        data: Which.
        cosine: Part → rate of false pairs, such as ``"1e-5"`` → threshold.
        same: Of the probability that two images show the same photo.
        orientation: Of quarter turns.
        angle: Of angles between two images.
        mirrored: Factor on the log-odds of mirroring, and what is added.
        values: Of ``zoom`` (octaves), ``shift`` (share of the side), ``brightness``, ``contrast``,
            ``saturation`` (natural logarithm) and ``hue`` (share of a turn).
        measured: What else was found on these photos: ``angle_median`` (degrees), ``mirrored``,
            ``quarter`` and ``quarter_from_four`` (shares that are right).
        from_eight: For relations from all eight positions of both; None where it was not measured.
    """

    photos: int
    data: str
    cosine: Mapping[str, Mapping[str, Threshold]]
    same: SameCalibration
    orientation: OrientationCalibration
    angle: AngleCalibration
    mirrored: tuple[float, float] = (1.0, 0.0)
    values: Mapping[str, ValueCalibration] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    from_eight: EightCalibration | None = None

    def threshold(self, part: str, rate: float) -> float:
        """The centred cosine that a share ``rate`` of pairs of different photos exceeds.

        Between two rates that were measured it is interpolated, linearly in the logarithm of the
        rate.

        Args:
            part: ``invariant``, ``equivariant`` or ``full``.
            rate: Such as 1e-5.

        Returns:
            The threshold.

        Raises:
            ConfigError: When there is no such part, or the rate is outside of what was measured.
        """
        if part not in self.cosine:
            raise ConfigError(f"part: expected one of {', '.join(self.cosine)}, got {part!r}")
        known = sorted((float(r), t.threshold) for r, t in self.cosine[part].items())
        if not known[0][0] <= rate <= known[-1][0]:
            raise ConfigError(
                f"rate of false pairs: this model's calibration has {known[0][0]:g} to "
                f"{known[-1][0]:g}, got {rate:g}"
            )
        rates, thresholds = zip(*known, strict=True)
        return float(np.interp(math.log(rate), np.log(rates), thresholds))

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read the entry of a config.

        Args:
            content: The entry ``"calibration"``.

        Raises:
            ModelFormatError: When a key is missing or a value is wrong.
        """
        entry = mapping("calibration", content)
        cosine = mapping("cosine", entry.get("cosine"))
        eight = entry.get("from_eight")
        return cls(
            photos=int(number("photos", entry.get("photos"), 0, 2**53)),
            data=str(entry.get("data", "")),
            cosine={part: _thresholds(part, cosine[part]) for part in PARTS if part in cosine},
            same=_same(mapping("same", entry.get("same"))),
            orientation=_orientation(mapping("orientation", entry.get("orientation"))),
            angle=_angle(entry.get("angle")),
            mirrored=_mirrored(entry.get("mirrored", [1.0, 0.0])),
            values={
                name: ValueCalibration(
                    number(f"values.{name}.error", mapping(name, value).get("error")),
                    number(f"values.{name}.r2", mapping(name, value).get("r2")),
                )
                for name, value in mapping("values", entry.get("values", {})).items()
            },
            measured={
                name: number(f"measured.{name}", value)
                for name, value in mapping("measured", entry.get("measured", {})).items()
            },
            from_eight=None if eight is None else _eight(mapping("from_eight", eight)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The entry, ready for JSON."""
        return {
            "photos": self.photos,
            "data": self.data,
            "cosine": {
                part: {rate: found.to_dict() for rate, found in rates.items()}
                for part, rates in self.cosine.items()
            },
            "same": {
                "features": list(self.same.features),
                "weights": list(self.same.weights),
                "bias": self.same.bias,
                "prior": self.same.prior,
            },
            "orientation": _orientation_dict(self.orientation),
            "angle": _angle_dict(self.angle),
            "mirrored": list(self.mirrored),
            "values": {n: {"error": v.error, "r2": v.r2} for n, v in self.values.items()},
            "measured": dict(self.measured),
            **({"from_eight": _eight_dict(self.from_eight)} if self.from_eight else {}),
        }


def _thresholds(part: str, content: object) -> dict[str, Threshold]:
    found = {}
    for rate, value in mapping(f"cosine.{part}", content).items():
        key = f"cosine.{part}.{rate}"
        entry = mapping(key, value)
        found[rate] = Threshold(
            number(f"{key}.threshold", entry.get("threshold")),
            number(f"{key}.low", entry.get("low")),
            number(f"{key}.high", entry.get("high")),
            extrapolated=bool(entry.get("extrapolated", False)),
        )
        if not _is_share(rate):
            raise ModelFormatError(f"calibration.{key}: expected a rate such as '1e-5'")
    if not found:
        raise ModelFormatError(f"calibration.cosine.{part}: expected thresholds by rate, got none")
    return found


def _same(entry: Mapping[str, Any]) -> SameCalibration:
    features = entry.get("features")
    if not isinstance(features, Sequence) or isinstance(features, str):
        raise ModelFormatError(f"calibration.same.features: expected names, got {features!r}")
    if unknown := [name for name in features if name not in FEATURES]:
        raise ModelFormatError(
            f"calibration.same.features: this clever-hub knows {', '.join(FEATURES)}, got "
            f"{unknown}. Update it: pip install -U clever-hub"
        )
    return SameCalibration(
        tuple(features),
        numbers("same.weights", entry.get("weights"), len(features)),
        number("same.bias", entry.get("bias")),
        number("same.prior", entry.get("prior"), 0, 1),
    )


def _angle(content: object) -> AngleCalibration:
    entry = mapping("angle", content)
    lengths = numbers("angle.lengths", entry.get("lengths"))
    return AngleCalibration(
        lengths,
        numbers("angle.degrees", entry.get("degrees"), len(lengths)),
        number("angle.unknown_below", entry.get("unknown_below")),
    )


def _angle_dict(found: AngleCalibration) -> dict[str, Any]:
    return {
        "lengths": list(found.lengths),
        "degrees": list(found.degrees),
        "unknown_below": found.unknown_below,
    }


def _mirrored(content: object) -> tuple[float, float]:
    scale, shift = numbers("mirrored", content, 2)
    return scale, shift


def _eight(entry: Mapping[str, Any]) -> EightCalibration:
    return EightCalibration(_angle(entry.get("angle")), _mirrored(entry.get("mirrored")))


def _eight_dict(found: EightCalibration) -> dict[str, Any]:
    return {"angle": _angle_dict(found.angle), "mirrored": list(found.mirrored)}


def _orientation(entry: Mapping[str, Any]) -> OrientationCalibration:
    four = entry.get("from_four")
    return OrientationCalibration(
        number("orientation.temperature", entry.get("temperature"), 1e-6, 1e6),
        _levels("confidence_at", entry.get("confidence_at")),
        None if four is None else _orientation(mapping("orientation.from_four", four)),
        number("orientation.power", entry.get("power", 0.0), 0, 100),
        _by_turn(entry["by_turn"]) if "by_turn" in entry else None,
    )


def _by_turn(content: object) -> dict[str, dict[str, dict[str, float]]]:
    turns = mapping("orientation.by_turn", content)
    found = {}
    for turn in TURNS:
        shares = mapping(f"orientation.by_turn.{turn}", turns.get(turn))
        found[turn] = {share: _levels(f"by_turn.{turn}.{share}", shares[share]) for share in shares}
        if not found[turn] or not all(_is_share(share) for share in found[turn]):
            raise ModelFormatError(
                f"calibration.orientation.by_turn.{turn}: expected confidences by share of upright "
                f"photos, such as '0.9', got {list(found[turn])}"
            )
    return found


def _levels(key: str, content: object) -> dict[str, float]:
    levels = mapping(f"orientation.{key}", content)
    return {rate: number(f"{key}.{rate}", level) for rate, level in levels.items()}


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _plain(content: Any) -> Any:
    """Mappings of mappings as ``dict``."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    return content


def _orientation_dict(found: OrientationCalibration) -> dict[str, Any]:
    four = {} if found.from_four is None else {"from_four": _orientation_dict(found.from_four)}
    return {
        "temperature": found.temperature,
        **({"power": found.power} if found.power else {}),
        "confidence_at": dict(found.confidence_at),
        **({} if found.by_turn is None else {"by_turn": _plain(found.by_turn)}),
        **four,
    }
