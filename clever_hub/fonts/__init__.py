"""The letters of all pictures: names of files are in any language.

DejaVu Sans ships here (its LICENSE is beside it) and has Latin, Greek, Cyrillic, Hebrew, Arabic
letters and signs. What it lacks is drawn from a font of the system, if one of a few well-known ones
is there; anything else becomes ``�``, which can be seen. Pillow's own font has ASCII alone.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

_BUNDLED = str(Path(__file__).parent / "DejaVuSans.ttf")
_REPLACEMENT = "\ufffd"
_KERNED = 4  # letters, which may be narrower than fewer of them
_NO_CHARACTER = "\uffff"  # no font has it: it is drawn as what a font lacks
# Chinese, Japanese and Korean first, then the scripts of India and Thailand, then signs.
_WELL_KNOWN = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",  # macOS
    "msyh.ttc",  # Windows
    "YuGothR.ttc",
    "malgun.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Nirmala.ttf",
    "NotoSansThai-Regular.ttf",
    "seguisym.ttf",
)
_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "C:/Windows/Fonts"),
)


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    fill: Any,
    size: float,
    *,
    right: bool = False,
) -> None:
    """Draw a line of text.

    Args:
        draw: Of the picture.
        place: Left end and top of the line, in pixels.
        text: Of any script.
        fill: Colour.
        size: Of the letters, in pixels.
        right: Whether ``place`` is the right end.

    Example:
        >>> from PIL import Image
        >>> page = Image.new("RGB", (90, 20), "white")
        >>> write(ImageDraw.Draw(page), (0, 0), "Ünterwößen", "black", 13)
    """
    x, y = place
    x -= width_of(text, size) if right else 0
    baseline = y + _font(_BUNDLED, size).getmetrics()[0]
    for font, run in _runs(text, size):
        draw.text((x, baseline), run, fill, font, anchor="ls")
        x += font.getlength(run)


def width_of(text: str, size: float) -> float:
    """How wide a line of text is in pixels.

    Args:
        text: Of any script.
        size: Of the letters, in pixels.
    """
    return sum(font.getlength(run) for font, run in _runs(text, size))


def cut(text: str, width: float, size: float, *, keep_end: bool = False) -> str:
    """As much of a line of text as fits, with an ellipsis where some was left out.

    Args:
        text: Of any script.
        width: In pixels.
        size: Of the letters, in pixels.
        keep_end: Whether the beginning is left out, not the end.
    """
    if width_of(text, size) <= width:
        return text

    def of(length: int) -> str:
        return "…" + text[len(text) - length :] if keep_end else text[:length] + "…"

    kept = bisect_right(range(1, len(text)), width, key=lambda n: width_of(of(n), size))
    # A letter that moves closer to the ellipsis may make a longer text the narrower one.
    longer = range(min(kept + _KERNED, len(text) - 1), kept, -1)
    return of(next((n for n in longer if width_of(of(n), size) <= width), kept))


def _runs(text: str, size: float) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    """The text in pieces of one font each, and what no font has replaced."""
    # Names of macOS have accents as characters of their own, which must meet their letter.
    pieces = [_lettered(character) for character in unicodedata.normalize("NFC", text)]
    for file, piece in groupby(pieces, key=lambda one: one[1]):
        yield _font(file, size), "".join(character for character, _ in piece)


@lru_cache(maxsize=4096)
def _lettered(character: str) -> tuple[str, str]:
    """A character as it is drawn, and the font file that has it."""
    kind = unicodedata.category(character)
    if kind not in ("Cc", "Cs"):  # what controls a terminal; half of a pair, or no text at all
        for file in (_BUNDLED, *_system_fonts()):
            if _has(file, character):
                return character, file
    # What is not seen anyway, such as the joiners in emoji.
    return ("" if kind in ("Cf", "Mn") else _REPLACEMENT), _BUNDLED


def _has(file: str, character: str) -> bool:
    return _drawn(file, character) != _drawn(file, _NO_CHARACTER)


@lru_cache(maxsize=4096)
def _drawn(file: str, character: str) -> tuple[tuple[int, int], bytes]:
    mask: Any = _font(file, 24).getmask(character)
    return mask.size, bytes(mask)


@lru_cache(maxsize=64)
def _font(file: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def _system_fonts() -> tuple[str, ...]:
    """The files of those well-known fonts that are installed; looked for when one is needed."""
    return _installed(_WELL_KNOWN, _FOLDERS)


@lru_cache(maxsize=4)
def _installed(names: tuple[str, ...], folders: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for folder in folders:
        for root, _, files in os.walk(Path(folder).expanduser()):
            found |= {name: str(Path(root, name)) for name in files if name in names}
    return tuple(found[name] for name in names if name in found and _can_be_read(found[name]))


def _can_be_read(file: str) -> bool:
    try:
        _font(file, 24)
    except OSError:
        return False
    return True
