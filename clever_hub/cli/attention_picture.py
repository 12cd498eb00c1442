"""Attention maps drawn over a photo, with Pillow and numpy only."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clever_hub.config import PreprocessingConfig
from clever_hub.fonts import width_of, write
from clever_hub.images.opening import ImageSource
from clever_hub.images.preparing import Preprocessor

PANEL = 224
_GAP, _MARGIN, _CAPTION, _TITLE = 16, 24, 26, 62
_WHITE, _INK, _GREY = (255, 255, 255), (30, 30, 30), (110, 110, 110)
# Five colours of matplotlib's inferno, dark to bright, which suits colour-blind readers.
_INFERNO = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def seen(preprocessing: PreprocessingConfig, image: ImageSource) -> Image.Image:
    """The photo as the model sees it: resized and cropped, not normalised.

    Args:
        preprocessing: The model's.
        image: Anything that ``load_image`` takes.

    Returns:
        RGB, ``crop_size`` a side.
    """
    size, side = preprocessing.resize_size, preprocessing.crop_size
    plain = PreprocessingConfig(
        size, side, preprocessing.interpolation, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    pixels = np.rint(Preprocessor(plain)(image) * 255).astype(np.uint8)  # (3, H, W)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def attention_picture(
    photo: Image.Image, maps: NDArray[np.float32], model_name: str
) -> Image.Image:
    """The photo, the mean of the heads over it, and each head by itself, with a scale.

    Args:
        photo: RGB, square, as the model sees it.
        maps: float32 (heads, rows, columns), each head's attention; not negative.
        model_name: For the title.

    Returns:
        RGB.

    Example:
        >>> photo = Image.new("RGB", (64, 64), "white")
        >>> attention_picture(photo, np.ones((3, 8, 8), np.float32) / 64, "clever-vit").mode
        'RGB'
    """
    heads, rows, columns = maps.shape
    panels = [("the photo, as the model sees it", _enlarged(photo))]
    named = {f"mean of the {heads} heads": maps.mean(axis=0)} if heads > 1 else {}
    named |= {f"head {number}": head for number, head in enumerate(maps, start=1)}
    for name, shares in named.items():
        panels.append((f"{name}, up to {shares.max():.1%}", overlay(photo, shares)))
    across = min(
        len(panels), *((4, 5) if len(panels) > 5 else (5,)), key=lambda n: -len(panels) % n
    )
    down = -(-len(panels) // across)
    title = f"Where {model_name} looks"
    wide = max(across * (PANEL + _GAP) - _GAP, width_of(title, 20), width_of(_note(1.0), 13))
    width = 2 * _MARGIN + math.ceil(wide)
    top, step = _TITLE + _MARGIN, PANEL + _CAPTION + _GAP
    page = Image.new("RGB", (width, top + down * step + 70), _WHITE)
    draw = ImageDraw.Draw(page)
    write(draw, (_MARGIN, 16), title, _INK, 20)
    explained = f"attention of the CLS token in the last block, {rows} by {columns} patches"
    write(draw, (_MARGIN, 44), explained, _GREY, 14)
    for place, (caption, panel) in enumerate(panels):
        left = _MARGIN + place % across * (PANEL + _GAP)
        upper = top + place // across * step
        page.paste(panel, (left, upper + _CAPTION))
        write(draw, (left, upper + 4), caption, _INK, 13)
    _draw_scale(page, draw, top + down * step + 4, 1 / (rows * columns))
    return page


def overlay(photo: Image.Image, shares: NDArray[np.float32]) -> Image.Image:
    """A map in colour over the grey photo, one square per patch, scaled to the map's own peak.

    Args:
        photo: RGB, square.
        shares: float32 (rows, columns), not negative.

    Returns:
        RGB, ``PANEL`` a side.
    """
    peak = float(shares.max())
    strength = shares / peak if peak > 0 else shares
    image = Image.fromarray(np.rint(strength * 255).astype(np.uint8))
    # Nearest, because the model gives one number per patch.
    level = np.asarray(image.resize((PANEL, PANEL), Image.Resampling.NEAREST)) / 255.0
    grey = np.asarray(_enlarged(photo).convert("L"), dtype=np.float64)[:, :, None]
    return Image.fromarray(np.rint(0.35 * grey + 0.65 * colours(level)).astype(np.uint8))


def _enlarged(photo: Image.Image) -> Image.Image:
    return photo.resize((PANEL, PANEL), Image.Resampling.BICUBIC)


def colours(level: NDArray[np.float64]) -> NDArray[np.float64]:
    """Levels in [0, 1] of any shape to colours, one more dimension of 3."""
    table, places = np.asarray(_INFERNO, dtype=np.float64), np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(level, places, table[:, c]) for c in range(3)], axis=-1)


def _draw_scale(page: Image.Image, draw: ImageDraw.ImageDraw, top: int, even: float) -> None:
    bar = colours(np.broadcast_to(np.linspace(0, 1, 2 * PANEL), (14, 2 * PANEL)))
    page.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (_MARGIN, top))
    write(draw, (_MARGIN, top + 20), "no attention", _INK, 13)
    write(draw, (_MARGIN + 2 * PANEL, top + 20), "the panel's highest", _INK, 13, right=True)
    write(draw, (_MARGIN, top + 40), _note(even), _GREY, 13)


def _note(even: float) -> str:
    return f"“up to” is that patch's share of a head's attention; spread evenly: {even:.1%} each"
