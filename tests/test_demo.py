"""The demonstration makes copies as it says, and says what the answers are, right or wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever_hub.jobs.alignment import Alignment
from examples import demo
from tests.hub.jobs.conftest import CALIBRATION, write_heads


def lies(deed: demo.Deed, *, wrong_by: float = 0.0) -> Alignment:
    """What is found where everything is found, but for some degrees."""
    return Alignment(
        True, 50, 0.9, deed.mirrored, deed.angle + wrong_by, deed.zoom, (0.0, 0.0), 0.5, 0.0
    )


def answer(*, nearest: int = 0, wrong_by: float = 0.0, mirrored: bool = True) -> demo.Answer:
    """An answer on the first photo, mirrored and turned by 178 degrees."""
    deed = demo.Deed(True, 178)
    return demo.Answer(0, deed, nearest, replace(lies(deed, wrong_by=wrong_by), mirrored=mirrored))


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

    def difference(verdict: Alignment) -> float:
        answer = demo.Answer(0, deed, 0, verdict)
        back = np.asarray(demo.undone(answer, [photo], copy), np.float32)
        inside = np.s_[demo.SIDE // 3 : -demo.SIDE // 3, demo.SIDE // 3 : -demo.SIDE // 3]
        return float(np.abs(back - np.asarray(photo, np.float32))[inside].mean())

    assert difference(lies(deed)) < 4
    assert difference(lies(deed, wrong_by=20)) > 12


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
        pytest.param(answer(wrong_by=4), True, id="close, across 180 degrees"),
        pytest.param(answer(wrong_by=6), False, id="too far"),
        pytest.param(answer(nearest=1), False, id="another photo"),
        pytest.param(answer(mirrored=False), False, id="not mirrored"),
        pytest.param(answer()._replace(verdict=None), False, id="not recognised"),
    ],
)
def test_what_counts_as_right(given: demo.Answer, right: bool) -> None:
    assert given.right is right


def test_takeaway_follows_the_answers_whichever_way_they_fall() -> None:
    unknown = answer()._replace(verdict=None)
    answers = [answer(), answer(wrong_by=30), answer(nearest=1, wrong_by=-2), unknown]
    sentence = demo.takeaway([*answers, answer(mirrored=False, wrong_by=4)])
    assert sentence.startswith("4 of 5 copies are nearest to their own photo")
    assert "4 are laid onto it: mirrored or not is right for 3" in sentence
    assert "wrong by 3.0° in the median and 30.0° at worst." in sentence
    assert demo.takeaway([unknown]).endswith("; 0 are laid onto it.")


def test_demo_runs_whole_on_a_model_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From photos to table and picture; keypoints find the copies whatever the weights are."""
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
    assert "taken for copies: 0." in printed
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.int16)
    assert pixels.shape[0] > 1000
    assert pixels.std() > 20, "the picture is empty"
