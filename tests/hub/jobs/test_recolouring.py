"""Colours are measured as Pillow, torchvision and the views of training change them."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from clever_hub.jobs.alignment import align
from clever_hub.jobs.keypoints import keypoints
from clever_hub.jobs.palettes import compare_palettes
from clever_hub.jobs.recolouring import Recolouring, compare_colors
from clever_hub.jobs.relation import Colors

NAMES = ("astronaut", "chelsea", "coffee")
BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture(params=NAMES)
def photo(request: pytest.FixtureRequest, photos: dict[str, Path]) -> Image.Image:
    """A photo in colours, 224 pixels a side."""
    image = Image.open(photos[request.param]).convert("RGB")
    return ImageOps.fit(image, (224, 224), BICUBIC)


def recolouring(a: Image.Image, b: Image.Image) -> Recolouring:
    found = align(keypoints(a), keypoints(b))
    assert found.same
    return found.recolouring


def check(found: Recolouring, *truth: float, rounding: float = 0.0) -> None:
    """Every value is within three times its error, which two thirds are within once."""
    *factors, hue = truth
    for value, error, expected in zip(found.colors[:3], found.errors[:3], factors, strict=True):
        assert value is not None
        assert error is not None
        assert abs(np.log(value / expected)) < 3 * error < 0.5
    assert found.colors.hue is not None
    assert found.errors.hue is not None
    assert found.errors.hue < 3
    off = abs((found.colors.hue - hue + 180) % 360 - 180)
    assert off < 3 * found.errors.hue + rounding


FACTORS = [
    (0.6, 1.0, 1.0, 0),
    (1.3, 1.0, 1.0, 0),
    (1.0, 0.6, 1.0, 0),
    (1.0, 1.3, 1.0, 0),
    (1.0, 1.0, 0.2, 0),
    (1.0, 1.0, 0.5, 0),
    (1.0, 1.0, 1.8, 0),
    (1.0, 1.0, 1.0, 30),
    (1.0, 1.0, 1.0, 120),
    (1.0, 1.0, 1.0, -170),
    (1.2, 0.8, 1.3, -20),
    (0.7, 0.9, 0.6, 75),
]


@pytest.mark.parametrize("factors", FACTORS)
def test_as_torchvision_does_it(
    photo: Image.Image, factors: tuple[float, float, float, float]
) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    brightness, contrast, saturation, hue = factors
    b = functional.adjust_brightness(photo, brightness)
    b = functional.adjust_saturation(functional.adjust_contrast(b, contrast), saturation)
    b = functional.adjust_hue(b, (hue / 360 + 0.5) % 1 - 0.5)
    # Pillow has 256 hues, and rounds down.
    check(recolouring(photo, b), *factors, rounding=1.5)


@pytest.mark.parametrize("factors", [one for one in FACTORS if abs(one[3]) <= 60])
def test_as_the_views_of_training_do_it(
    photo: Image.Image, factors: tuple[float, float, float, float]
) -> None:
    color = pytest.importorskip("clever_training.views.color")
    parameters = pytest.importorskip("clever_training.views.parameters")
    brightness, contrast, saturation, hue = factors
    view = parameters.ViewParameters(
        brightness=brightness, contrast=contrast, saturation=saturation, hue=hue / 360
    )
    b = Image.fromarray(color.paint(np.asarray(photo), view))
    check(recolouring(photo, b), *factors)


def test_turned_mirrored_cropped_and_compressed(photo: Image.Image) -> None:
    b = ImageEnhance.Color(ImageEnhance.Brightness(photo).enhance(0.8)).enhance(0.6)
    b = ImageOps.mirror(b).rotate(50, BICUBIC).crop((40, 40, 180, 180)).resize((200, 200))
    file = io.BytesIO()
    b.save(file, "JPEG", quality=75)
    found = recolouring(photo, Image.open(file))
    check(found, 0.8, 1.0, 0.6, 0.0)
    back = recolouring(Image.open(file), photo)
    assert back.colors.brightness == pytest.approx(1 / 0.8, abs=0.15)
    assert back.colors.saturation == pytest.approx(1 / 0.6, abs=0.2)


def test_in_grey_and_from_grey(photo: Image.Image) -> None:
    grey = photo.convert("L").convert("RGB")
    found = recolouring(photo, grey)
    assert found.colors == pytest.approx(Colors(1, 1, 0, None), abs=0.02)
    assert found.words() == ["in grey"]
    back = recolouring(grey, photo)
    assert back.colors[2:] == (None, None)
    assert back.otherwise
    assert back.words() == ["recoloured"]
    twice = recolouring(grey, ImageEnhance.Brightness(grey).enhance(0.7))
    assert twice.colors[2:] == (None, None)
    assert twice.words() == ["darker"]


def test_what_was_not_recoloured_is_not_said_to_be(photo: Image.Image) -> None:
    for quality in (95, 30):
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=quality)
        found = recolouring(photo, Image.open(file))
        assert found.words() == []
        check(found, 1, 1, 1, 0)


def test_sepia_is_none_of_the_four(photo: Image.Image) -> None:
    grey = np.asarray(photo.convert("L"), float)[..., None]
    sepia = (grey * (1.07, 0.92, 0.72)).clip(0, 255).astype(np.uint8)
    found = recolouring(photo, Image.fromarray(sepia))
    assert found.otherwise
    assert found.colors[2:] == (None, None)
    assert found.words() == ["recoloured"]


def test_a_caption_does_not_count(photo: Image.Image) -> None:
    b = ImageEnhance.Color(photo).enhance(0.5)
    b.paste((250, 220, 10), (0, 180, 224, 224))
    check(recolouring(photo, b), 1.0, 1.0, 0.5, 0.0)


def test_what_is_clipped_is_less_certain(photo: Image.Image) -> None:
    mild, strong = (ImageEnhance.Brightness(photo).enhance(factor) for factor in (1.05, 2.5))
    one, other = recolouring(photo, mild).errors, recolouring(photo, strong).errors
    for name in ("brightness", "contrast", "saturation"):
        assert getattr(one, name) < getattr(other, name)


def test_few_pixels_or_flat_ones_tell_little() -> None:
    rng = np.random.default_rng(0)
    few = rng.uniform(30, 200, (20, 3)).astype(np.float32)
    assert compare_colors(few, few, 100.0).colors == (None, None, None, None)
    flat = np.full((500, 3), (120, 60, 30), np.float32)
    found = compare_colors(flat, 1.5 * flat, 75.0).colors
    assert found.brightness == pytest.approx(1.5)
    assert (found.contrast, found.saturation) == (None, None)
    assert found.hue == pytest.approx(0, abs=0.1)


def test_a_negative_is_no_change_of_contrast(photos: dict[str, Path]) -> None:
    a = np.asarray(Image.open(photos["coffee"]).convert("RGB").resize((40, 40)), np.float32)
    pixels = a.reshape(-1, 3)
    found = compare_colors(pixels, 255 - pixels, float(pixels.mean()))
    assert found.otherwise
    assert found.colors == (None, None, None, None)


def test_palettes_tell_what_no_head_knows(photo: Image.Image) -> None:
    a = np.asarray(photo.resize((64, 64)))
    assert compare_palettes(a, a[::-1]).beyond == (False, False, False, False)
    grey = np.asarray(photo.convert("L").convert("RGB").resize((50, 50)))
    assert compare_palettes(a, grey).colors.saturation == 0
    assert compare_palettes(grey, a).beyond[2:] == (True, True)
    faded = np.asarray(ImageEnhance.Color(photo).enhance(0.15).resize((64, 64)))
    assert compare_palettes(a, faded).beyond[2]
    dark = np.asarray(ImageEnhance.Brightness(photo).enhance(0.2).resize((64, 64)))
    assert compare_palettes(a, dark).beyond[0]
    hsv = cv2.cvtColor(a, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 60) % 180  # 120 degrees
    assert compare_palettes(a, np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))).beyond[3]
