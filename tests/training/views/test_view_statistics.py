"""What is drawn and what is seen is distributed as in the published pipeline."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import ColorJitter, RandomResizedCrop, RandomRotation
from torchvision.transforms.v2 import functional as tvf

from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.decode import EncodedPhoto
from clever_training.views.parameters import ViewParameters
from clever_training.views.render import FastRenderer, render_fast, render_torchvision
from clever_training.views.sample import ViewSizes, make_views, sample

COUNT = 3000
WIDTH, HEIGHT = 500, 375
SHARES = (5, 25, 50, 75, 95)
FLAVOURS = {
    "dino": ViewsRecipe(strategy="caug"),
    "simsiam": ViewsRecipe(flavour="simsiam", strategy="caug"),
}
Values = NDArray[np.float64]


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> tuple[ViewsRecipe, list[ViewParameters]]:
    """A flavour, and what it draws for its second global view."""
    recipe = FLAVOURS[request.param]
    rngs = (np.random.default_rng((7, n)) for n in range(COUNT))
    return recipe, [sample(recipe, 1, WIDTH / HEIGHT, 224, rng) for rng in rngs]


def _assert_alike(ours: Values, theirs: Values) -> None:
    """Their percentiles agree to 4 % of the range between the outer ones."""
    expected = np.percentile(theirs, SHARES)
    tolerance = 0.04 * (expected[-1] - expected[0])
    np.testing.assert_allclose(np.percentile(ours, SHARES), expected, atol=tolerance)


def test_areas_and_ratios_of_crops(flavour: tuple[ViewsRecipe, list[ViewParameters]]) -> None:
    recipe, drawn = flavour
    torch.manual_seed(0)
    image, scale = torch.zeros(3, HEIGHT, WIDTH), list(recipe.global_scale)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, scale, [3 / 4, 4 / 3])[2:] for _ in range(COUNT)]
    )
    ours = np.array([view.box for view in drawn])[:, 3:1:-1] * [HEIGHT, WIDTH]
    _assert_alike(ours.prod(axis=1), theirs.prod(axis=1))
    _assert_alike(np.log(ours[:, 1] / ours[:, 0]), np.log(theirs[:, 1] / theirs[:, 0]))


def test_factors_and_order_of_the_jitter(flavour: tuple[ViewsRecipe, list[ViewParameters]]) -> None:
    recipe, drawn = flavour
    torch.manual_seed(0)
    jitter = ColorJitter(*recipe.jitter)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = [ColorJitter.get_params(*ranges) for _ in range(COUNT)]
    jittered = [view for view in drawn if view.hue != 0]
    assert len(jittered) / COUNT == pytest.approx(0.8, abs=0.03)
    for place, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        ours = np.array([getattr(view, name) for view in jittered])
        _assert_alike(ours, np.array([one[place + 1] for one in theirs], dtype=np.float64))
    orders = {view.jitter_order for view in jittered}
    assert len(orders) == math.factorial(4)


def test_angles_and_blur(flavour: tuple[ViewsRecipe, list[ViewParameters]]) -> None:
    recipe, drawn = flavour
    torch.manual_seed(0)
    theirs = np.array([RandomRotation.get_params([-90.0, 90.0]) for _ in range(COUNT)])
    _assert_alike(np.array([view.angle for view in drawn]), theirs)
    blurred = np.array([view.blur for view in drawn if view.blur > 0])
    expected = {"dino": 0.1, "simsiam": 0.5}[recipe.flavour]
    assert len(blurred) / COUNT == pytest.approx(expected, abs=0.03)
    _assert_alike(_blurs(recipe), np.random.default_rng(0).uniform(0.1, 2.0, COUNT))
    solarized = np.mean([view.solarize for view in drawn])
    assert solarized == pytest.approx({"dino": 0.2, "simsiam": 0.0}[recipe.flavour], abs=0.03)


def _blurs(recipe: ViewsRecipe) -> Values:
    """The blur's widths where every view is blurred."""
    always = recipe.model_copy(update={"blur": (1.0, 1.0, 1.0)})
    rngs = (np.random.default_rng((8, n)) for n in range(COUNT))
    return np.array([sample(always, 1, 1.0, 224, rng).blur for rng in rngs])


def _seen(view: NDArray[np.uint8]) -> list[float]:
    """Brightness, contrast, colourfulness, sharpness, and share of black pixels."""
    pixels = view.astype(np.float64)
    luma = pixels @ [0.299, 0.587, 0.114]
    chroma = pixels.max(axis=-1) - pixels.min(axis=-1)
    sharpness = np.abs(np.diff(luma, axis=0)).mean()
    return [luma.mean(), luma.std(), chroma.mean(), sharpness, (luma < 2).mean()]


@pytest.mark.parametrize("strategy", ["baug", "caug", "caug+"])
def test_views_of_both_backends_look_alike_on_the_whole(
    strategy: str, photos: dict[str, Path]
) -> None:
    """The same draws through both: what single pixels differ by averages out."""
    files = [path.read_bytes() for path in photos.values()]
    seen = {}
    for backend in ("fast", "torchvision"):
        recipe = ViewsRecipe(strategy=strategy, backend=backend, local_count=2, scale_lengths=False)
        made = [
            make_views(EncodedPhoto(content), recipe, ViewSizes(112, 64), (0, epoch, number))[0]
            for number, content in enumerate(files)
            for epoch in range(6)
        ]
        seen[backend] = np.mean([_seen(view) for views in made for view in views], axis=0)
    ours, published = seen["fast"], seen["torchvision"]
    # The published rotation takes the nearest pixel, which leaves steps: more seeming sharpness.
    tolerances = np.array([2, 2, 3, 0.12 * published[3], 0.01])
    assert (np.abs(ours - published) < tolerances).all(), (ours, published)


@pytest.mark.parametrize("hue", [-0.1, -0.05, 0.05, 0.1])
def test_a_turned_hue_is_that_of_torchvision_but_for_the_stated_difference(
    hue: float, photos: dict[str, Path]
) -> None:
    """YIQ keeps brightness where HSV keeps the largest channel; the colours' place is the same."""
    with Image.open(photos["coffee"]) as file:
        photo = np.asarray(file.convert("RGB"))
    view = replace(ViewParameters(), hue=hue)
    plain, fast, published = (
        torch.from_numpy(render(photo, drawn, 64)).float().permute(2, 0, 1)
        for render, drawn in (
            (render_fast, ViewParameters()),
            (render_fast, view),
            (render_torchvision, view),
        )
    )
    moved, expected = ((one - plain).flatten(1).mean(dim=1) for one in (fast, published))
    moved, expected = moved - moved.mean(), expected - expected.mean()
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.7
    assert 0.5 < moved.norm() / expected.norm() < 2
    before, after = (tvf.rgb_to_grayscale(one).mean() for one in (plain, fast))
    assert after == pytest.approx(before.item(), abs=3)


def test_corners_are_black_or_show_what_the_photo_has_there(photos: dict[str, Path]) -> None:
    with Image.open(photos["coffee"]) as file:
        photo = np.asarray(file.convert("RGB")) // 2 + 100  # nothing in it is black
    view = ViewParameters(box=(0.25, 0.25, 0.5, 0.5), angle=45.0)
    black, context = (FastRenderer(photo, context=choice)(view, 96) for choice in (False, True))
    # A square that is turned by 45° covers 2 (√2 − 1) of itself.
    covered = 1 - (black.max(axis=-1) < 50).mean()
    assert covered == pytest.approx(2 * (math.sqrt(2) - 1), abs=0.02)
    assert context.min() > 90
    middle = slice(32, 64)
    difference = black[middle, middle].astype(int) - context[middle, middle]
    assert np.abs(difference).mean() < 2
