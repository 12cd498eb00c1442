"""Views: pure functions of their key, distributed as published, the same in both backends."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.color import GREY, color_matrix, disc_mask
from clever_training.views.parameters import ViewParameters
from clever_training.views.render import render_fast, render_torchvision
from clever_training.views.sample import ViewSizes, make_views, sample, sizes_at

PLAIN = ViewParameters()


@pytest.fixture(scope="module")
def photo(photos: dict[str, Path]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(photos["chelsea"]).convert("RGB"))


def _drawn(recipe: ViewsRecipe, view: int, count: int, aspect: float = 1.5) -> list[ViewParameters]:
    return [sample(recipe, view, aspect, 224, np.random.default_rng((1, n))) for n in range(count)]


def test_views_are_a_pure_function_of_seed_epoch_index_and_view(photo: NDArray[np.uint8]) -> None:
    recipe, sizes = ViewsRecipe(strategy="caug", local_count=1), ViewSizes(32, 24)
    views, parameters = make_views(photo, recipe, sizes, (0, 3, 7))
    again, _ = make_views(photo, recipe, sizes, (0, 3, 7))
    assert [view.shape for view in views] == [(32, 32, 3), (32, 32, 3), (24, 24, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(views, again, strict=True))
    assert len({p.box for p in parameters}) == 3
    for other in ((1, 3, 7), (0, 4, 7), (0, 3, 8)):
        assert make_views(photo, recipe, sizes, other)[1] != parameters


def test_crops_are_distributed_as_torchvisions(photo: NDArray[np.uint8]) -> None:
    height, width = photo.shape[:2]
    recipe = ViewsRecipe(global_scale=(0.1, 1.0))
    ours = np.array([p.box for p in _drawn(recipe, 0, 2000, width / height)])
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.1, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]
    )[:, [1, 0, 3, 2]] / [width, height, width, height]
    for share in (10, 50, 90):
        np.testing.assert_allclose(
            np.percentile(ours, share, axis=0), np.percentile(theirs, share, axis=0), atol=0.035
        )


def test_jitter_flip_and_rotation_have_the_published_ranges() -> None:
    drawn = _drawn(ViewsRecipe(strategy="caug"), 1, 2000)
    jittered = [p for p in drawn if p.brightness != 1]
    assert len(jittered) / len(drawn) == pytest.approx(0.8, abs=0.03)
    for name, strength, middle in (
        *[("brightness", 0.4, 1), ("contrast", 0.4, 1)],
        *[("saturation", 0.2, 1), ("hue", 0.1, 0)],
    ):
        values = np.array([getattr(p, name) for p in jittered])
        assert values.min() >= middle - strength
        assert values.max() <= middle + strength
        assert values.std() == pytest.approx(strength / math.sqrt(3), rel=0.06)
    angles = np.array([p.angle for p in drawn])
    assert np.abs(angles).max() <= 90
    assert angles.std() == pytest.approx(90 / math.sqrt(3), rel=0.05)
    for name, share in (("flip", 0.5), ("grayscale", 0.2), ("solarize", 0.2)):
        assert np.mean([getattr(p, name) for p in drawn]) == pytest.approx(share, abs=0.04)
    assert np.mean([p.blur > 0 for p in drawn]) == pytest.approx(0.1, abs=0.03)


def test_baug_never_turns_and_the_first_view_is_never_solarized() -> None:
    drawn = _drawn(ViewsRecipe(strategy="baug"), 0, 300)
    assert {p.angle for p in drawn} == {0.0}
    assert not any(p.solarize for p in drawn)
    assert all(p.blur > 0 for p in drawn)


@pytest.mark.parametrize(
    "view",
    [
        PLAIN,
        replace(PLAIN, flip=True),
        replace(PLAIN, box=(0.1, 0.2, 0.5, 0.6)),
        replace(PLAIN, box=(0.3, 0.1, 0.2, 0.3)),
        replace(PLAIN, angle=90.0),
        replace(PLAIN, angle=-90.0, flip=True),
        replace(PLAIN, brightness=1.3),
        replace(PLAIN, contrast=0.6),
        replace(PLAIN, saturation=0.5),
        replace(PLAIN, grayscale=True),
        replace(PLAIN, blur=1.5),
        replace(PLAIN, solarize=True),
    ],
    ids=str,
)
def test_fast_pictures_are_those_of_the_published_pipeline(
    photo: NDArray[np.uint8], view: ViewParameters
) -> None:
    fast, published = (
        render(photo, view, 96).astype(float) for render in (render_fast, render_torchvision)
    )
    assert np.abs(fast - published).mean() < 2.5
    assert np.corrcoef(fast.ravel(), published.ravel())[0, 1] > 0.99


def test_any_angle_agrees_with_the_published_pipeline_and_corners_are_black(
    photo: NDArray[np.uint8],
) -> None:
    view = replace(PLAIN, angle=37.0)
    fast, published = (
        render(photo, view, 96).astype(float) for render in (render_fast, render_torchvision)
    )
    # The published rotation takes the nearest pixel, ours interpolates: compare without detail.
    assert np.corrcoef(fast.ravel(), published.ravel())[0, 1] > 0.96
    assert fast[0, 0].tolist() == published[0, 0].tolist() == [0, 0, 0]


def test_hue_turns_the_same_way_as_torchvisions() -> None:
    red = np.full((8, 8, 3), [200, 50, 50], dtype=np.uint8)
    for hue in (0.1, -0.1):
        view = replace(PLAIN, hue=hue)
        fast, published = (
            render(red, view, 8)[0, 0].astype(int) for render in (render_fast, render_torchvision)
        )
        assert (fast[1] > fast[2]) == (published[1] > published[2]) == (hue > 0)


def test_color_matrix_of_a_plain_view_is_nothing() -> None:
    assert color_matrix(PLAIN, 100.0) is None


def test_growth_replaces_the_sizes_from_its_share_on() -> None:
    recipe = ViewsRecipe.model_validate(
        {"global_size": 48, "local_size": 32, "growth": [{"after": 0.7, "global_size": 64}]}
    )
    assert sizes_at(recipe, 0.69) == ViewSizes(48, 32)
    assert sizes_at(recipe, 0.7) == ViewSizes(64, 32)


def test_the_disc_covers_what_is_outside_and_changes_nothing_inside(
    photos: dict[str, Path],
) -> None:
    image = np.asarray(Image.open(photos["chelsea"]).convert("RGB"))
    view = ViewParameters(angle=30.0, brightness=1.2, grayscale=True)
    plain, seen = (render_fast(image, replace(view, disc=disc), 64) for disc in (False, True))
    mask = disc_mask(64)
    assert 0.7 < mask.mean() < np.pi / 4
    assert np.array_equal(seen[mask], plain[mask])
    assert (seen[~mask] == GREY).all()
    assert not mask[0].any()
    assert not mask[:, 0].any()


@pytest.mark.parametrize("size", ["(1, 40)", "(40, 1)", "(1, 1)"])
def test_a_photo_of_a_single_row_or_column_has_views(size: str) -> None:
    """In a process of its own: OpenCV's loop that never ended could not be stopped."""
    code = f"""
import numpy as np
from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.sample import ViewSizes, make_views
recipe = ViewsRecipe(strategy="caug", corners="context", global_size=16, local_size=8)
image = np.full((*{size}, 3), 9, np.uint8)
print(sum(len(make_views(image, recipe, ViewSizes(16, 8), (0, 0, key))[0]) > 0 for key in range(5)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "5\n"


def test_how_often_views_are_seen_through_the_disc_changes_nothing_else() -> None:
    drawn = {
        share: [
            sample(ViewsRecipe(strategy="caug", disc=share), 0, 1.0, 64, np.random.default_rng(n))
            for n in range(200)
        ]
        for share in (0.0, 0.5, 1.0)
    }
    assert not any(view.disc for view in drawn[0.0])
    assert all(view.disc for view in drawn[1.0])
    assert 60 < sum(view.disc for view in drawn[0.5]) < 140
    without = [[replace(view, disc=False) for view in views] for views in drawn.values()]
    assert without[0] == without[1] == without[2]


def test_how_often_views_are_rotated_changes_nothing_else() -> None:
    drawn = {
        share: [
            sample(
                ViewsRecipe(strategy="caug", rotation=180.0, rotation_probability=share),
                0,
                1.0,
                64,
                np.random.default_rng(n),
            )
            for n in range(200)
        ]
        for share in (0.0, 0.5, 1.0)
    }
    assert not any(view.angle for view in drawn[0.0])
    assert all(view.angle for view in drawn[1.0])
    assert 60 < sum(view.angle != 0 for view in drawn[0.5]) < 140
    turned = [(half, every) for half, every in zip(drawn[0.5], drawn[1.0], strict=True)]
    assert all(half == every for half, every in turned if half.angle)
    without = [[replace(view, angle=0.0) for view in views] for views in drawn.values()]
    assert without[0] == without[1] == without[2]
