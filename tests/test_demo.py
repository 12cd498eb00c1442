"""The demonstration makes copies as it says, and says what the answers are, right or wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever_hub import Relation
from clever_hub.cli.relate_picture import brought_back
from clever_hub.jobs.relation import Colors
from examples import demo
from tests.hub.jobs.conftest import CALIBRATION, write_heads

NOTHING = Colors(None, None, None, None)


def relation(deed: demo.Deed, *, wrong_by: float = 0.0, shift: tuple[float, float]) -> Relation:
    """What a model says that knows everything, but for some degrees."""
    angle = deed.angle + wrong_by
    return Relation(
        1.0, angle, 5.0, deed.mirrored, 0.99, deed.zoom, 0.1, shift, 0.1, NOTHING, NOTHING
    )


def answer(
    *, found: int | None = 0, wrong_by: float = 0.0, mirrored: bool | None = True
) -> demo.Answer:
    """An answer on the first photo, mirrored and turned by 170 degrees."""
    deed = demo.Deed(True, 170)
    told = replace(relation(deed, wrong_by=wrong_by, shift=(0, 0)), mirrored=mirrored)
    return demo.Answer(0, deed, found, 0.9, told)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [-130.0, 90.0, 35.0])
def test_copies_are_made_as_relations_are_told(
    photos: dict[str, Path], mirrored: bool, angle: float
) -> None:
    """Undoing the deed by the definition of a relation gives the photo, and by another does not."""
    photo = demo.square(np.asarray(Image.open(photos["chelsea"])))
    deed = demo.Deed(mirrored, angle, kept=0.7)
    copy = deed.copy_of(photo)
    assert copy.size == photo.size

    def difference(told: Relation) -> float:
        back = np.asarray(brought_back(told, photo, copy), np.float32)
        inside = np.s_[demo.SIDE // 3 : -demo.SIDE // 3, demo.SIDE // 3 : -demo.SIDE // 3]
        return float(np.abs(back - np.asarray(photo, np.float32))[inside].mean())

    assert difference(relation(deed, shift=(0, 0))) < 4
    assert difference(relation(deed, wrong_by=20, shift=(0, 0))) > 12


def test_no_blank_corner_gives_the_angle_away() -> None:
    white = Image.new("RGB", (demo.SIDE, demo.SIDE), "white")
    for deeds in demo.draw_deeds():
        for deed in deeds:
            plain = replace(deed, colors=(1.0, 1.0, 1.0))
            assert np.asarray(plain.copy_of(white)).min() > 250


def test_deeds_are_drawn_the_same_each_time() -> None:
    deeds = demo.draw_deeds()
    assert deeds == demo.draw_deeds()
    assert [len(row) for row in deeds] == [len(demo.KINDS)] * len(demo.PHOTOS)
    turned, mirrored, recolored = zip(*deeds, strict=True)
    assert all(deed.mirrored for deed in mirrored)
    assert not any(deed.mirrored for deed in (*turned, *recolored))
    assert all(deed.colors != (1, 1, 1) for deed in recolored)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        pytest.param(answer(), True, id="right"),
        pytest.param(answer(wrong_by=14), True, id="close, across 180 degrees"),
        pytest.param(answer(wrong_by=16), False, id="too far"),
        pytest.param(answer(found=1), False, id="another photo"),
        pytest.param(answer(found=None), False, id="no photo"),
        pytest.param(answer(mirrored=False), False, id="not mirrored"),
        pytest.param(answer(mirrored=None), False, id="unknown"),
    ],
)
def test_what_counts_as_right(given: demo.Answer, right: bool) -> None:
    assert given.right is right


def test_takeaway_follows_the_answers_whichever_way_they_fall() -> None:
    unknown = answer(mirrored=None)
    unknown = unknown._replace(relation=replace(unknown.relation, angle=None))
    sentence = demo.takeaway([answer(), answer(wrong_by=30), answer(found=1, wrong_by=-2), unknown])
    assert "3 of 4 copies are given to the right photo; 3 of 4 times" in sentence
    assert "3 angles are told, wrong by 2° in the median and 30° at worst." in sentence
    assert demo.takeaway([unknown]).endswith("no angle is told.")


def test_demo_runs_whole_on_a_model_that_knows_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From photos to table and picture, with random heads: what is wrong is called wrong."""
    from clever_hub import ModelConfig, PreprocessingConfig
    from clever_hub.backends.torch import CleverModel

    config = ModelConfig(
        name="clever-resnet10t",
        architecture="resnet10t",
        num_features=512,
        invariant_dim=409,
        preprocessing=PreprocessingConfig(32, 32),
    )
    folder = write_heads(CleverModel(config).save_pretrained(tmp_path / "model"), CALIBRATION)
    out = tmp_path / "demo.png"
    monkeypatch.setattr("sys.argv", ["demo.py", "--model", str(folder), "--out", str(out)])
    demo.main()

    printed = capsys.readouterr().out
    assert all(name in printed for name in demo.PHOTOS.values())
    assert "5 photos, 15 copies of them" in printed
    assert "Of 60 pairs of a copy and another photo," in printed
    assert printed.count("✗") > 7
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int16)
    assert pixels.shape[0] > 1000
    assert pixels.std() > 20, "the picture is empty"
    wrong = np.array([int(demo.BAD[at : at + 2], 16) for at in (1, 3, 5)])
    assert (np.abs(pixels - wrong).sum(-1) == 0).sum() > 1000, "no frame says that it is wrong"
