"""Options for opening images."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, TypedDict

from PIL import ImageColor

from clever_hub.errors import ConfigError


@dataclass(frozen=True)
class LoadOptions:
    """How images are opened; with the defaults, as every reader of a model opens them.

    Attributes:
        color_management: Convert the colours of an embedded ICC profile to sRGB. Phones write
            Display P3, cameras Adobe RGB; without this their numbers are taken as sRGB.
        background: Colour behind transparent pixels, such as ``"white"`` or ``"#808080"``; None
            drops transparency and shows the colour that the file stores for these pixels.
        layout: Order of the axes of arrays and tensors: ``"hwc"``, or ``"chw"``.
        decode: ``"reduced"`` lets the JPEG decoder shrink by 1/2, 1/4 or 1/8, to no less than twice
            the size that the image is then resized to: a photo of 12 megapixels takes a fifth of
            the time, its pixels differ by 0.2 of 255 in the mean. Other formats, and small photos,
            are decoded exactly. ``"exact"`` always does.

    Raises:
        ConfigError: When a value is none of these.

    Example:
        >>> LoadOptions(background="white").changed()
        {'background': 'white'}
    """

    color_management: bool = False
    background: str | tuple[int, int, int] | None = None
    layout: Literal["hwc", "chw"] = "hwc"
    decode: Literal["exact", "reduced"] = "exact"

    def __post_init__(self) -> None:
        for name, known in (("layout", ("hwc", "chw")), ("decode", ("exact", "reduced"))):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{name}: expected {known[0]!r} or {known[1]!r}, got {value!r}")
        if not isinstance(self.color_management, bool):
            raise ConfigError(
                f"color_management: expected True or False, got {self.color_management!r}"
            )
        if self.background is not None:
            rgb_of(self.background)

    def changed(self) -> dict[str, str]:
        """The options that differ from their default and change the pixels, as text."""
        default = LoadOptions()
        names = ("color_management", "background", "decode")
        return {
            name: str(getattr(self, name))
            for name in names
            if getattr(self, name) != getattr(default, name)
        }


class LoadKeywords(TypedDict, total=False):
    """The fields of ``LoadOptions`` as keywords of a function."""

    color_management: bool
    background: str | tuple[int, int, int] | None
    layout: Literal["hwc", "chw"]
    decode: Literal["exact", "reduced"]


def rgb_of(color: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """Red, green and blue of a colour, each in [0, 255].

    Args:
        color: A name that Pillow knows, ``"#rrggbb"``, or the three numbers.

    Raises:
        ConfigError: When it is no colour.

    Example:
        >>> rgb_of("white")
        (255, 255, 255)
    """
    try:
        found = ImageColor.getrgb(color) if isinstance(color, str) else tuple(color)
        red, green, blue = (operator.index(value) for value in found[:3])
        if len(found) == 3 and all(0 <= value <= 255 for value in found):
            return red, green, blue
    except (ValueError, TypeError):
        pass
    raise ConfigError(
        f"background: expected a colour such as 'white', '#808080' or (128, 128, 128), "
        f"got {color!r}"
    )
