"""``clever-hub duplicates``: what it prints, writes, moves and refuses."""

from __future__ import annotations

import html
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from typer.testing import CliRunner

import clever_hub
from clever_hub.cli import jobs
from clever_hub.cli.app import app
from tests.hub.jobs.conftest import CALIBRATION, write_heads

runner = CliRunner()


def run(*words: object) -> Any:
    return runner.invoke(app, [str(word) for word in words])


def fails(*words: object) -> str:
    result = run(*words)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    return str(result.stderr)


@pytest.fixture
def folder(photos: dict[str, Path], tmp_path: Path) -> Path:
    """Four photos; two of them also mirrored, turned or smaller."""
    root = tmp_path / "photos"
    (root / "copies").mkdir(parents=True)
    opened = {name: Image.open(path).convert("RGB") for name, path in photos.items()}
    for name, photo in opened.items():
        photo.save(root / f"{name}.png")
    ImageOps.mirror(opened["chelsea"]).resize((225, 150)).save(root / "copies" / "cat.png")
    small = opened["coffee"].resize((300, 200))
    small.rotate(90, expand=True).save(root / "copies" / "cup.png")
    small.save(root / "copies" / "cup.jpg")
    return root


@pytest.fixture
def verb(model_folder: Path, tmp_path: Path) -> tuple[object, ...]:
    return ("duplicates", "--model", model_folder, "--cache", tmp_path / "cache")


def test_groups_with_what_was_done(verb: tuple[object, ...], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "groups.json"
    result = run(*verb, folder, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "2 groups; 3 photos beside the best of each" in result.stdout
    assert "4 pairs of copies (by pixels)" in result.stdout
    rows = json.loads(out.read_text())
    told = {Path(row["path"]).name: (row["group"], row["words"], row["best"]) for row in rows}
    assert told == {
        "coffee.png": (1, None, True),
        "cup.jpg": (1, "the same picture", False),
        "cup.png": (1, "turned by 90° counter-clockwise", False),
        "chelsea.png": (2, None, True),
        "cat.png": (2, "mirrored", False),
    }
    (cat,) = (row for row in rows if row["path"].endswith("cat.png"))
    assert cat["of"].endswith("chelsea.png")
    assert (cat["width"], cat["height"], cat["mirrored"]) == (225, 150, True)
    assert abs(cat["angle"]) < 1


def test_an_index_says_what_it_found(
    verb: tuple[object, ...], folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lancedb", reason="needs the extra search")
    out = tmp_path / "groups.html"
    result = run(*verb, folder, "--approximate", "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "2 groups; 3 photos" in result.stdout
    assert "An index found 100.0% of the candidates" in " ".join(result.stdout.split())
    assert "An index found 100.0%" in out.read_text()
    assert "An index" not in run(*verb, folder, "--exact").stdout


@pytest.mark.parametrize("name", ["g.csv", "g.parquet", "g.html", "g.png"])
def test_every_kind_of_output(
    verb: tuple[object, ...], folder: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    assert run(*verb, folder, "-o", out).exit_code == 0
    if name == "g.parquet":
        assert len(pq.read_table(out)) == 5
    elif name == "g.png":
        with Image.open(out) as sheet:
            assert sheet.width > 1000
    else:
        text = out.read_text()
        assert "turned by 90° counter-clockwise" in text
        assert "cup.png" in text


def test_copies_of_one_size_go_and_the_original_stays_with_the_true_reason(
    verb: tuple[object, ...], photos: dict[str, Path], tmp_path: Path
) -> None:
    root, away = tmp_path / "photos", tmp_path / "away"
    root.mkdir()
    opened = {name: Image.open(path).convert("RGB") for name, path in photos.items()}
    small = {name: photo.resize((300, 200)) for name, photo in opened.items()}
    small["astronaut"].save(root / "IMG_1.jpg")
    shutil.copy2(root / "IMG_1.jpg", root / "IMG_1 (1).jpg")
    small["chelsea"].save(root / "z.jpg", quality=95)
    small["chelsea"].save(root / "forwarded.jpg", quality=10)
    small["coffee"].save(root / "color.jpg")
    small["coffee"].convert("L").save(root / "bw.png")
    small["rocket"].save(root / "y.png")
    small["rocket"].rotate(20, expand=True).save(root / "x.png")
    result = run(*verb, root, "-o", tmp_path / "g.html", "--move-to", away)
    assert result.exit_code == 0, result.stderr
    kept = {"IMG_1.jpg", "z.jpg", "color.jpg", "y.png"}
    assert {path.name for path in root.iterdir()} == kept
    page = (tmp_path / "g.html").read_text()
    for why in ("its name is no copy's", "the largest file", "in colour", "not turned into empty"):
        assert why in result.stdout
        assert html.escape(why) in page
    assert "the most pixels" not in result.stdout


def test_the_terminal_says_what_a_picture_leaves_out(
    verb: tuple[object, ...], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_ON_SHEET", 1)
    assert "1 of 2 groups → " in run(*verb, folder, "-o", tmp_path / "g.png").stderr
    assert "\n2 groups → " in "\n" + run(*verb, folder, "-o", tmp_path / "g.csv").stderr


def test_moving_and_back(verb: tuple[object, ...], folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    away = tmp_path / "away"
    result = run(*verb, folder, "--move-to", away)
    assert "3 photos moved. Bring them back: clever-hub duplicates --undo" in result.stderr
    assert len(list(folder.rglob("*.*"))) == len(before) - 3
    assert len(list(away.rglob("c*.*"))) == 3
    result = run("duplicates", "--undo", away)
    assert result.exit_code == 0
    assert "3 photos brought back" in result.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert not list(away.iterdir()), "no empty folders stay"


def test_from_a_file_of_embeddings(
    verb: tuple[object, ...], model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.parquet"
    run("embed", model_folder, folder, "-o", file)
    assert "2 groups" in run(*verb, file).stdout
    (folder / "coffee.png").unlink()
    result = run(*verb, file)
    assert f"left out {folder / 'coffee.png'}: no such file" in result.stderr
    assert f"1 of 7 photos are not where {file} says, and are left out" in result.stderr
    assert "2 groups" in result.stdout
    assert "(by pixels)" in result.stdout
    assert "no heads" in fails(*verb, file, "--verify", "heads")
    assert "expected one file of embeddings" in fails(*verb, file, folder)


def test_photos_that_were_moved_away_are_left_out_the_next_time(
    verb: tuple[object, ...], model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    file, away = tmp_path / "e.parquet", tmp_path / "away"
    run("embed", model_folder, folder, "-o", file)
    assert "3 photos moved" in run(*verb, file, "--move-to", away).stderr
    result = run(*verb, file, "--move-to", away)
    assert result.exit_code == 0, result.stderr
    assert "3 of 7 photos are not where" in result.stderr
    assert "0 photos moved\n" in result.stderr, "there is nothing to bring back"
    assert "0 groups" in result.stdout
    # By the cosine alone those that have gone are compared, too; who is there is not moved away.
    left = sorted(folder.rglob("*.*"))
    options = ("--verify", "none", "--threshold", 0.9, "--move-to", away)
    result = run(*verb, file, *options)
    assert result.exit_code == 0, result.stderr
    assert "photos are not where they were, and cannot be moved" in result.stderr
    assert sorted(folder.rglob("*.*")) == left


def test_photos_that_were_not_embedded_count_also_when_others_have_gone(
    verb: tuple[object, ...], model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "broken.jpg").write_bytes(b"no photo")
    run("embed", model_folder, folder, "-o", tmp_path / "v", "--on-error", "skip")
    (folder / "coffee.png").unlink()
    result = run(*verb, tmp_path / "v")
    assert result.exit_code == 1
    assert "left out" in result.stderr
    assert "1 photo could not be read. Allow it: --on-error skip" in result.stderr
    assert run(*verb, tmp_path / "v", "--on-error", "skip").exit_code == 0


def test_without_any_photo_the_answer_says_loudly_that_it_is_not_verified(
    verb: tuple[object, ...], model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.parquet"
    run("embed", model_folder, folder, "-o", file)
    folder.rename(tmp_path / "renamed")
    result = run(*verb, file, "--threshold", 0.99)
    assert result.exit_code == 0
    assert "NOT VERIFIED: none of the 7 photos is where" in result.stderr
    assert "(not verified)" in result.stdout
    assert "the rate of false pairs is unknown" in result.stdout
    assert "no pixels can be compared" in fails(*verb, file, "--verify", "pixels")


def test_heads_of_another_model_are_refused(
    model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    file, headed = tmp_path / "e.parquet", tmp_path / "headed"
    run("embed", model_folder, folder, "-o", file)
    model = clever_hub.from_pretrained(model_folder, backend="torch")
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.01)
    write_heads(model.save_pretrained(headed), CALIBRATION)
    said = fails("duplicates", file, "--verify", "heads", "--model", headed)
    assert "its embeddings are of another model" in said
    write_heads(model_folder, CALIBRATION)
    told = run("duplicates", file, "--verify", "heads", "--model", model_folder)
    assert told.exit_code == 0, told.stderr


def test_unreadable_photos_are_named(verb: tuple[object, ...], folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for words, code in (((), 1), (("--on-error", "skip"), 0)):
        result = run(*verb, folder, *words)
        assert result.exit_code == code
        assert "broken.jpg" in result.stderr
        assert "2 groups" in result.stdout
        assert ("1 photo could not be read. Allow it: --on-error skip" in result.stderr) == code


def test_without_copies_there_are_no_groups(
    verb: tuple[object, ...], photos: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "g.html"
    result = run(*verb, *photos.values(), "-o", out)
    assert result.exit_code == 0
    assert "0 groups" in result.stdout
    assert "0 groups of copies among 4 photos" in out.read_text()


def test_what_is_refused_before_any_work(
    verb: tuple[object, ...], folder: Path, tmp_path: Path
) -> None:
    assert "expected image files, folders" in fails(*verb)
    assert "expected a name with .parquet" in fails(*verb, folder, "-o", tmp_path / "g.xlsx")
    assert "500 are needed" in fails(*verb, folder, "--verify", "none")
    assert "no such file or folder" in fails(*verb, tmp_path / "nowhere")
    assert "no such log" in fails("duplicates", "--undo", tmp_path)


def test_an_empty_shard_is_no_other_model(
    verb: tuple[object, ...], model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    photos, out = sorted(folder.rglob("*.png")), tmp_path / "v"
    run("embed", model_folder, folder, "-o", out, "--shard-size", 2)
    for photo in photos[:2]:
        photo.unlink()
    assert run("embed", model_folder, folder, "-o", out, "--update").exit_code == 0
    told = run(*verb, out)
    assert told.exit_code == 0, told.stderr


@pytest.mark.parametrize("name", ["groups.html", "groups.png"])
def test_names_that_are_no_text_are_shown(
    verb: tuple[object, ...], folder: Path, tmp_path: Path, name: str
) -> None:
    for photo in [*folder.rglob("*.png"), *folder.rglob("*.jpg")]:
        photo.rename(photo.with_name(os.fsdecode(b"caf\xe9" + photo.name.encode())))
    told = run(*verb, folder, "-o", tmp_path / name)
    assert told.exit_code == 0, told.stderr
    assert (tmp_path / name).stat().st_size > 1000


def test_of_a_photo_and_a_link_to_it_the_photo_stays(
    verb: tuple[object, ...], photos: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    shutil.copy(photos["coffee"], root / "z.png")
    (root / "a.png").symlink_to("z.png")
    assert run(*verb, root, "--move-to", tmp_path / "copies").exit_code == 0
    assert [file.name for file in root.iterdir()] == ["z.png"]
    assert run("duplicates", "--undo", tmp_path / "copies").exit_code == 0
    assert sorted(file.name for file in root.iterdir()) == ["a.png", "z.png"]


def test_a_table_among_photos_leaves_them_photos(
    verb: tuple[object, ...], folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    assert (
        run("embed", model_folder, folder / "chelsea.png", "-o", folder / "v.parquet").exit_code
        == 0
    )
    assert "2 groups; 3 photos" in run(*verb, folder).stdout
    made, out = tmp_path / "made", tmp_path / "groups.csv"
    assert run("embed", model_folder, folder, "-o", made).exit_code == 0
    shutil.copy(folder / "chelsea.png", made)  # a picture beside what embed made
    assert run(*verb, made, "--threshold", "0.9", "-o", out).exit_code == 0
    assert str(folder) in out.read_text()
    upper = folder / "v.parquet"
    upper.rename(tmp_path / "v.PARQUET")
    assert "0 groups" in run(*verb, tmp_path / "v.PARQUET", "--threshold", "0.9").stdout


def test_a_name_that_is_no_text_is_found_from_a_table(
    verb: tuple[object, ...], photos: dict[str, Path], model_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    shutil.copy(photos["coffee"], root / "a.png")
    shutil.copy(photos["coffee"], os.fsdecode(os.fsencode(root) + b"/caf\xe9.png"))
    table = tmp_path / "v.parquet"
    assert run("embed", model_folder, root, "-o", table).exit_code == 0
    result = run(*verb, table, "--threshold", "0.9")
    assert "1 pairs of copies (by pixels)" in result.stdout, result.output


def test_long_names_are_whole_and_lines_of_a_name_are_one(
    verb: tuple[object, ...], photos: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / ("long" * 30)
    root.mkdir()
    names = ["first.png", "second\nline.png"]
    for name in names:
        shutil.copy(photos["coffee"], root / name)
    result = run(*verb, root, "-o", tmp_path / "groups.png")
    assert result.exit_code == 0, result.output
    cells = "".join(
        line.split("│")[2].strip() for line in result.stdout.splitlines() if "│" in line
    )
    assert "first.png" in cells
    assert "line.png" in cells


def test_options_for_photos_are_said_to_be_unused_with_embeddings(
    verb: tuple[object, ...], model_folder: Path, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.parquet"
    run("embed", model_folder, folder, "-o", file)
    told = run(*verb, file, "--turns", "--device", "cuda:7")
    assert told.exit_code == 0
    assert "not used: --turns, --cache, --model, --device; " in told.stderr.replace("\n", "")
    assert "not used" not in run("duplicates", file).stderr


def test_copies_are_not_moved_to_where_they_would_be_found_again(
    verb: tuple[object, ...], folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    said = fails(*verb, folder, "--move-to", folder / "away").replace("\n", "")
    assert f"{folder / 'away'}: lies in {folder}, where photos are searched" in said
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def table(folder: Path, tmp_path: Path) -> Path:
    """The photos of the folder as a table, in the order of their names."""
    files = sorted(folder.rglob("*.*"))
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    place = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"image": rows}), place)
    return place


def test_copies_in_a_table_of_images(
    verb: tuple[object, ...], table: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "groups.json"
    result = run(*verb, table, "-o", out)
    assert result.exit_code == 0, result.stderr
    names = [path.name for path in sorted(folder.rglob("*.*"))]
    told = {}
    for row in json.loads(out.read_text()):
        where, _, number = row["path"].partition("#")
        assert where == str(table)
        told[names[int(number)]] = (row["words"], row["best"], row["width"] > 0, row["bytes"] > 0)
    assert told == {
        "coffee.png": (None, True, True, True),
        "cup.jpg": ("the same picture", False, True, True),
        "cup.png": ("turned by 90° counter-clockwise", False, True, True),
        "chelsea.png": (None, True, True, True),
        "cat.png": ("mirrored", False, True, True),
    }
    page = tmp_path / "groups.html"
    assert run(*verb, table, "-o", page).exit_code == 0
    assert page.read_text().count("data:image/jpeg") == len(told)
    assert "cannot be read" not in page.read_text()


def test_a_table_beside_a_folder(verb: tuple[object, ...], table: Path, folder: Path) -> None:
    result = run(*verb, folder, table, "--image-column", "image")
    assert result.exit_code == 0, result.stderr
    assert "4 groups; 10 photos beside the best" in result.stdout, "each photo is there twice"
    assert "no column 'up'" in fails(*verb, table, "--image-column", "up")
    told = fails(*verb, folder, "--image-column", "image")
    assert "--image-column: expected a parquet table with images, got none" in told


def test_nothing_that_is_read_is_written_over(
    verb: tuple[object, ...], table: Path, folder: Path
) -> None:
    photo = folder / "coffee.png"
    for given, out in ((table, table), (table.parent, table), (folder, photo), (photo, photo)):
        before = out.read_bytes()
        said = fails(*verb, given, "-o", out).replace("\n", " ")
        assert f"--output: {out} is one of the files that are read" in said
        assert out.read_bytes() == before


def test_each_column_has_its_own_embeddings(
    verb: tuple[object, ...], folder: Path, tmp_path: Path
) -> None:
    files = [Image.open(path).convert("RGB").resize((64, 64)) for path in folder.glob("*.png")]
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
    cells = []
    for number, photo in enumerate(files):  # of as many bytes in both columns
        photo.save(tmp_path / "left" / f"{number}.bmp")
        files[0 if number == 1 else number].save(tmp_path / "right" / f"{number}.bmp")
        cells.append(
            [(tmp_path / name / f"{number}.bmp").read_bytes() for name in ("left", "right")]
        )
    place = tmp_path / "two.parquet"
    left, right = (list(column) for column in zip(*cells, strict=True))
    pq.write_table(pa.table({"left": left, "right": right}), place)
    counts = [run(*verb, place, "--image-column", name).stdout for name in ("left", "right")]
    assert "0 groups" in counts[0]
    assert "1 groups; 1 photos" in counts[1]


def test_a_table_that_changed_since_is_not_asked(
    verb: tuple[object, ...], model_folder: Path, table: Path, tmp_path: Path
) -> None:
    outputs = (tmp_path / "e.parquet", tmp_path / "shards")
    for out in outputs:
        run("embed", model_folder, table, "-o", out)
    rows = pq.read_table(table)
    pq.write_table(rows.take(list(reversed(range(len(rows))))), table)
    for out in outputs:
        told = run(*verb, out, "--threshold", 0.99)
        assert told.exit_code == 0, told.output
        assert f"{table} has changed since it was embedded" in told.stderr.replace("\n", "")
        assert "NOT VERIFIED" in told.stderr


def test_the_best_row_of_a_table_is_known_without_pixels(
    verb: tuple[object, ...], model_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    photo, cells = Image.open(photos["coffee"]).convert("RGB"), []
    for side in (96, 256):
        file = tmp_path / f"{side}.png"
        photo.resize((side, side)).save(file)
        cells.append(file.read_bytes())
    table, out = tmp_path / "sizes.parquet", tmp_path / "groups.json"
    pq.write_table(pa.table({"image": cells}), table)
    run("embed", model_folder, table, "-o", tmp_path / "e.parquet")
    options = ("--verify", "none", "--threshold", -0.9, "-o", out)
    told = run(*verb, tmp_path / "e.parquet", *options)
    assert told.exit_code == 0, told.output
    best = [row for row in json.loads(out.read_text()) if row["best"]]
    assert [(row["path"], row["width"]) for row in best] == [(f"{table}#1", 256)]


def test_rows_of_a_table_are_not_moved(
    verb: tuple[object, ...], table: Path, model_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.parquet"
    run("embed", model_folder, table, "-o", file)
    for given in (table, file):
        said = fails(*verb, given, "--move-to", tmp_path / "away").replace("\n", " ")
        assert "--move-to moves files, and some of the photos are rows of tables" in said
    assert not (tmp_path / "away").exists()


def test_embeddings_of_rows_are_verified_where_their_table_is(
    verb: tuple[object, ...], model_folder: Path, table: Path, tmp_path: Path
) -> None:
    file = tmp_path / "e.parquet"
    run("embed", model_folder, table, "-o", file)
    told = run(*verb, file, "--threshold", -0.9)
    assert told.exit_code == 0, told.output
    assert "2 groups; 3 photos beside the best of each" in told.stdout
    assert "NOT VERIFIED" not in told.stderr
    table.rename(tmp_path / "elsewhere")
    told = run(*verb, file, "--threshold", 0.99)
    assert told.exit_code == 0, told.output
    assert "NOT VERIFIED" in told.stderr
    assert "take --verify none or --verify heads" in fails(*verb, file, "--verify", "pixels")
