"""Wrong options and files are told before a model is loaded, not when all photos are embedded."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_hub.cli.checks import check_part
from clever_hub.config import ModelConfig
from clever_hub.errors import ConfigError
from clever_hub.jobs.candidates import check_enough
from clever_hub.jobs.moving import LOG_NAME

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading one is an error."""

    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was loaded")

    for verb in ("jobs", "relate", "orient"):
        monkeypatch.setattr(f"clever_hub.cli.{verb}.load_model", load)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two folders of photos, files that are no photos, a folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "others"):
        Path(name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (9 * number, 0, 0)).save(Path(name, f"{number}.png"))
    for name in ("file", "v.csv", "v.npz", "v.jsonl", "v.parquet"):
        Path(name).write_text("no photo")
    for name in ("folder.csv", "folder.png", "v.lance", "copies"):
        Path(name).mkdir()
    Path("copies", LOG_NAME).write_text("no log")
    return tmp_path


def refused(*words: object) -> str:
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, AssertionError), result.exception
    return result.stderr


DUPLICATES = ("duplicates", "photos")
LEAKS = ("leaks", "photos", "others")
INDEX = ("index", "photos", "-o", "photos.lance")
RELATE = ("relate", "photos/0.png", "photos/1.png")
ORIENT = ("orient", "photos")


@pytest.mark.parametrize("verb", [DUPLICATES, LEAKS])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "2"], "--threshold: expected a cosine, -1 to 1, got 2.0"),
        (["--threshold", "nan"], "--threshold: expected a cosine, -1 to 1, got nan"),
        (["--expected-false", "-1"], "--expected-false: expected a number above 0, got -1.0"),
        (["--expected-false", "0"], "--expected-false: expected a number above 0, got 0.0"),
        (["--expected-false", "nan"], "--expected-false: expected a number above 0, got nan"),
        (["--expected-false", "inf"], "--expected-false: expected a number above 0, got inf"),
        (
            ["--threshold", ".5", "--expected-false", "3"],
            "--threshold and --expected-false: expected one of them, got both (0.5 and 3.0)",
        ),
    ],
)
def test_what_makes_candidates(verb: tuple[str, ...], options: list[str], said: str) -> None:
    assert said in refused(*verb, *options)


@pytest.mark.parametrize(
    "command",
    [
        (*DUPLICATES, "--verify", "none"),
        (*LEAKS, "--no-verify"),
        (*LEAKS, "--no-verify", "--expected-false", "2"),
    ],
)
def test_too_few_photos_for_a_rate(command: tuple[str, ...]) -> None:
    said = refused(*command)
    assert "cannot be measured on 3 photos, 500 are needed. Give a cosine (--threshold)" in said
    assert ("--verify heads" in said) == (command[0] == "duplicates"), "leaks has no heads to ask"


def test_enough_photos_for_a_rate() -> None:
    given: dict[str, Any] = {"threshold": None, "expected_false": None}
    check_enough(3, verified=True, **given)  # all pairs may as well be looked at
    check_enough(100, verified=True, **given | {"expected_false": 50})
    check_enough(3, verified=False, **given | {"threshold": 0.9})
    check_enough(500, 500, verified=False, **given)
    with pytest.raises(ConfigError, match="on 100 photos, 500 are needed"):
        check_enough(100, verified=True, **given | {"expected_false": 1})
    with pytest.raises(ConfigError, match="on 499 photos"):
        check_enough(10_000, 499, verified=False, **given)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ((*DUPLICATES, "-o"), "--output"),
        ((*LEAKS, "-o"), "--output"),
        ((*ORIENT, "-o"), "--output"),
        ((*ORIENT, "--sheet"), "--sheet"),
        ((*RELATE, "--picture"), "--picture"),
    ],
)
def test_where_nothing_can_be_written(command: tuple[str, ...], option: str) -> None:
    ending = ".csv" if option == "--output" else ".png"
    assert f"{option}: expected a name with " in refused(*command, "a.xlsx")
    folder = f"folder{ending}"
    assert f"{option}: expected the name of a file, got the folder {folder}" in refused(
        *command, folder
    )
    below = f"file/below/a{ending}"
    assert f"{option}: {below} cannot be written" in refused(*command, below)
    assert "file is no folder" in refused(*command, below)


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("file", "--move-to: expected a folder, got the file file"),
        ("file/below", "file is no folder"),
        ("photos", "is in photos already. Move to a folder outside the photos"),
        ("copies", "expected a log of earlier changes, or a new name"),
    ],
)
def test_where_nothing_can_be_moved(to: str, said: str) -> None:
    assert said in refused(*DUPLICATES, "--move-to", to)


def test_a_folder_of_an_index_and_a_log(folder: Path) -> None:
    pytest.importorskip("lancedb", reason="needs the extra search")
    assert "--output: expected a folder, got the file file" in refused(
        "index", "photos", "-o", "file"
    )
    assert "is not an index of photos" in refused("index", "photos", "-o", "others")
    assert "--log: expected the name of a file" in refused(*ORIENT, "--apply", "--log", "copies")
    log = f"copies/{LOG_NAME}"
    assert "expected a log of earlier changes" in refused(*ORIENT, "--apply", "--log", log)


@pytest.mark.parametrize("name", ["v.csv", "v.npz", "v.jsonl", "v.lance"])
def test_embeddings_of_another_kind_say_which_are_taken(name: str) -> None:
    for command in (("duplicates", name), ("leaks", "photos", name), ("leaks", name, "v.parquet")):
        said = refused(*command)
        assert f"{name}: expected images or folders of them, or embeddings in .parquet" in said
        assert "`clever-hub embed MODEL PHOTOS -o v.parquet` writes them so" in said


@pytest.mark.parametrize("name", ["v.csv", "v.parquet"])
def test_tables_where_only_photos_are_taken(name: str) -> None:
    pytest.importorskip("lancedb", reason="needs the extra search")
    commands = [("orient", name), ("relate", name, "photos/0.png")]
    commands += [("index", name, "-o", "i.lance"), ("search", "i.lance", name)]
    for command in commands:
        said = refused(*command)
        assert f"{name}: expected images or folders of them, got a table" in said, command


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (DUPLICATES, "--output"),
        (LEAKS, "--output"),
        (("orient", "photos"), "--sheet"),
        (("search", "i.lance", "photos/0.png"), "--output"),
        (("views", "clever-resnet18-tiny", "--data", "photos"), "--output"),
        (("relate", "photos/0.png", "photos/1.png"), "--picture"),
        (("saliency", "clever-vit-tiny", "photos/0.png"), "--output"),
        (("saliency", "clever-vit-tiny", "photos/0.png", "-o", "new.png"), "--mask"),
        (("attention", "clever-vit-tiny", "photos/0.png"), "--output"),
    ],
)
def test_a_photo_is_not_written_over(command: tuple[str, ...], option: str) -> None:
    if command[0] == "search":
        pytest.importorskip("lancedb", reason="needs the extra search")
    before = Path("photos/0.png").read_bytes()
    for spelling in ("photos/0.png", "others/../photos/0.png"):
        said = " ".join(refused(*command, option, spelling).split())
        assert f"{option}: {spelling} is one of the files that are read" in said
    assert Path("photos/0.png").read_bytes() == before


def test_photos_that_are_not_there() -> None:
    pytest.importorskip("lancedb", reason="needs the extra search")
    for command in (("orient", "gone"), ("relate", "gone", "photos/0.png"), ("index", "gone")):
        words = (*command, "-o", "i.lance") if command[0] == "index" else command
        assert "gone: no such file" in refused(*words)
    assert "gone: no such file" in refused("search", "i.lance", "gone")


def test_what_does_not_go_together() -> None:
    for options in (["photos"], ["--move-to", "a"], ["-o", "a.csv"]):
        assert "leave out PATHS" in refused("duplicates", "--undo", "copies", *options)
    for options in (["photos"], ["--apply"]):
        assert "leave out PATHS" in refused("orient", "--undo", *options)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for verb in (DUPLICATES, LEAKS):
        assert 'pip install "clever-hub[jobs]"' in refused(*verb)


def test_a_part_that_the_model_does_not_have(config: ModelConfig) -> None:
    whole = replace(config, invariant_dim=config.num_features)
    model = cast("Any", SimpleNamespace(config=whole))
    with pytest.raises(ConfigError, match=r"has no equivariant part\. Take --part full"):
        check_part(model, "equivariant")
    check_part(model, "full")
    check_part(model, "invariant")
