"""A photo with the object that was cut out of it, drawn with Pillow and numpy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clever_hub.cli.attention_picture import colours
from clever_hub.fonts import width_of, write
from clever_hub.jobs.saliency import Cut

HEIGHT = 280
_GAP, _MARGIN, _CAPTION, _TITLE = 16, 24, 26, 52
_WHITE, _INK, _GREY = (255, 255, 255), (30, 30, 30), (110, 110, 110)
# A sky blue that is told from reds and greens in every kind of colour vision.
_MARK = (86, 180, 233)


def saliency_picture(photo: Image.Image, cut: Cut, model_name: str) -> Image.Image:
    """The photo with a box around the object, how strongly each patch belongs to it, the object.

    Args:
        photo: RGB, of any size.
        cut: Of the photo's patches.
        model_name: For the title.

    Returns:
        RGB.

    Example:
        >>> from clever_hub.jobs.saliency import token_cut
        >>> features = np.zeros((4, 5, 2), dtype=np.float32)
        >>> features[..., 0] = 1
        >>> features[1:3, 1:3] = (0, 1)
        >>> picture = saliency_picture(Image.new("RGB", (50, 40)), token_cut(features), "vit")
        >>> picture.mode
        'RGB'
    """
    size = max(1, round(HEIGHT * photo.width / photo.height)), HEIGHT
    small = photo.resize(size, Image.Resampling.BICUBIC)
    panels = (
        ("the photo, and the object's box", _boxed(small, cut)),
        ("second eigenvector, dark to bright", _strength(small, cut)),
        ("the object", _object(small, cut)),
    )
    title = f"The object that {model_name} tells from the rest"
    step = _GAP + math.ceil(max(size[0], *(width_of(caption, 14) for caption, _ in panels)))
    wide = max(len(panels) * step - _GAP, math.ceil(width_of(title, 20)), 420)
    height = _TITLE + _MARGIN + _CAPTION + HEIGHT + 50
    page = Image.new("RGB", (wide + 2 * _MARGIN, height), _WHITE)
    draw = ImageDraw.Draw(page)
    write(draw, (_MARGIN, 18), title, _INK, 20)
    for place, (caption, panel) in enumerate(panels):
        left, top = _MARGIN + place * step, _TITLE + _MARGIN
        page.paste(panel, (left, top + _CAPTION))
        write(draw, (left, top + 4), caption, _INK, 14)
    rows, columns = cut.mask.shape
    share = float(cut.object.mean())
    note = f"TokenCut over {rows} by {columns} patches; the object is {share:.0%} of them"
    write(draw, (_MARGIN, page.height - 36), note, _GREY, 14)
    return page


def box_in_pixels(cut: Cut, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The object's box in a photo.

    Args:
        cut: Of the photo's patches.
        size: Width and height of the photo in pixels.

    Returns:
        Left, top, right, bottom in pixels; right and bottom are exclusive.
    """
    rows, columns = cut.mask.shape
    across, down = size[0] / columns, size[1] / rows
    left, top, right, bottom = cut.box
    return round(left * across), round(top * down), round(right * across), round(bottom * down)


def object_mask(cut: Cut, size: tuple[int, int]) -> Image.Image:
    """The object as a mask of a photo, mode L: 255 on the object, 0 elsewhere."""
    return _enlarged(cut.object.astype(np.float64), size)


def _boxed(photo: Image.Image, cut: Cut) -> Image.Image:
    page = photo.copy()
    left, top, right, bottom = box_in_pixels(cut, photo.size)
    ImageDraw.Draw(page).rectangle((left, top, right - 1, bottom - 1), outline=_MARK, width=3)
    return page


def _strength(photo: Image.Image, cut: Cut) -> Image.Image:
    low, high = float(cut.strength.min()), float(cut.strength.max())
    level = (cut.strength - low) / (high - low) if high > low else np.zeros_like(cut.strength)
    found = np.asarray(_enlarged(level.astype(np.float64), photo.size), dtype=np.float64) / 255
    return Image.fromarray(np.rint(colours(found)).astype(np.uint8))


def _object(photo: Image.Image, cut: Cut) -> Image.Image:
    """The object in colour on the same photo, grey and pale."""
    inside = np.asarray(object_mask(cut, photo.size)) > 0
    grey = np.asarray(photo.convert("L"), dtype=np.float64)[..., None]
    page = np.where(inside[..., None], np.asarray(photo), 0.35 * grey + 165)
    return Image.fromarray(np.rint(page).astype(np.uint8))


def _enlarged(values: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    """Values in [0, 1], one per patch, as squares of a grey image: no finer than they are."""
    image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    return image.resize(size, Image.Resampling.NEAREST)
