"""The verb orient: a dry run by default, nothing turned that is not surely turned."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from clever_hub.cli import orient, pictures
from clever_hub.cli.app import app
from clever_hub.images.opening import load_image
from clever_hub.jobs.heads import Heads
from tests.hub.jobs.conftest import CALIBRATION, write_heads


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["orient", *map(str, arguments)])


@pytest.fixture
def headed(model_folder: Path) -> Path:
    return write_heads(model_folder, CALIBRATION)


@pytest.fixture
def folder(photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four JPEGs; the heads see how bright the left and the top are, which is their "up"."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for quarter, name in enumerate(photos):
        # Bright above, dark below: a photo by which the planted head knows up from down.
        image = Image.fromarray(
            np.linspace(255, 0, 64).astype(np.uint8)[:, None].repeat(64, axis=1)
        )
        image = image.convert("RGB").rotate(90 * quarter)
        image.save(folder / f"{quarter}-{name}.jpg")
    return folder


class Bright:
    """Stands in for the embedding: where the light is, as the head's answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, length: float = 1.0) -> None:
        self.length = length
        from clever_hub.backends.torch import CleverModel

        monkeypatch.setattr(CleverModel, "_embed_batch", self.embed)
        monkeypatch.setattr(Heads, "turns", self.turns)

    def embed(self, pixels: Any) -> Any:
        gray = pixels.mean(axis=1)
        half = gray.shape[1] // 2
        right = gray[:, :, half:].mean(axis=(1, 2)) - gray[:, :, :half].mean(axis=(1, 2))
        up = gray[:, :half].mean(axis=(1, 2)) - gray[:, half:].mean(axis=(1, 2))
        rows = np.zeros((len(pixels), 24), np.float32)
        rows[:, 19], rows[:, 20] = -right, up
        return rows

    def turns(self, equivariant: Any) -> Any:
        found = equivariant[:, :2]
        norm = np.linalg.norm(found, axis=1, keepdims=True)
        return (self.length * found / np.maximum(norm, 1e-9)).astype(np.float32)


def test_a_dry_run_names_what_lies_turned_and_changes_nothing(
    headed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    sheet, table = tmp_path / "sheet.png", tmp_path / "table.csv"
    result = call(folder, "-m", headed, "--sheet", sheet, "-o", table, "--upright", 0.25)
    assert result.exit_code == 0, result.output
    assert "3 of 4 photos are turned" in result.output
    assert "Nothing was changed" in result.output
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [int(row["quarter"]) for row in rows] == [0, 90, 180, 270]
    assert [row["turn"] for row in rows] == ["False", "True", "True", "True"]
    # On the sheet the photos are upright: bright above.
    with Image.open(sheet) as image:
        assert image.width > 480


def test_a_picture_says_what_it_leaves_out(
    headed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    titles = list[str]()
    page = pictures.page

    def record(title: str, *words: Any, **sizes: Any) -> Image.Image:
        titles.append(title)
        return page(title, *words, **sizes)

    monkeypatch.setattr(pictures, "page", record)
    for most, said in ((2, "2 of 3"), (3, "3")):
        monkeypatch.setattr(orient, "_SHEET", most)
        result = call(folder, "-m", headed, "--sheet", tmp_path / "s.png", "--upright", 0.25)
        assert f"{most} of 3 turned photos → " in result.output
        assert titles.pop() == f"{said} photos that would be turned"


def test_apply_turns_them_and_undo_takes_it_back(
    headed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    log = tmp_path / "log.jsonl"
    result = call(folder, "-m", headed, "--apply", "--log", log, "--upright", 0.25)
    assert result.exit_code == 0, result.output
    assert "3 of 3 photos turned by their tag" in result.output
    for path in folder.iterdir():
        gray = np.asarray(load_image(path).convert("L"), float)
        assert gray[:20].mean() > gray[-20:].mean() + 50, path
    assert "0 of 4 photos are turned" in call(folder, "-m", headed, "--upright", 0.25).output
    result = call("--undo", "--log", log)
    assert "3 of 3 photos are as they were before" in result.output
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_photos_are_counted_once_and_none_turned_is_a_failure(
    headed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    log = tmp_path / "log.jsonl"
    turn = (folder, "-m", headed, "--apply", "--log", log, "--upright", 0.25)
    for _ in range(2):
        call(*turn)
        result = call("--undo", "--log", log)
        assert "3 of 3 photos are as they were before" in result.output
    for path in folder.iterdir():
        path.chmod(0o444)
    result = call(*turn)
    assert result.exit_code == 1
    assert "0 of 3 photos turned by their tag\n" in result.output
    assert "no photo could be turned" in result.output


def test_what_is_not_sure_is_left_alone(
    headed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch, length=0.3)
    assert "0 of 4 photos are turned" in call(folder, "-m", headed).output
    options = ["--confidence", 0.4, "--upright", 0.25]
    assert "3 of 4 photos are turned" in call(folder, "-m", headed, *options).output


def test_unreadable_photos_are_named_and_left_out(
    headed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    (folder / "broken.jpg").write_bytes(b"no photo")
    for words, code in (((), 1), (("--on-error", "skip"), 0)):
        result = call(folder, "-m", headed, *words)
        assert result.exit_code == code
        assert "skipped" in result.output
        assert "broken.jpg" in result.output
        assert "of 4 photos" in result.output
        assert ("1 photo could not be read. Allow it: --on-error skip" in result.stderr) == code


def test_bad_input_is_refused(headed: Path, model_folder: Path, tmp_path: Path) -> None:
    assert "expected photos or folders" in call("-m", headed).output
    assert (
        "--sheet: expected a name with .png"
        in call(tmp_path, "-m", headed, "--sheet", "a.jpg").output
    )
    assert "--output: expected a name with .parquet" in call(tmp_path, "-o", "a.txt").output
    result = call("--undo", "--log", tmp_path / "gone.jsonl")
    assert result.exit_code == 1
    assert "expected a log of orient" in result.output
    write_heads(model_folder)  # without a calibration
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg")
    assert "not calibrated" in call(tmp_path / "a.jpg", "-m", model_folder).output


def test_only_what_can_be_turned_is_offered(
    headed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    result = call(folder, "-m", headed, "--confidence", 0.3)
    assert "To turn them by their tag: add --apply" in result.stderr
    turned = [path for path in sorted(folder.iterdir()) if not path.name.startswith("0")]
    Image.open(turned[0]).save(turned[0].with_suffix(".png"))
    turned[0].unlink()
    result = call(folder, "-m", headed, "--confidence", 0.3)
    assert "To turn 2 of them by their tag" in result.stderr
    result = call(turned[0].with_suffix(".png"), "-m", headed, "--confidence", 0.3)
    assert "--apply could turn none of them" in result.stderr


def test_no_photo_that_can_be_read_is_an_error(headed: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no photo")
    result = call(tmp_path / "bad.jpg", "-m", headed)
    assert result.exit_code == 1
    assert "none of the 1 photos could be read" in result.stderr


def test_a_folder_that_cannot_be_read_is_named_and_left_out(
    headed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bright(monkeypatch)
    (folder / "lost+found").mkdir()
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", locked)
        result = call(folder, "-m", headed)
        accepted = call(folder, "-m", headed, "--on-error", "skip")
    assert (result.exit_code, accepted.exit_code) == (1, 0)
    assert f"left out {folder / 'lost+found'}: Permission denied" in result.stderr
    assert "1 folder could not be read. Allow it: --on-error skip" in result.stderr
