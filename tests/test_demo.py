"""The demonstration says what its figures show, and turns photos without leaving traces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples import demo


def measured(*, turned: float, between: float) -> demo.Measured:
    """Figures where every turned copy, and every other photo, is equally similar."""
    photos, angles = len(demo.PHOTOS), len(demo.ANGLES)
    similarity = np.full((photos, angles), turned, dtype=np.float32)
    similarity[:, demo.ANGLES.index(0)] = 1
    others = np.full((photos, photos), between, dtype=np.float32)
    np.fill_diagonal(others, 1)
    return demo.Measured(similarity, others)


@pytest.mark.parametrize(
    ("invariant", "equivariant", "opening"),
    [
        pytest.param(
            (0.9, 0.5), (0.6, 0.5), "The equivariant part notices the turn more", id="falls-more"
        ),
        pytest.param((0.9, 0.5), (0.8, 0.0), "The equivariant part falls further, but", id="scale"),
        pytest.param(
            (0.8, 0.5), (0.9, 0.5), "The equivariant part notices the turn less", id="falls-less"
        ),
        pytest.param((0.9, 0.5), (0.9, 0.5), "Both parts", id="the-same"),
        pytest.param((0.9, 0.5), (0.89, 0.5), "Both parts", id="as-good-as-the-same"),
    ],
)
def test_takeaway_follows_the_figures_whichever_way_they_fall(
    invariant: tuple[float, float], equivariant: tuple[float, float], opening: str
) -> None:
    sentence = demo.takeaway(
        measured(turned=invariant[0], between=invariant[1]),
        measured(turned=equivariant[0], between=equivariant[1]),
    )
    assert sentence.startswith(opening)
    assert f"{invariant[0]:.2f}" in sentence
    assert f"{equivariant[0]:.2f}" in sentence


def test_measure_gives_cosines_whatever_the_length_of_the_vectors() -> None:
    random = np.random.default_rng(0)
    shape = (len(demo.PHOTOS), len(demo.ANGLES), 7)
    vectors = random.normal(size=shape).astype(np.float32)
    lengths = random.uniform(0.1, 10, size=(*shape[:2], 1)).astype(np.float32)
    plain, scaled = demo.measure(vectors), demo.measure(vectors * lengths)
    np.testing.assert_allclose(plain.turned, scaled.turned, atol=1e-6)
    np.testing.assert_allclose(plain.between, scaled.between, atol=1e-6)
    np.testing.assert_allclose(plain.turned[:, demo.ANGLES.index(0)], 1, atol=1e-6)


def test_disc_hides_where_the_corners_went(photos: dict[str, Path]) -> None:
    """Outside the disc all copies are the same grey; inside, 90 degrees is an exact turn."""
    from PIL import Image

    photo = demo.square(np.asarray(Image.open(photos["chelsea"]).convert("RGB")))
    copies = [np.asarray(demo.turn(photo, angle)) for angle in (0, 37, 90)]
    corner = demo.SIDE // 8
    for copy in copies:
        assert (copy[:corner, :corner] == demo.GREY).all()
    upright, tilted, quarter = (copy.astype(np.float32) for copy in copies)
    assert np.abs(np.rot90(upright) - quarter).mean() < 1
    assert np.abs(upright - tilted).mean() > 10


def test_demo_runs_whole_on_a_model_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From photos to tables and a picture, with random weights: shapes and file are real."""
    from PIL import Image

    from clever_hub import ModelConfig, PreprocessingConfig
    from clever_hub.backends.torch import CleverModel

    config = ModelConfig(
        name="clever-resnet10t",
        architecture="resnet10t",
        num_features=512,
        invariant_dim=409,
        preprocessing=PreprocessingConfig(32, 32),
    )
    CleverModel(config).save_pretrained(tmp_path / "model")
    out = tmp_path / "demo.png"
    arguments = ["demo.py", "--model", str(tmp_path / "model"), "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    demo.main()

    printed = capsys.readouterr().out
    rows = len(demo.PHOTOS) * len(demo.ANGLES)
    assert f"({rows}, 409)" in printed
    assert f"({rows}, 103)" in printed
    assert all(name in printed for name in demo.PHOTOS.values())
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[0] > 1000
    assert pixels.std() > 20, "the picture is empty"
