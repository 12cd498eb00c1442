"""Relations: what the head says, in the words and directions that a user reads."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clever_hub
from clever_export.onnx import export_onnx
from clever_hub.embeddings import Embeddings
from clever_hub.errors import DataError, ImageError, ModelFormatError
from clever_hub.jobs.calibration import Calibration
from clever_hub.jobs.heads import Heads, HeadsConfig, PairValues
from clever_hub.jobs.relate import relate, relate_from_eight
from clever_hub.jobs.relation import Relation, Relations
from tests.hub.jobs.conftest import CALIBRATION

Rows = Any


def constant(length: int, value: float) -> Rows:
    return np.full(length, value, np.float32)


class Scripted(Heads):
    """Heads that say what a test wants them to, of b from a; the way back is its inverse."""

    def __init__(
        self,
        angle: float = 0.0,
        mirrored: bool = False,
        length: float = 1.0,
        octaves: float = 0.0,
        place: tuple[float, float] = (0.0, 0.0),
        color: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
        margin: float = 9.0,
        calibration: dict[str, Any] | None = CALIBRATION,
    ) -> None:
        found = None if calibration is None else Calibration.from_dict(calibration)
        self.config = HeadsConfig("0" * 64, 5, 16, 180.0, calibration=found)
        self.invariant_mean, self.equivariant_mean = constant(19, 0), constant(5, 0)
        self.angle, self.is_mirrored, self.length = angle, mirrored, length
        self.octaves, self.place, self.color, self.margin = octaves, place, color, margin
        self.there = True

    def pairs(self, a: Rows, b: Rows) -> PairValues:  # noqa: ARG002
        """Rotation in the head's own terms: θ_a − θ_b, or θ_a + θ_b with a mirroring between."""
        sign = 1 if self.there else -1
        phi = np.radians(self.angle if self.is_mirrored else -sign * self.angle)
        vector: Rows = self.length * np.tile([np.sin(phi), np.cos(phi)], (len(a), 1))
        junk: Rows = np.tile([0.6, -0.8], (len(a), 1))
        size = -sign * self.octaves * np.log(2)
        crop: Rows = np.tile([*self.place, size, size], (len(a), 1))
        logit: Rows = np.full(len(a), self.margin if self.is_mirrored else -self.margin)
        self.there = not self.there
        straight, other = (junk, vector) if self.is_mirrored else (vector, junk)
        color: Rows = sign * np.tile(self.color, (len(a), 1))
        return PairValues(straight, other, crop, color, logit)

    def turns(self, equivariant: Rows) -> Rows:
        """Upright."""
        return np.tile([0.0, 1.0], (len(equivariant), 1))


def embeddings(count: int = 1, seed: int = 0) -> Embeddings:
    random = np.random.default_rng(seed)
    return Embeddings(
        random.normal(size=(count, 19)).astype(np.float32),
        random.normal(size=(count, 5)).astype(np.float32),
    )


def nearly(same: Embeddings) -> Embeddings:
    """Embeddings of what certainly shows the same, but is not the same picture."""
    return Embeddings(same.invariant * np.float32(1.001), same.equivariant)


def related(heads: Heads, **options: bool) -> Relation:
    return relate(embeddings(), nearly(embeddings()), heads, **options)[0]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 30, 90, -120, 179])
def test_angles_are_counter_clockwise_from_a_to_b(angle: float, mirrored: bool) -> None:
    found = related(Scripted(angle=angle, mirrored=mirrored))
    assert found.angle == pytest.approx(angle, abs=1e-3)
    assert found.mirrored is mirrored
    assert found.angle_error == pytest.approx(4)
    assert found.same is not None
    assert found.same > 0.9


@pytest.mark.parametrize("calibration", [CALIBRATION, None])
def test_equal_embeddings_are_of_the_same_picture(calibration: dict[str, Any] | None) -> None:
    heads = Scripted(angle=30, length=0.25, color=(1, 1, 1, 1), calibration=calibration)
    a, b = embeddings(2), embeddings(2)
    b.invariant[1] += 0.1
    same, other = relate(a, b, heads)
    assert same.words() == "the same picture"
    assert (same.same, same.angle, same.mirrored, same.zoom, same.shift) == (1, 0, False, 1, (0, 0))
    assert same.colors == (1, 1, 1, 0)
    assert other.words() != "the same picture"
    eight = [embeddings(1, seed) for seed in range(8)]
    assert relate_from_eight(eight, eight, heads)[0].words() == "the same picture"


def test_half_a_turn_is_plus_180() -> None:
    assert related(Scripted(angle=180)).angle == pytest.approx(180, abs=1e-3)


def test_zoom_is_how_much_larger_things_are_and_shift_a_share_of_the_side() -> None:
    found = related(Scripted(octaves=1.0, place=(0.5, -0.2)))
    assert found.zoom == pytest.approx(2)
    assert found.zoom_error == pytest.approx(0.2)
    assert found.shift == pytest.approx((0.25, -0.1))


def test_colors_are_factors_and_what_the_head_does_not_tell_is_unknown() -> None:
    found = related(Scripted(color=(np.log(1.2), np.log(0.5), 0.0, 0.1)))
    assert found.colors[:3] == pytest.approx((1.2, 0.5, 1.0))
    # The head explains 90 % of these, and draws them so much towards no change.
    drawn = [np.log(1.2) / 9, np.log(0.5) / 9]
    expected = (np.hypot(0.1, drawn[0]), np.hypot(0.1, drawn[1]), 0.2)
    assert found.colors_error[:3] == pytest.approx(expected, rel=1e-4)
    assert found.colors.hue is None  # its R² is 0.01
    assert found.colors_error.hue is None


def test_a_short_vector_is_an_unknown_angle() -> None:
    found = related(Scripted(angle=30, length=0.25))
    assert found.angle is None
    assert found.angle_error is None
    assert "the angle is unknown" in found.words(), "whether it was turned is not known"
    longer = related(Scripted(angle=30, length=0.5))
    assert longer.angle == pytest.approx(30, abs=1e-3)
    assert longer.angle_error == pytest.approx(20)


def test_an_unsure_mirroring_leaves_the_angle_unknown_too() -> None:
    found = related(Scripted(angle=30, mirrored=True, margin=0.5))
    assert found.mirrored is None
    assert found.mirrored_probability == pytest.approx(1 / (1 + np.exp(-0.5)))
    assert found.angle is None


def test_of_different_photos_nothing_is_known_unless_they_are_given_as_the_same() -> None:
    a, b = embeddings(), embeddings(seed=1)
    found = relate(a, b, Scripted(angle=30))[0]
    assert found.same is not None
    assert found.same < 0.5
    assert [found.angle, found.mirrored, found.zoom, found.shift] == 4 * [None]
    assert set(found.colors) == {None}
    assert found.words().startswith("different photos")
    assert relate(a, b, Scripted(angle=30), given_same=True)[0].angle == pytest.approx(30, abs=1e-3)


def test_without_a_calibration_there_is_no_probability_and_no_error() -> None:
    found = related(Scripted(angle=30, octaves=1.0, calibration=None))
    assert found.same is None
    assert found.angle == pytest.approx(30, abs=1e-3)
    assert found.angle_error is None
    assert found.zoom == pytest.approx(2)
    assert related(Scripted(angle=30, length=0.4, calibration=None)).angle is None


def test_both_sides_are_asked_and_averaged() -> None:
    class OneSided(Scripted):
        """Sees nothing on the way back."""

        def pairs(self, a: Rows, b: Rows) -> PairValues:
            values = super().pairs(a, b)
            return values if not self.there else PairValues(*(0 * value for value in values))

    found = related(OneSided(angle=30, octaves=1.0, calibration=None))
    assert found.angle == pytest.approx(30, abs=1e-3)  # of half the length
    assert found.zoom == pytest.approx(2**0.5)


def test_words_say_what_was_done() -> None:
    found = related(Scripted(angle=90, mirrored=True, octaves=1.0, color=(0.4, 0.0, 0.0, 0.0)))
    assert found.words() == (
        "the same photo (99 %): mirrored, turned by 90° counter-clockwise (±4°), cropped to 50 % "
        "of the side, brightness × 1.5"
    ).replace(" %", "%")
    assert related(Scripted()).words() == "the same photo (99%): no change that the model can tell"
    assert "clockwise" in related(Scripted(angle=-90)).words()


def test_columns_and_dicts_are_flat(headed_folder: Path) -> None:
    heads = Heads.load(headed_folder)
    found = relate(embeddings(3), embeddings(3, seed=1), heads, given_same=True)
    assert len(found) == len(list(found)) == 3
    columns = found.columns()
    assert {len(column) for column in columns.values()} == {3}
    row = found[1].to_dict()
    assert columns.keys() <= row.keys()
    assert row["by"] == columns.pop("by")[1] == "model"
    for name, column in columns.items():
        expected = None if np.isnan(column[1]) else float(column[1])
        assert row[name] == expected


def test_embeddings_that_do_not_fit_are_refused() -> None:
    heads = Scripted()
    with pytest.raises(DataError, match="as many rows in both, got 2 and 3"):
        relate(embeddings(2), embeddings(3), heads)
    wide = Embeddings(np.zeros((2, 20), np.float32), np.zeros((2, 5), np.float32))
    with pytest.raises(DataError, match="have 19 and 5 entries, the embeddings have 20 and 5"):
        relate(embeddings(2), wide, heads)
    with pytest.raises(DataError, match="are normalised"):
        relate(embeddings(2), embeddings(2).normalized(), heads)


def test_cosines_are_of_centred_embeddings() -> None:
    heads = Scripted()
    heads.invariant_mean, heads.equivariant_mean = constant(19, 100), constant(5, 100)
    one, other = embeddings(), embeddings(seed=1)
    far, off = (Embeddings(100 + e.invariant, 100 + e.equivariant) for e in (one, other))
    same = relate(far, off, heads).same[0]
    assert same == pytest.approx(relate(embeddings(), other, Scripted()).same[0], abs=1e-4)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_model_relates_two_files(
    headed_folder: Path, photos: dict[str, Path], backend: str
) -> None:
    if backend == "onnx":
        export_onnx(headed_folder)
    model = clever_hub.from_pretrained(headed_folder, backend=backend)
    found = model.relate(photos["coffee"], photos["chelsea"], pixels=False)
    mirror, turns = Image.Transpose.FLIP_LEFT_RIGHT, range(0, 360, 90)

    def eight(name: str) -> list[Embeddings]:
        whole = clever_hub.load_image(photos[name])
        both = (whole, whole.transpose(mirror))
        return [model.encode(image.rotate(turn, expand=True)) for image in both for turn in turns]

    expected = relate_from_eight(eight("coffee"), eight("chelsea"), model.heads)[0]
    assert found.same == pytest.approx(expected.same, abs=0.02)
    assert found.mirrored_probability == pytest.approx(expected.mirrored_probability, abs=0.02)
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        model.relate(photos["coffee"], "gone.jpg")


def test_eight_positions_are_eight() -> None:
    one, eight = [embeddings()], 8 * [embeddings()]
    with pytest.raises(DataError, match="expected eight positions of b, got 1"):
        relate_from_eight(eight, one, Scripted())
    with pytest.raises(DataError, match="expected eight positions of a, got 1"):
        relate_from_eight(one, eight, Scripted())


def test_a_model_without_heads_relates_nothing(model_folder: Path, photos: dict[str, Path]) -> None:
    model = clever_hub.from_pretrained(model_folder)
    with pytest.raises(ModelFormatError, match="has no heads"):
        model.relate(photos["coffee"], photos["chelsea"])


def test_the_weights_of_same_are_the_calibrations() -> None:
    content = copy.deepcopy(CALIBRATION)
    content["same"] = {
        "features": ["rotation_length", "turn_agreement", "mirroring_margin"],
        "weights": [2.0, 1.0, 0.5],
        "bias": -3.0,
        "prior": 0.5,
    }
    # Length 1; both are upright as the relation says; a margin of 4.
    found = related(Scripted(margin=4.0, calibration=content), given_same=True)
    assert found.same == pytest.approx(1 / (1 + np.exp(-(2 + 1 + 2 - 3))))


def test_words_of_different_photos_tell_what_was_assumed() -> None:
    same = replace(related(Scripted(angle=90)), same=0.9)
    different = replace(same, same=0.02)
    assert different.words().startswith("different photos (same: 2%); if they were the same: ")
    assert same.words().removeprefix("the same photo (90%): ") in different.words()
    hidden = replace(different, angle=None, mirrored_probability=None, zoom=None, shift=None)
    assert hidden.words() == "different photos (same: 2%)"


def test_some_of_the_relations_are_chosen_by_rows(headed_folder: Path) -> None:
    found = relate(embeddings(4), embeddings(4, seed=1), Heads.load(headed_folder), given_same=True)
    for rows in (slice(1, 3), np.array([1, 2]), np.array([False, True, True, False])):
        some = found[rows]
        assert len(some) == 2
        assert [one.to_dict() for one in some] == [found[1].to_dict(), found[2].to_dict()]
    assert found[np.int64(1)].to_dict() == found[1].to_dict()  # type: ignore[call-overload]


def test_the_column_says_mirrored_only_where_a_relation_does() -> None:
    chances = np.array([0.1, 0.3, 0.5, 0.9, np.nan], np.float32)
    blank = np.full(5, np.nan, np.float32)
    two, four = np.full((5, 2), np.nan, np.float32), np.full((5, 4), np.nan, np.float32)
    by = np.zeros(5, bool)
    found = Relations(
        *(blank, blank, blank, chances, blank, blank, two, blank, four, four, by, blank, blank)
    )
    column = found.columns()["mirrored"]
    np.testing.assert_array_equal(column, np.array([0, np.nan, np.nan, 1, np.nan], np.float32))
    assert [one.mirrored for one in found] == [False, None, None, True, None]
