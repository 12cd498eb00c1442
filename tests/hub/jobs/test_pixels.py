"""Relations measured on the pixels: exact where keypoints match, the model's answer elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

import clever_hub
from clever_hub.config import PreprocessingConfig
from clever_hub.errors import ConfigError, MissingExtraError
from clever_hub.images.opening import load_image
from clever_hub.jobs.alignment import Alignment, align
from clever_hub.jobs.pixels import keypoints_as_seen, measured
from clever_hub.jobs.relate import relate
from clever_hub.jobs.relation import Relations
from clever_hub.jobs.verifying import PixelVerifier, one_thread
from tests.hub.jobs.test_alignment import turned_hue
from tests.hub.jobs.test_relate import Scripted, embeddings, nearly

ALIGNED = Alignment(True, 80, 0.9, True, 30.0, 2.0, (0.25, -0.1), 0.5, 0.0, 200)
APART = Alignment(False, 9, keypoints=200)
BICUBIC = Image.Resampling.BICUBIC


def estimated(count: int = 1, other: bool = False) -> Relations:
    """What heads say that are sure of something wrong, of the same photos or of others."""
    heads = Scripted(angle=-100.0, octaves=-1.0)
    second = embeddings(count, seed=1) if other else nearly(embeddings(count))
    return relate(embeddings(count), second, heads, given_same=True)


def square_of(photo: Path) -> Image.Image:
    return ImageOps.fit(load_image(photo), (240, 240), BICUBIC)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 90, 180, -37])
def test_a_model_measures_turns_that_its_heads_do_not_know(
    angle: float, mirrored: bool, headed_folder: Path, photos: dict[str, Path]
) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    a = square_of(photos["chelsea"])
    b = (ImageOps.mirror(a) if mirrored else a).rotate(angle, BICUBIC)
    found = model.relate(a, b)
    assert found.by == "pixels"
    assert found.mirrored is mirrored
    assert found.angle is not None
    assert abs((found.angle - angle + 180) % 360 - 180) < 0.5
    assert found.angle_error is not None
    assert found.angle_error < 0.5
    assert found.zoom == pytest.approx(1, abs=0.02)
    assert found.shift == pytest.approx((0, 0), abs=0.01)
    assert found.colors == pytest.approx((1, 1, 1, 0), abs=0.05)
    assert found.stretch == pytest.approx(1, abs=0.02)
    blind = model.relate(a, b, pixels=False)
    assert blind.by == "model"
    unchanged = angle == 0 and not mirrored  # that its vector tells, which is the same
    assert (blind.angle == pytest.approx(angle, abs=0.5)) == unchanged


def test_what_is_compared_is_the_middle_square(photos: dict[str, Path]) -> None:
    photo = load_image(photos["chelsea"])  # 451×300
    config = PreprocessingConfig(resize_size=80, crop_size=64)
    side = 300 * 64 / 80
    a = keypoints_as_seen(photo, config)
    left, top = (451 - side) / 2, (300 - side) / 2
    quarter = photo.crop((round(left), round(top), round(left + side / 2), round(top + side / 2)))
    found = align(a, keypoints_as_seen(quarter, PreprocessingConfig(64, 64)))
    assert found.same
    assert found.zoom == pytest.approx(2, rel=0.02)
    np.testing.assert_allclose(found.shift, (-0.25, -0.25), atol=0.01)


def test_measures_take_the_place_of_estimates() -> None:
    found = measured(estimated(2), [ALIGNED, APART], given_same=True)
    first, second = found
    assert (first.by, first.angle, first.mirrored, first.zoom) == ("pixels", 30.0, True, 2.0)
    assert first.shift == pytest.approx((0.25, -0.1))
    assert first.angle_error == pytest.approx(0.06, abs=0.01)
    assert first.words().endswith("mirrored, turned by 30° counter-clockwise (±0.1°), " + CROPPED)
    estimate = estimated()[0]
    assert second.by == "model"
    assert second.angle == pytest.approx(estimate.angle)
    assert second.zoom_error == estimate.zoom_error


CROPPED = "cropped to 50% of the side"


@pytest.mark.parametrize("angle", [0, 40])
def test_a_copy_in_grey_is_said_to_be(
    angle: int, headed_folder: Path, photos: dict[str, Path]
) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    a = square_of(photos["coffee"])
    found = model.relate(a, a.convert("L").rotate(angle, BICUBIC))
    assert found.by == "pixels"
    assert found.colors.saturation == 0
    assert found.colors_error.saturation is None, "a factor of 0 has no logarithm"
    assert (found.colors.hue, found.colors_error.hue) == (None, None)
    assert found.words().endswith("in grey")
    assert found.to_dict()["saturation"] == 0
    back = model.relate(a.convert("L").rotate(angle, BICUBIC), a)
    assert (back.colors.saturation, back.colors.hue) == (None, None), "nothing comes from grey"
    assert back.words().endswith("recoloured")


def test_colours_are_measured_where_pixels_are(
    headed_folder: Path, photos: dict[str, Path]
) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    a = square_of(photos["chelsea"])
    b = ImageEnhance.Color(ImageEnhance.Brightness(a).enhance(0.7)).enhance(0.5)
    found = model.relate(a, ImageOps.mirror(b.rotate(120, BICUBIC)))
    assert found.colors == pytest.approx((0.7, 1, 0.5, 0), abs=0.05)
    assert found.colors_error.saturation is not None
    assert found.colors_error.saturation < 0.1
    assert "brightness × 0." in found.words()
    assert "saturation × 0." in found.words()
    kept = model.relate(a, a.resize((230, 230), BICUBIC))
    assert kept.words().endswith("neither turned, mirrored, cropped nor recoloured")


def test_a_stretched_copy_is_said_to_be(headed_folder: Path, photos: dict[str, Path]) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    a = square_of(photos["chelsea"])
    found = model.relate(a, a.resize((240, 160), BICUBIC))
    assert found.stretch == pytest.approx(1.5, abs=0.03)
    assert "stretched by " in found.words()


def test_of_photos_that_cannot_be_aligned_what_heads_cannot_know_is_unknown(
    headed_folder: Path, photos: dict[str, Path]
) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    sky = load_image(photos["rocket"]).crop((0, 0, 120, 120)).filter(ImageFilter.GaussianBlur(20))
    sky = ImageEnhance.Color(sky).enhance(3)
    grey = model.relate(sky, sky.convert("L").rotate(90), given_same=True)
    assert grey.by == "model"
    assert (grey.colors.saturation, grey.colors.hue) == (0, None)
    turned = model.relate(sky, turned_hue(sky, 120).rotate(90), given_same=True)
    assert turned.by == "model"
    assert turned.colors.hue is None
    alone = model.relate(sky, sky.rotate(90), given_same=True)
    assert None not in alone.colors[:3]


def test_more_keypoints_are_surer() -> None:
    many = [Alignment(True, inliers, 0.9, False, 30.0, 1.0, (0, 0)) for inliers in (8, 40, 400)]
    errors = measured(estimated(3), many).angle_error
    assert (np.diff(errors) < 0).all()
    assert errors[-1] > 0


def test_alignment_speaks_for_and_against_the_same_photo() -> None:
    before = float(estimated(other=True).same[0])
    assert before < 0.5
    after = measured(estimated(other=True), [ALIGNED])[0]
    assert after.same == pytest.approx(1000 * before / (1000 * before + 1 - before))
    assert after.zoom == 2.0
    odds = float(estimated().same[0] / (1 - estimated().same[0]))
    against = measured(estimated(), [APART])[0]
    assert against.same == pytest.approx(odds / 20 / (1 + odds / 20), rel=1e-3)
    apart = measured(estimated(other=True), [APART])[0]
    assert [apart.angle, apart.mirrored, apart.zoom, apart.shift] == 4 * [None]
    assert set(apart.colors) == {None}
    assert apart.words().startswith("different photos")


@pytest.mark.parametrize("nothing", [None, Alignment(False, keypoints=12)])
def test_few_keypoints_or_none_say_nothing(nothing: Alignment | None) -> None:
    found = measured(estimated(), [nothing])[0]
    assert found.same == pytest.approx(estimated()[0].same, rel=1e-4)
    assert found.by == "model"


def test_a_blurred_sky_is_left_to_the_model(headed_folder: Path, photos: dict[str, Path]) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    sky = load_image(photos["rocket"]).crop((0, 0, 120, 120)).filter(ImageFilter.GaussianBlur(20))
    found = model.relate(sky, sky.rotate(90), given_same=True)
    expected = model.relate(sky, sky.rotate(90), given_same=True, pixels=False)
    assert found.by == "model"
    assert found.zoom == pytest.approx(expected.zoom, rel=1e-4)
    assert found.same == pytest.approx(expected.same, rel=1e-3)


def test_without_opencv_the_model_answers(
    headed_folder: Path, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    model = clever_hub.from_pretrained(headed_folder)
    assert model.relate(photos["coffee"], photos["coffee"]).by == "model"
    with pytest.raises(MissingExtraError, match=r'pip install "clever-hub\[jobs\]"'):
        model.relate(photos["coffee"], photos["coffee"], pixels=True)


def test_threads_that_overlap_give_blas_its_own_back() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads() -> set[int]:
        found = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in found if pool["user_api"] == "blas"}

    if not threads():
        pytest.skip("threadpoolctl does not know this BLAS")
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}, "the second is still inside"
        second.__exit__(None, None, None)
        assert threads() == {2}


def test_threads_of_a_verifier_are_one_or_more() -> None:
    with pytest.raises(ConfigError, match="threads: expected 1 to"):
        PixelVerifier([], threads=0)
