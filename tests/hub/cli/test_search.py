"""``clever-hub index`` and ``clever-hub search``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from clever_hub.cli import jobs, search
from clever_hub.cli.app import app

pytest.importorskip("lancedb", reason="needs the extra search")
runner = CliRunner()


def run(*words: object) -> Any:
    return runner.invoke(app, [str(word) for word in words])


def test_index_then_search(model_folder: Path, photos: dict[str, Path], tmp_path: Path) -> None:
    folder, index = photos["coffee"].parent, tmp_path / "photos.lance"
    result = run("index", folder, "-o", index, "--model", model_folder)
    assert result.exit_code == 0, result.stderr
    assert "4 added, 0 changed, 0 dropped, 0 as they were: 4 photos in" in result.stderr
    result = run("index", folder, "-o", index)
    assert "0 added, 0 changed, 0 dropped, 4 as they were" in result.stderr, "it knows its model"
    query, out = tmp_path / "query.jpg", tmp_path / "hits.json"
    Image.open(photos["coffee"]).resize((300, 200)).save(query)
    for options in ((), ("--part", "equivariant"), ("--part", "full"), ("--weights", 0.7, 0.3)):
        result = run("search", index, query, "-k", 2, "-o", out, *options)
        assert result.exit_code == 0, result.stderr
        hits = json.loads(out.read_text())
        assert len(hits) == 2
        assert hits[0]["path"] == str(photos["coffee"])
        assert "coffee.png" in result.stdout
    sheet, page = tmp_path / "s.png", tmp_path / "p.html"
    assert run("search", index, query, "--sheet", sheet, "-o", page).exit_code == 0
    with Image.open(sheet) as drawn:
        assert drawn.width > 1000
    assert page.read_text().count("data:image/jpeg") == 5


def test_a_picture_says_what_it_leaves_out(
    model_folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, page = tmp_path / "photos.lance", tmp_path / "p.html"
    run("index", photos["coffee"].parent, "-o", index, "--model", model_folder)
    monkeypatch.setattr(search, "_DRAWN", 2)
    result = run("search", index, photos["coffee"], "--sheet", tmp_path / "s.png", "-o", page)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("2 of 4 photos → ") == 2
    assert page.read_text().count("data:image/jpeg") == 3
    assert "(2 of 4 photos are shown, the nearest)" in page.read_text()


def test_what_is_refused(model_folder: Path, photos: dict[str, Path], tmp_path: Path) -> None:
    result = run("search", tmp_path / "none", photos["coffee"])
    assert result.exit_code == 1
    assert "no index of photos" in result.stderr
    index = tmp_path / "i.lance"
    run("index", photos["coffee"], "-o", index, "--model", model_folder)
    result = run("search", index, photos["coffee"], "--sheet", tmp_path / "s.gif")
    assert "--sheet: expected a name with .png, .jpg" in result.stderr
    assert "gone.jpg: no such file" in run("search", index, tmp_path / "gone.jpg").stderr
    assert run("index", photos["coffee"], "-o", index, "--model", "clever-resnet18").exit_code == 1


def test_an_index_says_what_does_not_go_with_it_before_a_model_is_loaded(
    model_folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, photo = tmp_path / "i.lance", photos["coffee"]
    assert run("index", photo, "-o", index, "--model", model_folder).exit_code == 0
    monkeypatch.delattr(jobs, "load_model")
    for options, said in (
        (("--part", "full", "--weights", 1, 2), "--part and --weights: expected one of them"),
        (("--part", "full", "--weights", 1, 2), "--part full is the same as --weights 0.5 0.5"),
        (("--weights", 0, 0), "not both 0; got (0.0, 0.0)"),
        (("--weights", -1, 1), "weights: expected two of at least 0"),
        (("--weights", "nan", 1), "weights: expected two of at least 0"),
        (("--sheet", photo / "s.png"), "--sheet: "),
        (("-o", photo / "s.csv"), "--output: "),
    ):
        result = run("search", index, photo, *options)
        assert result.exit_code == 1
        assert said in result.stderr
    result = run("index", photo, "-o", index, "--decode", "exact")
    assert "were decoded as by reduced" in result.stderr, "the option was passed over"


def test_a_photo_is_in_the_index_once_however_its_folder_is_spelt(
    model_folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, index = photos["coffee"].parent, tmp_path / "photos.lance"
    monkeypatch.chdir(folder)
    (tmp_path / "link").symlink_to(folder)
    run("index", ".", "-o", index, "--model", model_folder)
    for spelt in (f"../{folder.name}", folder / ".." / folder.name, tmp_path / "link"):
        result = run("index", spelt, "-o", index)
        assert "0 added, 0 changed, 0 dropped, 4 as they were: 4 photos" in result.stderr, spelt
    other = tmp_path / "other.lance"
    run("index", folder / ".." / folder.name, "-o", other, "--model", model_folder)
    assert (
        str(folder.resolve() / "coffee.png")
        in run("search", other, "coffee.png", "-o", tmp_path / "hits.csv").stdout.replace("\n", "")
        + (tmp_path / "hits.csv").read_text()
    )
    assert ".." not in (tmp_path / "hits.csv").read_text()


def test_an_index_of_no_photo_is_not_left_behind(model_folder: Path, tmp_path: Path) -> None:
    bad, index = tmp_path / "bad", tmp_path / "photos.lance"
    bad.mkdir()
    (bad / "a.jpg").write_bytes(b"no image")
    result = run("index", bad, "-o", index, "--model", model_folder)
    assert result.exit_code == 1
    assert "none of the 1 photos could be read" in result.stderr
    assert not index.exists()


def test_photos_that_cannot_be_read_are_named_and_the_exit_code_says_so(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    broken, index = tmp_path / "broken.jpg", tmp_path / "photos.lance"
    broken.write_bytes(b"no photo")
    words = ("index", broken, photos["coffee"], "-o", index, "--model", model_folder)
    result = run(*words)
    assert result.exit_code == 1
    assert "skipped" in result.stderr
    assert "1 photo could not be read. Allow it: --on-error skip" in result.stderr
    assert run("search", index, photos["coffee"]).exit_code == 0
    assert run(*words, "--on-error", "skip").exit_code == 0


def test_a_photo_is_as_like_itself_as_can_be(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    """The query is decoded as the index was: large JPEGs are shrunk by their decoder."""
    folder, out = tmp_path / "large", tmp_path / "hits.json"
    folder.mkdir()
    Image.open(photos["coffee"]).convert("RGB").resize((1600, 1200)).save(folder / "a.jpg")
    Image.open(photos["chelsea"]).convert("RGB").resize((1600, 1200)).save(folder / "b.jpg")
    run("index", folder, "-o", tmp_path / "i.lance", "--model", model_folder)
    run("search", tmp_path / "i.lance", folder / "a.jpg", "-o", out)
    assert json.loads(out.read_text())[0]["score"] == pytest.approx(1, abs=1e-6)


def test_an_index_whose_model_was_moved(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    index, moved = tmp_path / "i.lance", tmp_path / "moved"
    run("index", photos["coffee"], "-o", index, "--model", model_folder)
    model_folder.rename(moved)
    assert run("search", index, photos["coffee"]).exit_code == 1
    assert run("search", index, photos["coffee"], "--model", moved).exit_code == 0
    assert run("index", photos["coffee"], "-o", index, "--model", moved).exit_code == 0
    assert run("search", index, photos["coffee"]).exit_code == 0, "where it is now was noted"


def test_neither_the_index_nor_its_photos_are_written_over(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    index, query = tmp_path / "i.lance", tmp_path / "query.png"
    shutil.copy(photos["coffee"], query)
    run("index", photos["coffee"].parent, "-o", index, "--model", model_folder)
    before = photos["chelsea"].read_bytes()
    result = run("search", index, query, "--sheet", photos["chelsea"])
    assert "is a photo of the index, and would be lost" in result.stderr
    assert photos["chelsea"].read_bytes() == before
    result = run("search", index, query, "-o", index / "clever_hub.json")
    assert "lies in the index" in result.stderr
    assert run("search", index, query).exit_code == 0


def test_the_query_alone_is_marked(
    model_folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(search, "write_sheet", lambda *words: drawn.extend(words[-1]))
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (40, 40), (30 * number, 90, 200)).save(folder / f"{number}.png")
    run("index", folder, "-o", tmp_path / "i.lance", "--model", model_folder)
    run("search", tmp_path / "i.lance", photos["coffee"], "--sheet", tmp_path / "s.png")
    assert [(len(row.photos), row.mark) for row in drawn] == [(6, True), (2, False)]


def test_photos_that_have_gone_are_told_of(
    model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    index, folder = tmp_path / "i.lance", tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee", "chelsea"):
        shutil.copy(photos[name], folder / f"{name}.png")
    run("index", folder, "-o", index, "--model", model_folder)
    assert "any more" not in run("search", index, photos["coffee"]).stderr
    (folder / "chelsea.png").unlink()
    said = run("search", index, photos["coffee"]).stderr
    assert "1 of these photos are not there any more" in said
