"""Copies of photos, made as people make them: the transformations that the job benchmarks share.

``easy`` is imagededup's protocol on UKBench (https://idealo.github.io/imagededup, "CNN performance
at different similarity thresholds"): a random crop of 7/8 of each side, both flips, a rotation by
25 degrees, a resize to another aspect. ``hard`` are what else happens to photos, one thing at a
time, and ``harsh`` are several of them at once; ``mild`` are turned by any angle, cropped to
60 % of the area or more and recoloured. Everything depends on the photo's number and the
transformation's name alone.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Copier = Callable[[Image.Image, np.random.Generator], Image.Image]
BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


def crop(photo: Image.Image, rng: np.random.Generator, area: float = 0.765625) -> Image.Image:
    """A random place, ``area`` of the photo, the aspect kept; 560×420 of 640×480 is 0.766."""
    width, height = (round(side * area**0.5) for side in photo.size)
    left = int(rng.integers(photo.width - width + 1))
    top = int(rng.integers(photo.height - height + 1))
    return photo.crop((left, top, left + width, top + height))


def resized(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    """Another aspect: square where it was not, 4:3 where it was."""
    width, height = photo.size
    side = min(width, height)
    target = (side, side) if width != height else (side, side * 3 // 4)
    return photo.resize(target, LANCZOS)


def turned(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Any angle, the canvas grown, black in the corners."""
    return _grown(photo, float(rng.uniform(0, 360)))


def recolored(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation by up to 40 %, hue by up to 36 degrees."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        photo = enhance(photo).enhance(float(rng.uniform(0.6, 1.4)))
    hue, saturation, value = photo.convert("HSV").split()
    shift = int(rng.integers(-25, 26))
    hue = Image.fromarray(np.asarray(hue) + np.uint8(shift % 256))
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def recompressed(photo: Image.Image, _: np.random.Generator) -> Image.Image:
    """JPEG at quality 30."""
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=30)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def bordered(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A black border of 8 to 16 % of the shorter side."""
    return ImageOps.expand(photo, round(min(photo.size) * float(rng.uniform(0.08, 0.16))), "black")


def framed(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A screenshot of a phone: the photo as wide as the screen, a bar and lines of text around."""
    width = photo.width
    screen = Image.new("RGB", (width, round(width * 1.78)), "white")
    draw = ImageDraw.Draw(screen)
    bar = round(width * 0.12)
    draw.rectangle((0, 0, width, bar), fill=tuple(int(x) for x in rng.integers(20, 90, 3)))
    top = bar + round(width * float(rng.uniform(0.05, 0.2)))
    screen.paste(photo, (0, top))
    for line in range(4):
        y = top + photo.height + round(width * (0.05 + 0.07 * line))
        end = width * float(rng.uniform(0.4, 0.95))
        draw.rectangle((width * 0.04, y, end, y + width * 0.03), fill=(90, 90, 90))
    return screen


def _crop_40(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    return crop(photo, rng, 0.4)


def _harsh(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    photo = _crop_40(photo, rng)
    photo = ImageOps.mirror(photo) if rng.random() < 0.5 else photo
    photo = recolored(turned(photo, rng), rng)
    photo = (bordered, framed)[int(rng.integers(2))](photo, rng)
    return recompressed(photo, rng)


def through_disc(photo: Image.Image, angle: float) -> Image.Image:
    """The middle of a photo, turned, through a disc of 224 pixels: no corner tells the angle."""
    square = ImageOps.fit(photo, (224, 224), BICUBIC)
    pixels = np.asarray(square.rotate(angle, BICUBIC)).copy()
    y, x = np.mgrid[:224, :224] - 111.5
    pixels[x**2 + y**2 > 112**2] = 124
    return Image.fromarray(pixels)


def cut_inside(square: Image.Image, angle: float) -> Image.Image:
    """A square photo, turned, then the largest upright square of its middle without corners."""
    half = square.width / 2
    reach = half / (abs(math.sin(math.radians(angle))) + abs(math.cos(math.radians(angle))))
    sides = [round(half + sign * reach) for sign in (-1, -1, 1, 1)]
    return square.rotate(angle, BICUBIC).crop(sides)


def _cut_out(photo: Image.Image, angle: float) -> Image.Image:
    return cut_inside(ImageOps.fit(photo, (min(photo.size),) * 2, BICUBIC), angle)


def _grown(photo: Image.Image, angle: float) -> Image.Image:
    return photo.rotate(angle, BICUBIC, expand=True)


def _mild(turn: Callable[[Image.Image, float], Image.Image]) -> Copier:
    def copier(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
        photo = crop(photo, rng, float(rng.uniform(0.6, 1)))
        return recolored(turn(photo, float(rng.uniform(0, 360))), rng)

    return copier


EASY: dict[str, Copier] = {
    "crop": crop,
    "mirror": lambda photo, _: ImageOps.mirror(photo),
    "flip": lambda photo, _: ImageOps.flip(photo),
    "rotate 25": lambda photo, _: photo.rotate(25, BICUBIC),
    "resize": resized,
}
HARD: dict[str, Copier] = {
    "any angle": turned,
    "crop 40 %": _crop_40,
    "colours": recolored,
    "jpeg 30": recompressed,
    "black border": bordered,
    "screenshot": framed,
}
HARSH: dict[str, Copier] = {"all at once": _harsh}
MILD: dict[str, Copier] = {
    "mild, through a disc": _mild(through_disc),
    "mild, cut out": _mild(_cut_out),
    "mild, black corners": _mild(_grown),
}
COPIERS = EASY | HARD | HARSH  # of which the jobs' collections have copies


def copy_of(photo: Image.Image, number: int, name: str) -> Image.Image:
    """One copy of a photo.

    Args:
        photo: An RGB image.
        number: The photo's number, from which the random choices are drawn.
        name: One of ``COPIERS`` or ``MILD``.

    Returns:
        A new image.
    """
    rng = np.random.default_rng([number, zlib.crc32(name.encode())])
    return (COPIERS | MILD)[name](photo, rng)
