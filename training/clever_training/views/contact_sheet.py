"""A contact sheet: photos, their augmented views, and captions that say how each was made."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as PilImage
from PIL import ImageDraw

from clever_hub.cli.pictures import shortened
from clever_hub.fonts import width_of, write
from clever_training.views.decode import Image
from clever_training.views.parameters import ViewParameters

_CELL = 168  # side of a global view on the sheet, in pixels
_GAP = 14
_LINE = 13
_LINES = 4  # of small print below a view
_HEAD = 58
_FOOT = 3 * _LINE
_NARROWEST = 152  # room for the longest line of small print
_LEGEND = (
    "Frames on the photo are the views' crops, each in the colour of its heading.",
    "%: the crop's share of the photo. Elastic: typical displacement.",
    "b, c, s: factors of brightness, contrast, saturation. h: shift of the hue, in turns.",
)
_NEAREST = PilImage.Resampling.NEAREST
_PAPER, _INK, _FAINT = (255, 255, 255), (25, 25, 25), (115, 115, 115)


@dataclass(frozen=True)
class SheetRow:
    """One photo on the sheet.

    Attributes:
        name: Its name.
        photo: uint8 (height, width, 3), RGB.
        views: uint8 (size, size, 3), RGB, the larger ones first.
        parameters: The parameters of each view.
    """

    name: str
    photo: Image
    views: Sequence[Image]
    parameters: Sequence[ViewParameters]


def contact_sheet(rows: Sequence[SheetRow], title: str, global_count: int) -> PilImage.Image:
    """Draw photos and their views.

    Each view has a colour, in which its crop is drawn on the photo. Views keep their relative
    sizes. Small ones are enlarged without interpolation, so that the sheet shows the exact pixels.

    Args:
        rows: The photos, one or more, all with the same number of views.
        title: Title at the top.
        global_count: Number of global views.

    Returns:
        An RGB image.
    """
    largest = max(view.shape[0] for row in rows for view in row.views)
    sides = [max(64, round(_CELL * view.shape[0] / largest)) for view in rows[0].views]
    widths = [_CELL, *(max(side, _NARROWEST) for side in sides)]
    lefts = np.cumsum([_GAP, *(column + _GAP for column in widths)]).tolist()
    row_height = _CELL + _LINES * _LINE + 2 * _GAP
    foot = _HEAD + len(rows) * row_height
    width = max(lefts[-1], *(2 * _GAP + round(width_of(line, 11)) for line in _LEGEND))
    sheet = PilImage.new("RGB", (width, foot + _FOOT), _PAPER)
    draw = ImageDraw.Draw(sheet)
    _print(draw, _GAP, foot - _GAP, _LEGEND)
    write(draw, (_GAP, 10), title, _INK, 15)
    write(draw, (lefts[0], _HEAD - 20), "photo and crops", _INK, 12)
    for place, view in enumerate(rows[0].views):
        kind = "global" if place < global_count else "local"
        number = place + 1 if place < global_count else place + 1 - global_count
        heading = f"{kind} {number} · {view.shape[0]} px"
        write(draw, (lefts[place + 1], _HEAD - 20), heading, _color(place), 12)
    for number, row in enumerate(rows):
        top = _HEAD + number * row_height
        photo = _with_crops(row)
        sheet.paste(photo, (lefts[0], top))
        _print(draw, lefts[0], top + photo.height, _described(row))
        for place, (view, side) in enumerate(zip(row.views, sides, strict=True)):
            picture = PilImage.fromarray(view).resize((side, side), _filter(view, side))
            sheet.paste(picture, (lefts[place + 1], top))
            _print(draw, lefts[place + 1], top + side, caption(row.parameters[place]))
    return sheet


def caption(view: ViewParameters) -> list[str]:
    """The parameters of a view in a few short lines.

    Example:
        >>> caption(ViewParameters(box=(0.1, 0.2, 0.5, 0.4), flip=True, angle=-31.4))
        ['crop 20 %, flipped', 'turned -31°', 'colours kept']
    """
    if not view.known:
        return ["augmentation does", "not say what it did"]
    area = 100 * view.box[2] * view.box[3]
    lines = [f"crop {area:.0f} %{', flipped' if view.flip else ''}"]
    bent = [f"turned {view.angle:+.0f}°"] if view.angle else []
    bent += [f"elastic {_displacement(view):.1f} px"] if view.elastic_alpha else []
    lines += [", ".join(bent)] if bent else []
    lines.append(_jitter(view))
    extra = ["grey"] if view.grayscale else []
    extra += [f"blur {view.blur:.1f} px"] if view.blur else []
    extra += ["solarised"] if view.solarize else []
    return lines + ([", ".join(extra)] if extra else [])


def _jitter(view: ViewParameters) -> str:
    factors = (view.brightness, view.contrast, view.saturation)
    if factors == (1.0, 1.0, 1.0) and view.hue == 0.0:
        return "colours kept"
    return " ".join(f"{name}{factor:.1f}" for name, factor in zip("bcs", factors, strict=True)) + (
        f" h{view.hue:+.2f}"
    )


def _displacement(view: ViewParameters) -> float:
    """The standard deviation of uniform noise in ±α/2 that was blurred, in pixels."""
    return view.elastic_alpha / math.sqrt(12) / (2 * math.sqrt(math.pi) * view.elastic_sigma)


def _described(row: SheetRow) -> list[str]:
    height, width = row.photo.shape[:2]
    return [shortened(row.name, _CELL, 11), f"{width} × {height} px"]


def _with_crops(row: SheetRow) -> PilImage.Image:
    """The shrunk photo with the frame of each view's crop."""
    photo = PilImage.fromarray(row.photo)
    scale = _CELL / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    photo = photo.resize(size, PilImage.Resampling.LANCZOS if scale < 1 else _NEAREST)
    draw = ImageDraw.Draw(photo)
    for place, view in reversed(list(enumerate(row.parameters))):
        if view.known:
            left, top, width, height = view.box
            corners = (left, top, left + width, top + height)
            frame = [round(c * (size[i % 2] - 1)) for i, c in enumerate(corners)]
            draw.rectangle(frame, outline=_color(place), width=2)
    return photo


def _filter(view: Image, side: int) -> PilImage.Resampling:
    return _NEAREST if side >= view.shape[0] else PilImage.Resampling.LANCZOS


def _print(draw: ImageDraw.ImageDraw, left: int, top: int, lines: Sequence[str]) -> None:
    for number, line in enumerate(lines):
        write(draw, (left, top + 4 + number * _LINE), line, _FAINT, 11)


def _color(place: int) -> tuple[int, int, int]:
    """A colour for each view: far apart on the colour wheel, and dark enough to read."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + 0.382 * place) % 1, 0.85, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)
