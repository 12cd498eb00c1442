"""Orientation: quarter turns, their probability, and four looks at each image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clever_hub
from clever_hub.embeddings import Embeddings
from clever_hub.errors import ConfigError, DataError, ImageError, ModelFormatError
from clever_hub.jobs.calibration import Calibration
from clever_hub.jobs.heads import Heads
from clever_hub.jobs.orient import (
    least_confidences,
    orientation_from_four,
    quarter_probabilities,
)
from clever_hub.jobs.relate import turned
from tests.hub.jobs.conftest import CALIBRATION, write_heads


def vectors(*degrees: float, length: float = 1.0) -> Any:
    angle = np.radians(degrees)
    return (length * np.stack([np.sin(angle), np.cos(angle)], axis=1)).astype(np.float32)


def test_the_nearest_quarter_is_the_likeliest() -> None:
    chances = quarter_probabilities(vectors(0, 80, 170, -100), temperature=0.3)
    assert chances.argmax(axis=1).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-6)


def test_a_shorter_vector_and_a_higher_temperature_are_less_sure() -> None:
    sure = quarter_probabilities(vectors(90), 0.3)[0, 1]
    assert quarter_probabilities(vectors(90, length=0.5), 0.3)[0, 1] < sure
    assert quarter_probabilities(vectors(90), 0.6)[0, 1] < sure
    np.testing.assert_allclose(quarter_probabilities(vectors(90, length=0.0), 0.3), 0.25)


def test_with_a_power_short_vectors_say_less_and_the_longest_as_much() -> None:
    plain, power = (quarter_probabilities(vectors(90), 0.3, power=p)[0, 1] for p in (0.0, 2.0))
    assert power == pytest.approx(plain)
    short = vectors(90, length=0.5)
    assert quarter_probabilities(short, 0.3, power=1.0)[0, 1] == pytest.approx(
        quarter_probabilities(vectors(90, length=0.25), 0.3)[0, 1]
    )
    # Longer than a sine and a cosine can be, it is no surer for its power.
    longer = vectors(90, length=1.2)
    assert quarter_probabilities(longer, 0.3, power=9.0)[0, 1] == pytest.approx(
        quarter_probabilities(longer, 0.3)[0, 1]
    )


@pytest.mark.parametrize(
    "name", ["clever-efficientnet-lite0", "clever-resnet18", "clever-resnet50", "clever-vit-tiny"]
)
@pytest.mark.parametrize("quarter", [90, 180, 270])
def test_each_turn_can_be_sure_enough_for_orient(name: str, quarter: int) -> None:
    """What ``orient`` asks for by default must be within reach of sideways photos, too."""
    heads = Heads.load(Path(clever_hub.__file__).parent / "zoo" / name)
    calibration = heads.config.calibration
    assert calibration is not None
    level = calibration.orientation.from_four
    assert level is not None
    chances = quarter_probabilities(vectors(quarter), level.temperature, 0.9, level.power)
    assert chances.max() > least_confidences(heads, 0.01, from_four=True)[quarter]


def test_a_belief_in_upright_photos_is_bayes_rule() -> None:
    plain = quarter_probabilities(vectors(90, length=0.4), 0.3)[0]
    weighted = plain * np.array([0.9, 0.1 / 3, 0.1 / 3, 0.1 / 3])
    found = quarter_probabilities(vectors(90, length=0.4), 0.3, upright=0.9)[0]
    np.testing.assert_allclose(found, weighted / weighted.sum(), rtol=1e-5)


def test_turning_adds_the_angle() -> None:
    np.testing.assert_allclose(turned(vectors(100, 10), -90), vectors(10, -80), atol=1e-6)


def test_four_looks_agree_on_the_first_or_are_less_sure(
    headed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = Heads.load(headed_folder)
    script = iter([(10, 0), (100, 180), (190, 180), (280, 270)])
    monkeypatch.setattr(heads, "turns", lambda _: vectors(*next(script)))
    four = [Embeddings(np.zeros((2, 19), np.float32), np.zeros((2, 5), np.float32))] * 4
    found = orientation_from_four(four, heads)
    assert found.angle[0] == pytest.approx(10, abs=1e-3)
    assert found.quarter.tolist() == [0, 0]
    assert found.confidence[0] > found.confidence[1]


def test_a_model_looks_at_all_four_positions(headed_folder: Path, photos: dict[str, Path]) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    image = clever_hub.load_image(photos["coffee"])
    square = image.crop((0, 0, 400, 400)).resize((36, 36))
    found = model.orientation([square, square.transpose(Image.Transpose.ROTATE_90)])
    # The same four looks, so the same angle, but for the quarter turn between the two.
    difference = (found.angle[1] - found.angle[0]) % 360
    assert difference == pytest.approx(90, abs=0.5)
    assert len(found) == 2
    assert model.orientation(photos["coffee"]).angle.shape == (1,)
    assert len(model.orientation([])) == 0


def test_images_that_cannot_be_read_are_named(headed_folder: Path, tmp_path: Path) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        model.orientation([broken])
    (batch,) = model.encode_turned([broken], on_error="skip")
    assert batch.sources == []
    assert [skipped.source for skipped in batch.skipped] == [str(broken)]


def test_options_by_which_nothing_would_come_are_refused(
    headed_folder: Path, photos: dict[str, Path]
) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    with pytest.raises(ValueError, match="batch_size: expected a whole number, 1 or more, got 0"):
        model.orientation(photos["coffee"], batch_size=0)
    with pytest.raises(ValueError, match="on_error: expected 'raise' or 'skip', got 'ignore'"):
        list(model.encode_copies(photos["coffee"], on_error="ignore"))  # type: ignore[arg-type]


def test_embeddings_alone_are_enough(headed_folder: Path, photos: dict[str, Path]) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    embeddings = model.encode(photos.values())
    found = clever_hub.orientation(embeddings, model.heads)
    turns = model.heads.turns(embeddings.equivariant)
    np.testing.assert_allclose(
        found.angle, np.degrees(np.arctan2(turns[:, 0], turns[:, 1])), rtol=1e-5
    )


def test_bad_input_is_refused(headed_folder: Path) -> None:
    heads = Heads.load(headed_folder)
    ones = Embeddings(np.ones((2, 19), np.float32), np.ones((2, 5), np.float32))
    with pytest.raises(DataError, match="are normalised"):
        clever_hub.orientation(ones.normalized(), heads)
    with pytest.raises(DataError, match="of 5 entries, the embeddings have 4"):
        clever_hub.orientation(Embeddings(ones.invariant, ones.equivariant[:, :4]), heads)
    with pytest.raises(ConfigError, match="upright: expected a share"):
        clever_hub.orientation(ones, heads, upright=1.0)
    with pytest.raises(DataError, match="0, 90, 180 and 270"):
        orientation_from_four([ones] * 3, heads)


def test_the_confidence_for_a_rate_of_error_is_the_calibrations(
    headed_folder: Path, model_folder: Path
) -> None:
    heads = Heads.load(headed_folder)
    assert least_confidences(heads, 0.01, from_four=True) == {90: 0.9, 180: 0.9, 270: 0.9}
    with pytest.raises(ConfigError, match=r"calibrated for 0\.01, got 0\.05"):
        least_confidences(heads, 0.05, from_four=False)
    with pytest.raises(ModelFormatError, match="not calibrated"):
        least_confidences(Heads.load(write_heads(model_folder)), 0.01, from_four=True)


@pytest.mark.parametrize(
    ("upright", "sideways", "upside_down"),
    [
        (0.1, 0.8, 0.7),
        (0.25, 0.8, 0.7),
        (0.5, 0.8, 0.95),
        (0.9, 0.6, 0.95),
        (0.99, 0.6, 0.95),
    ],
)
def test_each_turn_has_its_own_confidence_by_the_share_of_upright_photos(
    headed_folder: Path, upright: float, sideways: float, upside_down: float
) -> None:
    entry = {
        **CALIBRATION,
        "orientation": {
            "temperature": 0.3,
            "confidence_at": {"0.01": 0.9},
            "by_turn": {
                "sideways": {"0.25": {"0.01": 0.8}, "0.9": {"0.01": 0.6}},
                "upside_down": {"0.25": {"0.01": 0.7}, "0.9": {"0.01": 0.95}},
            },
        },
    }
    heads = Heads.load(headed_folder)
    config = replace(heads.config, calibration=Calibration.from_dict(entry))
    calibrated = Heads(config, heads.tensors)
    found = least_confidences(calibrated, 0.01, from_four=True, upright=upright)
    assert found == {90: sideways, 180: upside_down, 270: sideways}


def test_a_photo_that_cannot_be_read_is_skipped_if_that_is_allowed(
    headed_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    given = [photos["coffee"], broken, photos["rocket"]]
    found = model.orientation(given, on_error="skip", batch_size=1)
    assert [(one.position, one.source) for one in found.skipped] == [(1, str(broken))]
    np.testing.assert_array_equal(found.angle, model.orientation(given[::2], batch_size=1).angle)
    batches = list(model.encode_turned(given, on_error="skip", batch_size=2))
    assert [place for batch in batches for place in batch.indices] == [0, 2]


def test_images_are_opened_as_for_encode(headed_folder: Path, photos: dict[str, Path]) -> None:
    model = clever_hub.from_pretrained(headed_folder)
    image = np.asarray(clever_hub.load_image(photos["coffee"]))
    first = np.ascontiguousarray(image.transpose(2, 0, 1))
    assert model.orientation(first, layout="chw").angle == model.orientation(image).angle
    turned = np.ascontiguousarray(first[:, :, ::-1])
    relation = model.relate(first, turned, layout="chw", pixels=False)
    assert relation == model.relate(image, image[:, ::-1], pixels=False)
    with pytest.raises(ImageError, match="b <4 bytes>: not an image"):
        model.relate(photos["coffee"], b"1234")


def test_images_are_no_embeddings(headed_folder: Path) -> None:
    heads, array = Heads.load(headed_folder), np.ones((2, 24), np.float32)
    with pytest.raises(DataError, match=r"got a.jpg. Of images: model.orientation\(images\)"):
        clever_hub.orientation("a.jpg", heads)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"got <array float32.*Of images: model.relate\(a, b\)"):
        clever_hub.relate(array, array, heads)  # type: ignore[arg-type]
