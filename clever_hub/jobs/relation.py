"""What is said of a pair of images: values, their uncertainty, and words for them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from clever_hub.jobs.heads import Array

COLORS = ("brightness", "contrast", "saturation", "hue")
_SURE = 0.8  # of mirroring, either way
_NO_CHANGE = {
    "model": "no change that the model can tell",
    "pixels": "neither turned nor mirrored nor cropped",
    "pixels and colours": "neither turned, mirrored, cropped nor recoloured",
}
_LEAST_ZOOM = 0.03  # octaves; 2 % of the side
_LEAST_TURN = {"model": 5.0, "pixels": 1.0}  # degrees; a smaller turn is not put into words
_LEAST_HUE = {"model": 10.0, "pixels": 5.0}  # degrees
LEAST_STRETCH = 1.04  # of copies that were not stretched, all measured less than 1.03


class Colors(NamedTuple):
    """How the colours of b differ from those of a; None is unknown.

    They are done in this order, as by Pillow's ``ImageEnhance`` and by torchvision.

    Attributes:
        brightness: Factor.
        contrast: Factor of what is brighter or darker than the mean grey.
        saturation: Factor; 0.8 mixes 80 % of each pixel with 20 % of its grey, 0 is in grey.
        hue: Shift in degrees of the colour circle; red becomes yellow at 60.
    """

    brightness: float | None
    contrast: float | None
    saturation: float | None
    hue: float | None


@dataclass(frozen=True)
class Relation:
    """How image b is made from image a. What the model cannot tell is None: unknown.

    To make b of a: take the place at ``shift`` as centre, mirror left to right if ``mirrored``,
    turn by ``angle``, enlarge by ``zoom``.

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
        colors_error: Of each: two thirds are wrong by less; of factors, natural logarithm, which a
            factor of 0 has not.
        by: What all but ``same`` comes from: ``"model"``, the model's heads; or ``"pixels"``,
            keypoints of both images by which b was laid onto a, and the pixels of the same places.
        stretch: How much longer one axis of b became than the one across it; 1 is not stretched.
            The model does not tell it.
        recolored: Whether the colours differ in another way than ``colors`` can say, such as in
            sepia. The model does not tell it.
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
    by: Literal["model", "pixels"] = "model"
    stretch: float | None = None
    recolored: bool | None = None

    @property
    def identical(self) -> bool:
        """Whether both are one picture: their vectors are the same, so that no value is estimated.

        Keypoints, which are measured, leave an error.
        """
        certain = self.same == 1 and self.angle_error == 0 == self.zoom_error
        return certain and self.angle == 0 and self.zoom == 1 and not self.mirrored

    @property
    def assumed(self) -> bool:
        """Whether values are told of different photos, as if they were the same: asked for so."""
        told = (self.angle, self.mirrored_probability, self.zoom, self.shift)
        return self.same is not None and self.same < 0.5 and any(one is not None for one in told)

    def words(self) -> str:
        """The relation in words, such as "turned by 90° counter-clockwise, mirrored"."""
        if self.identical:
            return "the same picture"
        different = self.same is not None and self.same < 0.5
        if different and not self.assumed:
            return f"different photos (same: {self.same:.0%})"
        known = list(_in_words(self))
        all_told = self.by == "pixels" and None not in self.colors
        what = ", ".join(known) or _NO_CHANGE["pixels and colours" if all_told else self.by]
        if different:
            return f"different photos (same: {self.same:.0%}); if they were the same: {what}"
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
    """The relations of N pairs, as columns; NaN is unknown.

    ``relations[i]`` is one ``Relation``; slices and arrays of rows choose several.

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
        by_pixels: bool (N,), whether ``by`` is ``"pixels"``.
        stretch: float32 (N,).
        recolored: float32 (N,), 0 or 1.
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
    by_pixels: NDArray[np.bool_]
    stretch: Array
    recolored: Array

    def __len__(self) -> int:
        return len(self.angle)

    def __iter__(self) -> Iterator[Relation]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, row: int) -> Relation: ...

    @overload
    def __getitem__(self, row: slice | NDArray[np.generic]) -> Relations: ...

    def __getitem__(self, row: int | slice | NDArray[np.generic]) -> Relation | Relations:
        """One pair's relation, or those of several."""
        if isinstance(row, slice) or np.ndim(row):
            return Relations(*(getattr(self, one.name)[row] for one in fields(self)))
        chance = _known(self.mirrored_probability[row])
        x, y = (_known(value) for value in self.shift[row])
        return Relation(
            same=_known(self.same[row]),
            angle=_known(self.angle[row]),
            angle_error=_known(self.angle_error[row]),
            mirrored=None if chance is None or unsure(chance) else chance > 0.5,
            mirrored_probability=chance,
            zoom=_known(self.zoom[row]),
            zoom_error=_known(self.zoom_error[row]),
            shift=None if x is None or y is None else (x, y),
            shift_error=_known(self.shift_error[row]),
            colors=Colors(*(_known(value) for value in self.colors[row])),
            colors_error=Colors(*(_known(value) for value in self.colors_error[row])),
            by="pixels" if self.by_pixels[row] else "model",
            stretch=_known(self.stretch[row]),
            recolored=None if math.isnan(self.recolored[row]) else bool(self.recolored[row]),
        )

    def hidden(self, rows: NDArray[np.bool_]) -> Relations:
        """All but ``same`` made unknown where the images do not show the same photo.

        Args:
            rows: bool (N,), which pairs.
        """

        def hide(name: str) -> Array:
            values: Array = getattr(self, name)
            mask = rows if values.ndim == 1 else rows[:, None]
            return np.where(mask, np.float32(np.nan), values).astype(np.float32)

        names = [one.name for one in fields(self) if one.name not in ("same", "by_pixels")]
        changed: dict[str, Any] = {name: hide(name) for name in names}
        return replace(self, **changed)

    def untouched(self, rows: NDArray[np.bool_]) -> Relations:
        """The same, with nothing done to b where both images are known to be one picture.

        Args:
            rows: bool (N,), which pairs.
        """
        none: dict[str, float] = dict.fromkeys(("same", "zoom", "colors", "stretch"), 1.0)

        def put(name: str) -> Array:
            values: Array = getattr(self, name)
            mask = rows if values.ndim == 1 else rows[:, None]
            return np.where(mask, np.float32(none.get(name, 0.0)), values).astype(np.float32)

        names = [one.name for one in fields(self) if one.name != "by_pixels"]
        changed: dict[str, Any] = {name: put(name) for name in names}
        changed["colors"][rows, COLORS.index("hue")] = 0.0  # degrees; the others are factors
        return replace(self, **changed)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The values as flat columns by name, for tables; ``mirrored`` is 0, 1 or NaN."""
        chance = self.mirrored_probability
        told = ~(unsure(chance.astype(np.float64)) | np.isnan(chance))
        flat: dict[str, NDArray[Any]] = {
            "same": self.same,
            "angle": self.angle,
            "angle_error": self.angle_error,
            "mirrored": np.where(told, chance > 0.5, np.nan).astype(np.float32),
            "mirrored_probability": chance,
            "zoom": self.zoom,
            "zoom_error": self.zoom_error,
        }
        flat |= {"shift_x": self.shift[:, 0], "shift_y": self.shift[:, 1]}
        flat |= {"shift_error": self.shift_error}
        for column, name in enumerate(COLORS):
            flat[name] = self.colors[:, column]
            flat[f"{name}_error"] = self.colors_error[:, column]
        flat |= {"stretch": self.stretch, "recolored": self.recolored}
        return flat | {"by": np.where(self.by_pixels, "pixels", "model")}


def _in_words(relation: Relation) -> Iterator[str]:
    if relation.mirrored:
        yield "mirrored"
    if relation.angle is None:
        yield "the angle is unknown"
    elif abs(relation.angle) >= max(_LEAST_TURN[relation.by], relation.angle_error or 0.0):
        way = "counter-clockwise" if relation.angle > 0 else "clockwise"
        near = "" if relation.angle_error is None else f" (±{in_degrees(relation.angle_error)})"
        yield f"turned by {abs(relation.angle):.0f}° {way}{near}"
    least = max(_LEAST_ZOOM, relation.zoom_error or 0.15)
    if relation.zoom is not None and abs(math.log2(relation.zoom)) > least:
        share = 1 / relation.zoom
        yield f"cropped to {share:.0%} of the side" if share < 1 else f"{share:.0%} of its side"
    if relation.stretch is not None and relation.stretch >= LEAST_STRETCH:
        yield f"stretched by {relation.stretch - 1:.0%}"
    yield from _colors_in_words(relation)
    if relation.recolored:
        yield "recoloured"


def _colors_in_words(relation: Relation) -> Iterator[str]:
    for name, factor in relation.colors._asdict().items():
        error = getattr(relation.colors_error, name) or 0.1
        if name == "saturation" and factor == 0:
            yield "in grey"
        elif name == "hue" and factor is not None:
            if abs(factor) > max(_LEAST_HUE[relation.by], error):
                yield f"hue {factor:+.0f}°"
        elif factor is not None and abs(math.log(factor)) > max(0.1, error):
            yield f"{name} × {factor:.2g}"


def in_degrees(error: float) -> str:
    """An error of an angle, in as many digits as it is worth.

    Example:
        >>> in_degrees(0.06), in_degrees(24.3)
        ('0.1°', '24°')
    """
    return f"{error:.0f}°" if error >= 1 else f"{max(error, 0.1):.1f}°"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def unsure(chance: Any) -> Any:
    """Whether a probability, or an array of them, is too near to one half to be an answer."""
    return (chance > 1 - _SURE) & (chance < _SURE)
