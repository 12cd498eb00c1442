"""The contact sheet shows each view where it belongs; the verb draws the run's own views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_training.views.contact_sheet import SheetRow, caption, contact_sheet
from clever_training.views.parameters import UNKNOWN, ViewParameters

SHIPPED = "clever-resnet18-tiny"


def test_every_view_and_the_frame_of_its_crop_are_on_the_sheet() -> None:
    photo = np.full((60, 80, 3), 200, dtype=np.uint8)
    sizes = (224, 224, 96)
    shades = [np.full((size, size, 3), 40 * i, np.uint8) for i, size in enumerate(sizes, 1)]
    boxes = [(0.0, 0.0, 1.0, 1.0), (0.1, 0.1, 0.5, 0.5), (0.5, 0.5, 0.25, 0.25)]
    drawn = [ViewParameters(box=box) for box in boxes]
    sheet = contact_sheet([SheetRow("a", photo, shades, drawn)] * 2, "title", 2)
    colors, numbers = np.unique(np.asarray(sheet).reshape(-1, 3), axis=0, return_counts=True)
    counts = {tuple(color): n for color, n in zip(colors.tolist(), numbers.tolist(), strict=True)}
    # At 168 pixels for a global view; photos keep their form.
    assert counts[40, 40, 40] >= 2 * 168 * 168
    assert counts[80, 80, 80] >= 2 * 168 * 168
    assert counts[120, 120, 120] >= 2 * 72 * 72
    assert 2 * 168 * 126 * 0.8 < counts[200, 200, 200] < 2 * 168 * 126
    # One strong colour for each view's frame and heading.
    strong = [c for c, n in counts.items() if n > 100 and max(c) - min(c) > 120]
    assert len(strong) == 3


def test_the_small_print_is_explained_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sheet travels without its help: letters are spelled out on it, nothing runs over."""
    printed: list[tuple[float, str]] = []
    monkeypatch.setattr(
        "PIL.ImageDraw.ImageDraw.text",
        lambda _, place, text, __, font, **___: printed.append(
            (place[0] + font.getlength(text), text)
        ),
    )
    photo = np.zeros((60, 80, 3), dtype=np.uint8)
    longest = ViewParameters(angle=-88.0, elastic_alpha=100.0, elastic_sigma=5.0, hue=-0.05)
    sheet = contact_sheet([SheetRow("a", photo, [photo[:32, :32]], [longest])], "title", 1)
    text = " ".join(line for _, line in printed)
    for word in ("brightness", "contrast", "saturation", "hue", "displacement", "Frames"):
        assert word in text
    assert max(end for end, _ in printed) < sheet.width


def test_captions_say_what_was_done() -> None:
    everything = ViewParameters(
        box=(0.0, 0.0, 0.5, 0.5),
        flip=True,
        angle=45.2,
        brightness=1.2,
        hue=0.05,
        grayscale=True,
        blur=1.5,
        solarize=True,
        elastic_alpha=100.0,
        elastic_sigma=5.0,
    )
    assert caption(everything) == [
        "crop 25 %, flipped",
        "turned +45°, elastic 1.6 px",
        "b1.2 c1.0 s1.0 h+0.05",
        "grey, blur 1.5 px, solarised",
    ]
    assert "not say" in caption(UNKNOWN)[1]


def test_the_verb_writes_a_sheet(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    words = ["views", SHIPPED, "--data", str(photo_folder), "-o", str(out), "--photos", "3"]
    result = CliRunner().invoke(app, [*words, "--set", "views.strategy=caug+"])
    assert result.exit_code == 0, result.output
    assert "3 photos, 2 views each" in result.stdout
    with Image.open(out) as sheet:
        first = np.asarray(sheet)
    assert first.shape[0] > 3 * 168
    CliRunner().invoke(app, [*words, "--epoch", "1"])
    with Image.open(out) as sheet:
        assert not np.array_equal(np.asarray(sheet), first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "sheet.txt"], "expected a name that ends in .png"),
        (["--set", "views.strategy=daug"], "views.strategy"),
    ],
)
def test_mistakes_are_one_clean_message(
    words: list[str], message: str, photo_folder: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["views", SHIPPED, "--data", str(photo_folder), *words])
    assert result.exit_code == 1
    assert message in result.stderr
