"""``clever-hub leaks``: finds planted copies and fails a pipeline for them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from clever_hub.cli import jobs, leaks
from clever_hub.cli.app import app
from clever_hub.jobs import leaks as jobs_leaks
from clever_hub.jobs.sheets import ShownRow

runner = CliRunner()


def run(*words: object) -> Any:
    return runner.invoke(app, [str(word) for word in words])


@pytest.fixture
def sets(photos: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Two training photos; of the three validation photos one is a copy."""
    train, validation = tmp_path / "train", tmp_path / "validation"
    for folder in (train, validation):
        folder.mkdir()
    opened = {name: Image.open(path).convert("RGB") for name, path in photos.items()}
    for name in ("chelsea", "coffee"):
        opened[name].save(train / f"{name}.png")
    for name in ("astronaut", "rocket"):
        opened[name].save(validation / f"{name}.png")
    ImageOps.mirror(opened["chelsea"].crop((0, 0, 400, 300))).save(validation / "new.png")
    return train, validation


@pytest.fixture
def options(model_folder: Path, tmp_path: Path) -> tuple[object, ...]:
    return ("--model", model_folder, "--cache", tmp_path / "cache")


def test_sets_of_which_one_holds_the_other_are_refused(
    sets: tuple[Path, Path], options: tuple[object, ...], tmp_path: Path
) -> None:
    train, validation = sets
    link = tmp_path / "link"
    link.symlink_to(train)
    for pair in ((tmp_path, validation), (train, tmp_path), (train, train), (train, link)):
        result = run("leaks", *pair, *options)
        assert result.exit_code == 1
        assert "hold the same photos. Name two that share none" in " ".join(result.stderr.split())


def test_a_copy_is_found_and_the_exit_code_says_so(
    sets: tuple[Path, Path], options: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "leaks.json"
    result = run("leaks", *sets, *options, "-o", out)
    assert result.exit_code == 1, result.stderr
    assert "1 of 3 validation photos are copies of training photos" in result.stdout
    (row,) = json.loads(out.read_text())
    assert row["validation"].endswith("new.png")
    assert row["train"].endswith("chelsea.png")
    assert row["words"] == "mirrored, cropped to 89 %"
    for name in ("leaks.html", "leaks.png", "leaks.csv"):
        assert run("leaks", *sets, *options, "-o", tmp_path / name).exit_code == 1
        assert (tmp_path / name).stat().st_size > 100


def test_an_index_says_what_it_found(
    sets: tuple[Path, Path], options: tuple[object, ...], tmp_path: Path
) -> None:
    pytest.importorskip("lancedb", reason="needs the extra search")
    out = tmp_path / "leaks.html"
    result = run("leaks", *sets, *options, "--approximate", "-o", out)
    assert result.exit_code == 1, result.stderr
    assert "1 of 3 validation photos are copies" in result.stdout
    assert "An index found 100.0% of the candidates" in " ".join(result.stdout.split())
    assert "An index found 100.0%" in out.read_text()
    assert "An index" not in run("leaks", *sets, *options, "--exact").stdout


def test_an_index_is_taken_for_many_pairs_and_said(
    sets: tuple[Path, Path], options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lancedb", reason="needs the extra search")
    monkeypatch.setattr("clever_hub.jobs.leaks.APPROXIMATE_PAIRS", 5)
    result = run("leaks", *sets, *options)
    assert "6 pairs: an index finds each validation photo's nearest" in result.stderr
    assert "An index found 100.0% of the candidates" in " ".join(result.stdout.split())
    monkeypatch.setitem(sys.modules, "lancedb", None)
    result = run("leaks", *sets, *options)
    assert "[search]" in result.stderr
    assert "copies" not in result.stdout


def test_without_copies_all_is_well(sets: tuple[Path, Path], options: tuple[object, ...]) -> None:
    (sets[1] / "new.png").unlink()
    result = run("leaks", *sets, *options)
    assert result.exit_code == 0, result.stderr
    assert "0 of 2 validation photos" in result.stdout


def test_files_of_embeddings(
    sets: tuple[Path, Path], options: tuple[object, ...], model_folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{folder.name}.parquet" for folder in sets]
    for folder, file in zip(sets, files, strict=True):
        run("embed", model_folder, folder, "-o", file)
    result = run("leaks", *files)
    assert result.exit_code == 1
    assert "1 of 3 validation photos" in result.stdout
    assert "got one each" in run("leaks", files[0], sets[1], *options).stderr


def as_table(folder: Path, column: str = "image") -> Path:
    """The photos of a folder in a parquet file beside it, in the order of their names."""
    table = folder.with_suffix(".parquet")
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    pq.write_table(pa.table({column: files}), table)
    return table


def test_tables_of_images(
    sets: tuple[Path, Path], options: tuple[object, ...], tmp_path: Path
) -> None:
    train, validation = (as_table(folder) for folder in sets)
    out = tmp_path / "leaks.json"
    for sides in ((train, validation), (train, sets[1]), (sets[0], validation)):
        result = run("leaks", *sides, *options, "-o", out)
        assert result.exit_code == 1, result.stderr
        assert "1 of 3 validation photos are copies of training photos" in result.stdout
        (row,) = json.loads(out.read_text())
        assert row["words"] == "mirrored, cropped to 89 %"
    assert row["validation"] == f"{validation}#1"
    page = tmp_path / "leaks.html"
    assert run("leaks", train, validation, *options, "-o", page).exit_code == 1
    assert page.read_text().count("data:image/jpeg") == 2


def test_a_folder_of_tables_may_hold_a_picture(
    sets: tuple[Path, Path], options: tuple[object, ...]
) -> None:
    train = as_table(sets[0])
    data = train.parent / "set" / "data"
    data.mkdir(parents=True)
    train.rename(data / "train.parquet")
    Image.new("RGB", (8, 8)).save(data.parent / "logo.png")
    result = run("leaks", data.parent, sets[1], *options, "--image-column", "image")
    assert result.exit_code == 1, result.stderr
    assert "1 of 3 validation photos" in result.stdout


def test_a_row_that_is_no_image_does_not_pass(
    sets: tuple[Path, Path], options: tuple[object, ...]
) -> None:
    (sets[1] / "new.png").write_bytes(b"no image")
    train, validation = (as_table(folder) for folder in sets)
    result = run("leaks", train, validation, *options)
    assert result.exit_code == 1
    assert "validation.parquet#1" in result.stderr
    assert "1 photos could not be read, and were not checked" in result.stderr
    assert run("leaks", train, validation, *options, "--on-error", "skip").exit_code == 0


def test_embeddings_of_tables_are_verified(sets: tuple[Path, Path], model_folder: Path) -> None:
    files = []
    for folder in sets:
        table = as_table(folder, "photo")
        files.append(table.with_name(f"{folder.name}-e.parquet"))
        run("embed", model_folder, table, "-o", files[-1])
    result = run("leaks", *files)
    assert result.exit_code == 1, result.stderr
    assert "1 of 3 validation photos" in result.stdout
    assert "verified by pixels" in result.stdout


def test_different_ways_of_embedding_are_refused(
    sets: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{folder.name}.parquet" for folder in sets]
    run("embed", model_folder, sets[0], "-o", files[0])
    run("embed", model_folder, sets[1], "-o", files[1], "--normalize")
    result = run("leaks", *files)
    assert result.exit_code == 1
    assert "the training photos: raw embeddings; the validation photos: normalized" in result.stderr
    run("embed", "clever-resnet18", sets[1], "-o", files[1])
    assert "are of different models: their weights have the hashes" in run("leaks", *files).stderr


def test_a_page_and_a_picture_say_what_they_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_ON_PAGE", 1)
    monkeypatch.setattr(jobs, "_ON_SHEET", 1)
    titles = list[str]()
    monkeypatch.setattr(jobs, "write_sheet", lambda _path, title, _rows: titles.append(title))
    rows, asked = [ShownRow("a", []), ShownRow("b", [])], list[int]()

    def first(many: int) -> list[ShownRow]:
        asked.append(many)
        return rows[:many]

    for count, said in ((2, "1 of 2 leaks"), (1, "1 leaks")):
        for name in ("p.html", "p.png"):
            written = jobs.write_shown(tmp_path / name, "title", [], first, count, "leaks", "first")
            assert written == said
        text = (tmp_path / "p.html").read_text(encoding="utf-8")
        assert ("1 of 2 leaks are shown, the first; a table has them all." in text) == (count == 2)
    assert titles == ["title (1 of 2 leaks are shown, the first)", "title"]
    assert asked == [1, 1, 1, 1]  # the photos of other rows are not read


def test_the_terminal_says_what_a_picture_and_the_table_leave_out(
    sets: tuple[Path, Path],
    options: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_ON_SHEET", 1)
    monkeypatch.setattr(leaks, "_LISTED", 1)
    with Image.open(sets[0] / "coffee.png") as photo:
        photo.rotate(180).save(sets[1] / "second.png")
    result = run("leaks", *sets, *options, "-o", tmp_path / "leaks.png")
    assert "1 of 2 leaks → " in result.stderr
    assert "… 1 more pairs; all of them: -o leaks.html" in result.stdout


def test_a_candidate_that_cannot_be_read_is_named_and_fails(
    sets: tuple[Path, Path], options: tuple[object, ...], model_folder: Path, tmp_path: Path
) -> None:
    files = [tmp_path / f"{folder.name}.parquet" for folder in sets]
    for folder, file in zip(sets, files, strict=True):
        run("embed", model_folder, folder, "-o", file)
    copy = sets[1] / "new.png"
    copy.write_bytes(copy.read_bytes()[:1000])
    result = run("leaks", *files)
    assert result.exit_code == 1
    assert f"not verified {copy}" in result.stderr.replace("\n", "")
    assert "1 photos of candidates could not be read; they may be copies" in result.stderr
    assert "0 of 3 validation photos" in result.stdout
    assert "verified by pixels, 1 photos could not be read" in " ".join(result.stdout.split())
    assert run("leaks", *files, "--on-error", "skip").exit_code == 0


@pytest.fixture
def tables(
    sets: tuple[Path, Path], model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Embeddings of the photos by relative paths, beside their folders; called from elsewhere."""
    monkeypatch.chdir(tmp_path)
    files = [f"{folder.name}.parquet" for folder in sets]
    for folder, file in zip(sets, files, strict=True):
        assert run("embed", model_folder, folder.name, "-o", file).exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return [f"../{file}" for file in files]


def test_photos_are_found_beside_their_embeddings(tables: list[str], tmp_path: Path) -> None:
    result = run("leaks", *tables, "-o", "leaks.json")
    assert result.exit_code == 1
    assert "1 of 3 validation photos are copies of training photos (verified" in result.stdout
    (row,) = json.loads(Path("leaks.json").read_text())
    assert row["validation"] == str(tmp_path / "validation" / "new.png")


def test_photos_that_have_gone_keep_no_other_from_being_looked_at(
    tables: list[str], sets: tuple[Path, Path]
) -> None:
    gone = sets[0] / "coffee.png"
    gone.unlink()
    result = run("leaks", *tables)
    assert result.exit_code == 1
    assert "1 of 3 validation photos" in result.stdout
    assert f"not verified {gone}: no such file" in result.stderr
    assert "1 photos of candidates could not be read" in result.stderr
    (sets[1] / "new.png").unlink()
    result = run("leaks", *tables)
    assert result.exit_code == 1, "the copy has gone, but two photos were not looked at"
    assert "2 photos of candidates could not be read" in result.stderr
    assert run("leaks", *tables, "--on-error", "skip").exit_code == 0


@pytest.mark.parametrize("side", [0, 1])
def test_a_check_that_could_not_be_made_does_not_pass(
    tables: list[str], sets: tuple[Path, Path], side: int
) -> None:
    for photo in sets[side].iterdir():
        photo.unlink()
    options = ("--threshold", 0.999)
    for accepted in ((), ("--on-error", "skip")):
        result = run("leaks", *tables, *options, *accepted)
        assert result.exit_code == 1
        assert (
            f"NOT VERIFIED: none of the {('training', 'validation')[side]} photos" in result.stderr
        )
        assert "no candidate was looked at" in result.stderr
    assert "0 of 3 validation photos" in result.stdout
    assert run("leaks", *tables, *options, "--no-verify").exit_code == 0


@pytest.mark.parametrize("side", [0, 1])
def test_a_photo_that_cannot_be_read_was_not_checked(
    sets: tuple[Path, Path], options: tuple[object, ...], side: int
) -> None:
    (sets[1] / "new.png").unlink()
    whole = (sets[0] / "coffee.png").read_bytes()
    (sets[side] / "broken.png").write_bytes(whole[: len(whole) // 2])
    result = run("leaks", *sets, *options)
    assert result.exit_code == 1
    assert "0 of 2 validation photos" in result.stdout
    assert "broken.png" in result.stderr
    assert "1 photos could not be read, and were not checked" in result.stderr
    result = run("leaks", *sets, *options, "--on-error", "skip")
    assert result.exit_code == 0, result.stderr
    assert "1 photos could not be read" in " ".join(result.stdout.split())


def test_what_embed_could_not_read_was_not_checked(
    sets: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    (sets[1] / "new.png").unlink()
    broken = sets[1] / "broken.png"
    broken.write_bytes(b"no image")
    folders = [tmp_path / f"{folder.name}-vectors" for folder in sets]
    for photos, vectors in zip(sets, folders, strict=True):
        run("embed", model_folder, photos, "-o", vectors, "--on-error", "skip")
    result = run("leaks", *folders)
    assert result.exit_code == 1
    said = result.stderr.replace("\n", "")
    assert str(broken) in said
    assert "1 photos could not be read, and were not checked" in said
    assert run("leaks", *folders, "--on-error", "skip").exit_code == 0


def test_embeddings_in_a_folder_of_embeddings_are_others(
    sets: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    vectors = tmp_path / "vectors"
    run("embed", model_folder, sets[0], "-o", vectors)
    run("embed", model_folder, sets[1], "-o", vectors / "inner" / "val")
    options = ("--no-verify", "--threshold", 0.9)
    result = run("leaks", vectors, vectors / "inner" / "val", *options)
    assert "of 3 validation photos" in result.stdout, result.stderr
    for other in (vectors, vectors / "part-00000.parquet"):
        assert "hold the same photos" in " ".join(run("leaks", vectors, other).stderr.split())


def test_an_empty_side_does_not_pass(
    sets: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    train, empty = tmp_path / "t.parquet", tmp_path / "e.parquet"
    run("embed", model_folder, sets[0], "-o", train)
    pq.write_table(pq.read_table(train).slice(0, 0), empty)
    for sides in ((train, empty), (empty, train)):
        result = run("leaks", *sides)
        assert result.exit_code == 1
        assert f"{empty.name}: expected embeddings of photos, got none" in result.stderr


def test_what_is_read_is_not_written_over(
    sets: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    paths = [str(path) for path in sorted(sets[0].iterdir())]
    pq.write_table(pa.table({"photo": paths}), tables / "a.parquet")
    before = (tables / "a.parquet").read_bytes()
    options = ("--image-column", "photo", "--model", model_folder, "-o", tables / "a.parquet")
    assert "would be lost" in run("leaks", tables, sets[1], *options).stderr
    assert (tables / "a.parquet").read_bytes() == before
    vectors = tmp_path / "vectors"
    run("embed", model_folder, sets[0], "-o", vectors)
    others = tmp_path / "others"
    shutil.copytree(vectors, others)
    result = run("leaks", vectors, others, "--threshold", 0.9, "-o", others / "new.parquet")
    assert "whose tables are read as embeddings" in result.stderr
    assert run("leaks", vectors, others, "--threshold", 0.9).exit_code == 1


def test_more_candidates_than_may_be_do_not_pass(
    sets: tuple[Path, Path], options: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_leaks, "most_pairs", lambda _: 6)
    page = sets[0].parent / "leaks.html"
    result = run("leaks", *sets, *options, "-o", page)
    assert result.exit_code == 1
    assert "the least alike were left out" in page.read_text()
    assert "the least alike were left out, and were not checked. Ask for fewer" in result.stderr
