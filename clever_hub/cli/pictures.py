"""Pages of captioned photos, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from clever_hub.fonts import cut, width_of, write

WHITE, INK, GREY = (255, 255, 255), (30, 30, 30), (110, 110, 110)
_GAP, _MARGIN, _LINE = 16, 24, 18


def page(
    title: str,
    note: str,
    panels: Sequence[tuple[str, Image.Image]],
    *,
    side: int = 224,
    across: int = 5,
) -> Image.Image:
    """Photos side by side, each under its caption.

    Args:
        title: Of the page.
        note: A line below it, longer ones are wrapped.
        panels: Captions of one or more lines, and photos of any size, shrunk to ``side``.
        side: Of a panel, in pixels.
        across: Panels in a row, at most.

    Returns:
        RGB.

    Example:
        >>> page("Two", "both black", [(name, Image.new("L", (9, 5))) for name in "ab"]).mode
        'RGB'
    """
    across = max(1, min(across, len(panels)))
    width = 2 * _MARGIN + across * (side + _GAP) - _GAP
    width = max(width, 480, 2 * _MARGIN + math.ceil(width_of(title, 20)))
    notes = wrapped(note, width - 2 * _MARGIN, 14)
    lines = max((caption.count("\n") + 1 for caption, _ in panels), default=1)
    top = _MARGIN + 30 + _LINE * len(notes) + _GAP
    step = side + lines * _LINE + _GAP
    rows = -(-len(panels) // across)
    sheet = Image.new("RGB", (width, top + rows * step + _MARGIN), WHITE)
    draw = ImageDraw.Draw(sheet)
    write(draw, (_MARGIN, _MARGIN - 8), title, INK, 20)
    for number, line in enumerate(notes):
        write(draw, (_MARGIN, _MARGIN + 24 + number * _LINE), line, GREY, 14)
    for number, (caption, photo) in enumerate(panels):
        left = _MARGIN + number % across * (side + _GAP)
        upper = top + number // across * step
        for place, line in enumerate(caption.split("\n")):
            write(draw, (left, upper + place * _LINE), line, INK if not place else GREY, 13)
        shown = fitted(photo, side)
        sheet.paste(shown, (left, upper + lines * _LINE))
    return sheet


def fitted(photo: Image.Image, side: int) -> Image.Image:
    """The whole photo in a white square."""
    small = photo.convert("RGB")
    scale = side / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    small = small.resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side), WHITE)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


def shortened(text: str, width: int, size: int = 13) -> str:
    """The end of a text that is too long for a width in pixels, after an ellipsis."""
    return cut(text, width, size, keep_end=True)


def wrapped(text: str, width: int, size: int) -> list[str]:
    """The lines of a text in a width in pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and width_of(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
