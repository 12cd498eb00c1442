"""Perturbations are torchvision's, their parameters pure functions of seed, photo and view."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms

from clever_training.evaluation.perturbations import (
    GREY,
    ROTATED,
    UPRIGHT,
    Blur,
    Brightness,
    ColorJitter,
    Crop,
    Elastic,
    Flip,
    Perturbation,
    QuarterTurn,
    Rotate,
    Step,
)

STEPS: list[Step] = [
    Rotate(-90.0, 90.0),
    QuarterTurn(),
    Flip(),
    ColorJitter(),
    Brightness(0.5, 1.5),
    Blur(0.5, 2.0),
    Crop(0.3, 0.8, 4 / 3),
    Elastic(),
]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    astronaut: NDArray[np.uint8] = getattr(skimage.data, "astronaut")()  # noqa: B009
    return Image.fromarray(astronaut[:256, 100:356]).resize((64, 64))


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_parameters_depend_on_seed_photo_and_view_and_on_nothing_else(step: Step) -> None:
    chain = Perturbation((step,))
    first = [chain.parameters(0, index) for index in range(20)]
    torch.manual_seed(99)  # neither torch's nor numpy's global state matters
    assert [chain.parameters(0, index) for index in range(20)] == first
    assert [chain.parameters(1, index) for index in range(20)] != first
    assert [chain.parameters(0, index, view=1) for index in range(20)] != first
    assert len(set(first)) > 1


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_every_step_keeps_size_and_mode_and_changes_the_photo(
    step: Step, photo: Image.Image
) -> None:
    chain = Perturbation((step,))
    results = [chain(photo, chain.parameters(0, index)) for index in range(6)]
    assert {(image.size, image.mode) for image in results} == {((64, 64), "RGB")}
    assert any(image.tobytes() != photo.tobytes() for image in results)


def test_the_same_colours_with_and_without_a_rotation_after_them() -> None:
    alone = Perturbation((ColorJitter(),)).parameters(3, 5)
    assert Perturbation((ColorJitter(), Rotate(-90.0, 90.0))).parameters(3, 5)[0] == alone[0]


def test_angles_are_uniform_in_their_range() -> None:
    chain = Perturbation((Rotate(-90.0, 90.0),))
    angles = np.array([chain.parameters(0, index)[0][0] for index in range(2000)])
    assert angles.min() >= -90
    assert angles.max() <= 90
    counts, _ = np.histogram(angles, bins=6, range=(-90, 90))
    assert counts.min() > 250  # 333 on average


def test_quarter_turns_lose_nothing_and_go_counter_clockwise(photo: Image.Image) -> None:
    turned = Rotate(0.0, 0.0).apply(photo, (90.0,))
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(photo)))
    # The exact path and the resampled one turn the same way.
    nearly = np.asarray(Rotate(0.0, 0.0).apply(photo, (90.5,)), dtype=float)[16:48, 16:48]
    exact = np.asarray(turned, dtype=float)[16:48, 16:48]
    assert np.abs(nearly - exact).mean() < 8 < np.abs(nearly[::-1, ::-1] - exact).mean()


def test_the_disc_hides_whatever_a_rotation_brings_into_the_corners() -> None:
    white = Image.new("RGB", (64, 64), "white")
    upright = UPRIGHT(white, UPRIGHT.parameters(0, 0))
    for index in range(30):
        turned = ROTATED(white, ROTATED.parameters(0, index))
        # A white square stays a white disc: the background must not leak into it at any angle.
        assert turned.tobytes() == upright.tobytes()
    assert upright.getpixel((0, 0)) == GREY
    assert upright.getpixel((32, 32)) == (255, 255, 255)


def test_colour_jitter_is_torchvisions(photo: Image.Image) -> None:
    brightness, contrast, saturation, hue = 1.2, 0.8, 1.1, 0.05
    functional = transforms.functional
    expected = functional.adjust_brightness(photo, brightness)
    expected = functional.adjust_contrast(expected, contrast)
    expected = functional.adjust_saturation(expected, saturation)
    expected = functional.adjust_hue(expected, hue)
    first_order = ColorJitter().apply(photo, (brightness, contrast, saturation, hue, 0.0))
    assert first_order.tobytes() == expected.tobytes()


def test_all_orders_of_colour_jitter_occur() -> None:
    chain = Perturbation((ColorJitter(),))
    orders = {chain.parameters(0, index)[0][4] for index in range(500)}
    assert orders == set(range(24))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_blur_is_torchvisions(photo: Image.Image, sigma: float) -> None:
    size = 2 * int(np.ceil(3 * sigma)) + 1
    expected = transforms.functional.gaussian_blur(photo, [size, size], [sigma, sigma])
    ours = np.asarray(Blur(sigma, sigma).apply(photo, (sigma,)), dtype=int)
    assert np.abs(ours - np.asarray(expected, dtype=int)).max() <= 1  # rounding of a byte


def test_elastic_is_torchvisions_for_the_same_noise(photo: Image.Image) -> None:
    noise = np.random.default_rng(17).uniform(-1, 1, (64, 64, 2)).astype(np.float32)
    field = torch.from_numpy(noise).permute(2, 0, 1)[None]
    smooth = transforms.functional.gaussian_blur(field, [41, 41], [5.0, 5.0])
    displacement = smooth.permute(0, 2, 3, 1) * 100 / 64
    expected = transforms.functional.elastic_transform(photo, displacement, fill=list(GREY))
    ours = np.asarray(Elastic(reference=64).apply(photo, (17.0,)), dtype=float)
    difference = np.abs(ours - np.asarray(expected, dtype=float))[4:60, 4:60]
    assert difference.mean() < 1  # OpenCV rounds positions to 1/32 of a pixel
    moved = np.abs(ours - np.asarray(photo, dtype=float)).mean()
    assert moved > 5  # so that agreement is no accident


def test_elastic_distorts_a_small_photo_like_a_large_one() -> None:
    """By how much of its side a photo is displaced must not depend on its size."""
    ramp = np.linspace(0, 255, 224)
    large = Image.fromarray(np.tile(ramp[None, :, None], (224, 1, 3)).astype(np.uint8))
    shifts = []
    for side in (224, 64):
        image = large.resize((side, side), Image.Resampling.BOX)
        inner = slice(side // 8, -side // 8)
        moved = [
            np.asarray(Elastic().apply(image, (float(seed),)), float)[inner, inner, 0]
            - np.asarray(image, float)[inner, inner, 0]
            for seed in range(8)
        ]
        shifts.append(np.std(moved) / 255)  # the ramp's grey value is the place
    assert shifts[0] == pytest.approx(1.6 / 224, rel=0.15)
    assert shifts[1] == pytest.approx(shifts[0], rel=0.2)


def test_a_crop_of_everything_and_a_brightness_of_one_change_nothing(photo: Image.Image) -> None:
    for step in (Crop(1.0, 1.0), Brightness(1.0, 1.0), Blur(0.0, 0.0), Rotate(0.0, 0.0)):
        chain = Perturbation((step,))
        assert chain(photo, chain.parameters(0, 0)).tobytes() == photo.tobytes()


def test_a_crop_has_the_area_it_says() -> None:
    chain = Perturbation((Crop(0.25, 0.25),))
    left, top, width, height = chain.parameters(0, 4)[0]
    assert width * height == pytest.approx(0.25)
    assert min(left, top) >= 0
    assert max(left + width, top + height) <= 1
