"""Views for heads: what is said to have been done was done, in the directions that users read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clever_hub.config import PreprocessingConfig
from clever_hub.images.opening import load_image
from clever_hub.images.preparing import Preprocessor
from clever_hub.jobs.heads import PairValues
from clever_hub.jobs.relate import as_it_is, of_a_as_it_is, relate
from clever_training.heads.views import HeadViews, PhotoViews, ViewMaker
from clever_training.objectives.transformation import relative_transformation
from clever_training.views.decode import EncodedPhoto
from tests.hub.jobs.test_relate import Scripted, embeddings, nearly

PREPROCESSING = PreprocessingConfig(48, 32)


@pytest.fixture(scope="module")
def made(photos: dict[str, Path]) -> PhotoViews:
    make = ViewMaker(PREPROCESSING, HeadViews(count=40), seed=3)
    return make(EncodedPhoto(str(photos["coffee"])), row=5)


def test_the_first_four_are_what_a_user_gives_turned_by_quarters(
    made: PhotoViews, photos: dict[str, Path]
) -> None:
    prepare, photo = Preprocessor(PREPROCESSING), load_image(photos["coffee"])
    turns = [
        None,
        Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_180,
        Image.Transpose.ROTATE_270,
    ]
    for quarter, turn in enumerate(turns):
        turned = photo if turn is None else photo.transpose(turn)
        np.testing.assert_allclose(made.pixels[quarter], prepare(turned), atol=0.05)
        angle = np.degrees(made.parameters[quarter, 5])
        assert angle % 360 == pytest.approx(90 * quarter, abs=1e-3)


def test_views_are_a_function_of_seed_and_row(photos: dict[str, Path], made: PhotoViews) -> None:
    photo = EncodedPhoto(str(photos["coffee"]))
    again = ViewMaker(PREPROCESSING, HeadViews(count=40), seed=3)(photo, row=5)
    np.testing.assert_array_equal(again.pixels, made.pixels)
    other = ViewMaker(PREPROCESSING, HeadViews(count=40), seed=3)(photo, row=6)
    assert not np.array_equal(other.parameters, made.parameters)


def test_all_angles_come_up_and_half_of_the_views_are_turned_by_quarters_alone() -> None:
    make = ViewMaker(PREPROCESSING, HeadViews(count=504), seed=0)
    angles = np.array([view.angle for view in make.draw(0, 300, 200)[4:]])
    assert ((angles % 90) == 0).mean() == pytest.approx(0.5, abs=0.08)
    counts, _ = np.histogram(angles, bins=8, range=(-180, 180))
    assert counts.min() > 15


def said(a: Any, b: Any) -> PairValues:
    """What perfect heads would say of two views."""
    relative = relative_transformation(*(torch.from_numpy(one)[None] for one in (a, b)))
    values = relative.values.numpy()
    logit = np.where(relative.mirrored.numpy(), 20.0, -20.0)
    return PairValues(values[:, :2], values[:, :2], values[:, 2:6], values[:, 6:10], logit)


def test_a_relation_makes_b_of_a(made: PhotoViews) -> None:
    """The angle, the mirroring and their order, on pixels: whole views turned by quarters."""
    whole = ViewMaker(PREPROCESSING, HeadViews(), 0).draw(0, 600, 400)[0]
    views, pixels = [], []
    for quarter in range(4):
        for flip in (False, True):
            image = made.pixels[0][..., ::-1] if flip else made.pixels[0]
            pixels.append(np.rot90(image, quarter, axes=(1, 2)))
            view = whole.as_array()
            view[4:6] = flip, np.radians(90 * quarter)
            views.append(view)
    for a, one in zip(views, pixels, strict=True):
        for b, other in zip(views, pixels, strict=True):
            heads = Scripted()
            answers = iter([said(a, b), said(b, a)])
            heads.pairs = lambda *_, answers=answers: next(answers)  # type: ignore[method-assign]
            found = relate(embeddings(), nearly(embeddings()), heads)[0]
            assert found.angle is not None
            mirrored = one[..., ::-1] if found.mirrored else one
            turned = np.rot90(mirrored, round(found.angle / 90), axes=(1, 2))
            np.testing.assert_array_equal(turned, other)
            assert found.zoom == pytest.approx(1)


def test_zoom_and_shift_find_b_in_a() -> None:
    a = ViewMaker(PREPROCESSING, HeadViews(), 0).draw(0, 400, 400)[0].as_array()
    a[:6] = 0.0, 0.0, 1.0, 1.0, 0.0, 0.0
    b = a.copy()
    b[:4] = 0.5, 0.25, 0.5, 0.5  # the right half, in the middle of the height
    heads = Scripted()
    answers = iter([said(a, b), said(b, a)])
    heads.pairs = lambda *_: next(answers)  # type: ignore[method-assign]
    found = relate(embeddings(), nearly(embeddings()), heads)[0]
    assert found.zoom == pytest.approx(2)
    assert found.shift == pytest.approx((0.25, 0.0))


def check_same_relation(found: PairValues, expected: PairValues, position: int) -> None:
    """Mirroring, the angle that goes with it, and the crop."""
    np.testing.assert_allclose(found.logit, expected.logit)
    branch = "mirrored" if expected.logit[0] > 0 else "straight"
    np.testing.assert_allclose(
        getattr(found, branch), getattr(expected, branch), atol=1e-5, err_msg=str(position)
    )
    np.testing.assert_allclose(found.crop, expected.crop, atol=1e-5, err_msg=str(position))


def test_eight_looks_at_b_say_the_same_as_one() -> None:
    """With perfect heads each position of b leads back to the same relation."""
    whole = ViewMaker(PREPROCESSING, HeadViews(), 0).draw(0, 600, 600)[0].as_array()
    a, b = whole.copy(), whole.copy()
    a[4:6] = 1, np.radians(20)
    b[:6] = 0.3, 0.4, 0.5, 0.5, 0, np.radians(-75)
    expected = said(a, b)
    for position in range(8):
        look = b.copy()
        flipped, quarter = position >= 4, 90 * (position % 4)
        # To mirror what is turned is to turn what is mirrored the other way.
        look[4] = float(flipped) - b[4] if flipped else b[4]
        look[5] = (-b[5] if flipped else b[5]) + np.radians(quarter)
        found = as_it_is(said(a, look), position)
        check_same_relation(found, expected, position)


@pytest.mark.parametrize("mirrored", [0, 1])
def test_eight_looks_from_a_say_the_same_as_one(mirrored: int) -> None:
    """With perfect heads each position of a leads to the same relation, b's place in it too."""
    whole = ViewMaker(PREPROCESSING, HeadViews(), 0).draw(0, 600, 600)[0].as_array()
    a, b = whole.copy(), whole.copy()
    a[:6] = 0.0, 0.0, 1.0, 1.0, 0, np.radians(20)
    b[:6] = 0.3, 0.4, 0.5, 0.5, mirrored, np.radians(-75)
    expected = said(a, b)
    for position in range(8):
        look = a.copy()
        flipped, quarter = position >= 4, 90 * (position % 4)
        look[4] = float(flipped)
        look[5] = (-a[5] if flipped else a[5]) + np.radians(quarter)
        found = of_a_as_it_is(said(look, b), position)
        check_same_relation(found, expected, position)
