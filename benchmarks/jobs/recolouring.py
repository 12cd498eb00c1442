"""How well ``relate`` measures colours: by the pixels, and by the model alone.

    python benchmarks/jobs.py recolouring ../shared/data --model MODEL --photos 150

Each photo is recoloured as Pillow does it (hue in HSV, as it does, or in YIQ, as the views of
training are), and left as it lies, or turned by any angle, cropped to half of its area and saved as
JPEG 75. "One look" is what embeddings tell, and what ``relate`` said before it compared pixels;
"with pixels" is ``model.relate(a, b)``. The error of a factor is that of its natural logarithm.
"Within its error" is how often a known value is wrong by no more than the error that comes with it,
which should be two thirds or more.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from results import machine, write_section

from clever_hub.cli.loading import load_model
from clever_hub.jobs.pixels import aligner, measured
from clever_hub.jobs.relate import relate
from clever_hub.jobs.relation import COLORS, Relations
from clever_training.views.color import color_matrix
from clever_training.views.parameters import ViewParameters
from jobs.photos import originals
from jobs.prepared import encode, row

JOB = "recolouring"
_ABOUT = (
    "The median value, the median error (of a factor, of its natural logarithm; of a copy in grey, "
    "of the factor), how often it is\nwithin the stated error, and the share of photos that have "
    "the value, if it is not all."
)
_BICUBIC, _SIDE = Image.Resampling.BICUBIC, 224

Change = Callable[[Image.Image], Image.Image]


def _hue(degrees: float) -> Change:
    def change(photo: Image.Image) -> Image.Image:
        hsv = cv2.cvtColor(np.asarray(photo, np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + degrees) % 360
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return Image.fromarray(np.rint(255 * rgb).clip(0, 255).astype(np.uint8))

    return change


def _hue_of_views(degrees: float) -> Change:
    matrix: Any = color_matrix(ViewParameters(hue=degrees / 360), 0.0)
    return lambda photo: Image.fromarray(cv2.transform(np.asarray(photo), matrix))


def _by(kind: type[Any], factor: float) -> Change:
    return lambda photo: kind(photo).enhance(factor)


def _all_four(photo: Image.Image) -> Image.Image:
    for kind, factor in zip(_KINDS, (1.2, 0.8, 1.3), strict=True):
        photo = kind(photo).enhance(factor)
    return _hue(-20)(photo)


_KINDS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class Kind(NamedTuple):
    """A change of colours, and what it does; None where there is no such value."""

    change: Change
    truth: tuple[float, float, float, float | None]


CHANGES: dict[str, Kind] = {
    "none": Kind(lambda photo: photo, (1, 1, 1, 0)),
    "grey": Kind(lambda photo: photo.convert("L").convert("RGB"), (1, 1, 0, None)),
    "saturation 0.2": Kind(_by(ImageEnhance.Color, 0.2), (1, 1, 0.2, 0)),
    "saturation 0.5": Kind(_by(ImageEnhance.Color, 0.5), (1, 1, 0.5, 0)),
    "saturation 2": Kind(_by(ImageEnhance.Color, 2), (1, 1, 2, 0)),
    "hue +30°": Kind(_hue(30), (1, 1, 1, 30)),
    "hue +120°": Kind(_hue(120), (1, 1, 1, 120)),
    "hue +30°, in YIQ": Kind(_hue_of_views(30), (1, 1, 1, 30)),
    "brightness 0.6": Kind(_by(ImageEnhance.Brightness, 0.6), (0.6, 1, 1, 0)),
    "brightness 1.5": Kind(_by(ImageEnhance.Brightness, 1.5), (1.5, 1, 1, 0)),
    "contrast 0.6": Kind(_by(ImageEnhance.Contrast, 0.6), (1, 0.6, 1, 0)),
    "contrast 1.5": Kind(_by(ImageEnhance.Contrast, 1.5), (1, 1.5, 1, 0)),
    "1.2, 0.8, 1.3 and −20°": Kind(_all_four, (1.2, 0.8, 1.3, -20)),
}
LAID = ("as it lies", "turned, cropped, JPEG 75")


def _turned(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = round(_SIDE * 0.5**0.5)
    left, top = ((_SIDE - side) // 2 + int(rng.integers(-15, 16)) for _ in "xy")
    turned = photo.rotate(float(rng.uniform(-180, 180)), _BICUBIC)
    file = io.BytesIO()
    turned.crop((left, top, left + side, top + side)).save(file, "JPEG", quality=75)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def copies(photos: Sequence[Image.Image], change: Change, laid: str) -> list[Image.Image]:
    """A recoloured copy of each photo."""
    changed = [change(photo) for photo in photos]
    if laid == LAID[0]:
        return changed
    return [_turned(one, np.random.default_rng([n, 7])) for n, one in enumerate(changed)]


def rows_of(
    model: Any, photos: Sequence[Image.Image], name: str, laid: str
) -> tuple[list[list[str]], float]:
    """The cells of one change, by one look and with pixels; and seconds of a pair with pixels."""
    b = copies(photos, CHANGES[name].change, laid)
    e_a, e_b = (encode(model, list(images), f"{name}, {laid}") for images in (photos, b))
    one = relate(e_a, e_b, model.heads, given_same=True)
    images = [image for pair in zip(photos, b, strict=True) for image in pair]
    places = 2 * np.arange(len(photos))
    align = aligner(images, model.preprocessor.config, cached=len(images))
    align(places, places + 1)  # finds the keypoints
    begun = time.process_time()
    both = measured(one, align(places, places + 1), given_same=True)
    seconds = (time.process_time() - begun) / len(photos)
    found = {"one look": one, "with pixels": both}
    rows = [
        [name, laid, how, *(_cell(each, column, name) for column in range(4))]
        for how, each in found.items()
    ]
    return rows, seconds


def _cell(found: Relations, column: int, name: str) -> str:
    """Median value, median error, and how often it is within its error; of those known."""
    truth, values, said = (
        CHANGES[name].truth[column],
        found.colors[:, column].astype(float),
        found.colors_error[:, column].astype(float),
    )
    known = np.isfinite(values)
    if not known.any():
        return "unknown"
    share = "" if known.all() else f" of {known.mean():.0%}"
    hue = COLORS[column] == "hue"
    median = float(np.median(values[known]))
    text = f"{median:+.0f}°" if hue else f"{median:.2f}"
    if truth is None:
        return f"{text}{share}"
    errors = np.abs(values - truth) if hue or truth == 0 else np.abs(np.log(values / truth))
    errors = np.abs((values - truth + 180) % 360 - 180) if hue else errors
    middle = float(np.median(errors[known]))
    form = f"{middle:.1f}°" if hue else f"{middle:.3f}"
    if not np.isfinite(said[known]).any():
        return f"{text} (±{form}){share}"
    held = float((errors <= said)[known].mean())
    return f"{text} (±{form}, {held:.0%}){share}"


def report(model: Any, photos: Sequence[Image.Image]) -> str:
    """A table in Markdown."""
    times: list[float] = []
    lines = [f"| change | copy | contender | {' | '.join(COLORS)} |", "|---|---|---|" + 4 * "---:|"]
    for laid in LAID:
        for name in CHANGES:
            print(f"{name}, {laid}", file=sys.stderr)
            rows, seconds = rows_of(model, photos, name, laid)
            lines += [row(*cells) for cells in rows]
            times.append(seconds)
    speed = f"With pixels {1 / float(np.mean(times)):.0f} pairs/s of one core's processor time"
    return "\n".join([*lines, "", f"{speed}, keypoints given.", ""])


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write where asked to."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="jobs.py recolouring", description=about)
    parser.add_argument("data", type=Path, help="the folder of test data")
    parser.add_argument("--model", required=True, help="a model with heads")
    parser.add_argument("--photos", type=int, default=150, help="photos to take, of 925")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    files = originals(options.data, options.photos)
    photos = [
        ImageOps.fit(Image.open(io.BytesIO(f)).convert("RGB"), (_SIDE, _SIDE), _BICUBIC)
        for f in files
    ]
    model = load_model(options.model)
    text = report(model, photos)
    print(text)
    if options.out:
        command = f"python benchmarks/jobs.py recolouring DATA --model {model.config.name}"
        command += f" --photos {options.photos}"
        of = machine("opencv-python-headless", "onnxruntime")
        title = f"## Relate: colours\n\n`{command}`, {len(files)} photos; {of}.\n\n{_ABOUT}"
        write_section(options.out, "jobs-recolouring", f"{title}\n\n{text}")
