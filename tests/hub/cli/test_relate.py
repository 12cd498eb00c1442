"""The verb relate: two files, whole tables of pairs, and the picture."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import clever_hub
from clever_hub.cli.app import app
from clever_hub.cli.relate import rows_of
from clever_hub.cli.relate_picture import brought_back
from clever_hub.images.opening import load_image
from clever_hub.jobs.relation import Colors, Relation
from tests.hub.jobs.conftest import CALIBRATION, write_heads

UNKNOWN = Colors(None, None, None, None)
RELATION = Relation(
    *(0.9, 90.0, 5.0, False, 0.01, 2.0, 0.1, (0.25, 0.0), 0.05),
    Colors(1.5, None, 1.0, -20.0),
    Colors(0.1, None, 0.1, 5.0),
)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["relate", *map(str, arguments)])


@pytest.fixture
def headed(model_folder: Path) -> Path:
    return write_heads(model_folder, CALIBRATION)


def test_two_files(headed: Path, photos: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "relation.png"
    result = call(photos["coffee"], photos["coffee"], "-m", headed, "--picture", picture)
    assert result.exit_code == 0, result.output
    assert "the same photo" in result.output
    assert "brightness" in result.output
    assert "measured on the pixels" in result.output
    with Image.open(picture) as image:
        assert image.width > 3 * 288


def test_a_table_that_cannot_be_read_is_refused_before_the_work(tmp_path: Path) -> None:
    latin, broken = tmp_path / "latin.csv", tmp_path / "broken.parquet"
    latin.write_bytes("a,b\nCafé.jpg,b.jpg\n".encode("latin-1"))
    broken.write_bytes(b"PAR1 no table")
    for source, message in ((latin, "expected text in UTF-8"), (broken, "cannot be read as a tab")):
        result = call("--pairs", source, "-o", tmp_path / "out.csv", "-m", "none-such")
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())


def test_a_table_of_pairs(headed: Path, photos: dict[str, Path], tmp_path: Path) -> None:
    a, b, gone = str(photos["coffee"]), str(photos["chelsea"]), str(tmp_path / "gone.jpg")
    pairs = [(a, b), (a, gone), (b, a), (a, b)]
    source, target = tmp_path / "pairs.csv", tmp_path / "out.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *pairs])
    options = ("--pairs", source, "-o", target, "-m", headed, "--given-same", "--no-pixels")
    result = call(*options)
    assert result.exit_code == 1, "as embed does"
    assert "1 of 4 pairs have an image that could not be read" in result.output
    assert "3 of 4 pairs related" in result.output
    assert call(*options, "--on-error", "skip").exit_code == 0
    assert "gone.jpg" in result.output
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert [(row["a"], row["b"]) for row in rows] == pairs
    assert rows[1]["zoom"] == rows[1]["words"] == ""
    assert rows[0]["words"].startswith("the same photo (")
    assert rows[0] == rows[3]
    model = clever_hub.from_pretrained(headed)
    e = model.encode([a, b])
    expected = clever_hub.relate(e[:1], e[1:], model.heads, given_same=True)[0]
    assert float(rows[0]["zoom"]) == pytest.approx(expected.zoom, rel=1e-4)
    back = float(rows[2]["zoom"])
    assert back == pytest.approx(1 / float(rows[0]["zoom"]), rel=1e-3)


def test_parquet_in_and_out(headed: Path, photos: dict[str, Path], tmp_path: Path) -> None:
    source, target = tmp_path / "pairs.parquet", tmp_path / "out.parquet"
    turned = tmp_path / "turned.png"
    load_image(photos["coffee"]).rotate(90, expand=True).save(turned)
    seconds = [str(turned), str(photos["rocket"])]
    pq.write_table(pa.table({"a": 2 * [str(photos["coffee"])], "b": seconds, "n": [1, 2]}), source)
    result = call("--pairs", source, "-o", target, "-m", headed)
    assert result.exit_code == 0, result.output
    assert "2 of 2 pairs related, 1 of them measured on the pixels" in result.output
    found = pq.read_table(target)
    assert found.column_names[:3] == ["a", "b", "same"]
    first, second = found.to_pylist()
    assert first["by"] == "pixels"
    assert "turned by 90° counter-clockwise" in first["words"]
    assert first["angle"] == pytest.approx(90, abs=0.5)
    assert second["by"] == "model"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1,2\n", "expected the columns a and b, a and b missing; got x, y"),
        ("a,b\n", "expected pairs of images, got no rows"),
        ("a,b\nx.jpg,y.jpg\n\nphoto.jpg,\n", "line 4: expected two paths"),
        ('a,b\n"x\ny.jpg",y.jpg\nphoto.jpg\n', "line 4: expected two paths"),
        ("a,b\ngone.jpg,lost.jpg\n", "no pair has two images that can be read"),
    ],
)
def test_a_table_that_is_none_is_refused(
    content: str, message: str, headed: Path, tmp_path: Path
) -> None:
    source = tmp_path / "pairs.csv"
    source.write_text(content)
    result = call("--pairs", source, "-o", tmp_path / "out.csv", "-m", headed)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert not (tmp_path / "out.csv").exists()


def test_a_row_of_a_parquet_table_is_counted_from_one(headed: Path, tmp_path: Path) -> None:
    source = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"a": ["x.jpg", "y.jpg"], "b": ["y.jpg", None]}), source)
    result = call("--pairs", source, "-o", tmp_path / "out.csv", "-m", headed)
    assert "row 2: expected two paths, got ('y.jpg', None)" in " ".join(result.output.split())


def test_bad_input_is_refused(headed: Path, model_folder: Path, photos: dict[str, Path]) -> None:
    assert "expected two image files" in call(photos["coffee"], "-m", headed).output
    assert "go together" in call("--pairs", "a.csv", "-m", headed).output
    both = (photos["coffee"], photos["rocket"])
    assert "name with .png" in call(*both, "-m", headed, "--picture", "a.gif").output
    assert call(*both, "-m", "nowhere").exit_code == 1


def test_rows_say_what_is_unknown() -> None:
    rows = {name: (value, error) for name, value, error in rows_of(RELATION)}
    assert rows["angle"] == ("+90°", "5°")
    assert rows["mirrored"] == ("no", "probability 1%")
    assert rows["contrast"] == ("unknown", "")
    assert rows["hue"] == ("-20°", "5°")
    nothing = Relation(*9 * (None,), colors=UNKNOWN, colors_error=UNKNOWN)
    assert {value for _, value, _ in rows_of(nothing)} == {"unknown"}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0.0, 90.0, -37.0, 180.0])
def test_b_is_brought_back_onto_a(angle: float, mirrored: bool, photos: dict[str, Path]) -> None:
    """Make b of a as a relation says, and undo it: the photo is a again where b shows it."""
    a = load_image(photos["coffee"]).resize((240, 240))
    b = a.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else a
    b = b.rotate(angle, Image.Resampling.BICUBIC)
    relation = replace(RELATION, angle=angle, mirrored=mirrored, zoom=1.0, shift=(0.0, 0.0))
    back = brought_back(relation, a, b)
    middle = np.s_[60:180, 60:180]
    one, other = (np.asarray(image, float)[middle] for image in (a, back))
    assert np.abs(one - other).mean() < 6
    wrong = brought_back(replace(relation, angle=angle + 40), a, b)
    assert np.abs(one - np.asarray(wrong, float)[middle]).mean() > 15


def test_a_crop_is_brought_back_to_its_place(photos: dict[str, Path]) -> None:
    a = load_image(photos["coffee"]).resize((240, 240))
    b = a.crop((120, 60, 240, 180)).resize((240, 240), Image.Resampling.BICUBIC)
    relation = replace(RELATION, angle=0.0, mirrored=False, zoom=2.0, shift=(0.25, 0.0))
    back = np.asarray(brought_back(relation, a, b), float)
    inside = np.s_[64:176, 124:236]
    assert np.abs(back[inside] - np.asarray(a, float)[inside]).mean() < 5
    assert (back[:50] == 235).all()  # where b does not reach


def test_what_a_table_of_pairs_has_no_use_for(headed: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("a,b\na.jpg,b.jpg\n")
    many = ("--model", headed, "--pairs", pairs, "-o", tmp_path / "o.csv")
    for more, reason in ((["x.jpg"], "two image files, or"), (["--picture", "x.png"], "no use")):
        result = call(*many, *more)
        assert result.exit_code == 1
        assert reason in result.stderr
