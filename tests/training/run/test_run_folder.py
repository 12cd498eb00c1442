"""A run folder is of one run, and stays so when recipes learn new keys."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clever_hub.errors import TrainingError
from clever_training.recipe.schema import Recipe
from clever_training.run.run_folder import RunFolder


@pytest.fixture
def begun(tmp_path: Path, tiny_recipe: Callable[..., Recipe]) -> RunFolder:
    """The folder of a run that has saved its state."""
    folder = RunFolder(tmp_path)
    folder.claim(tiny_recipe(), "photos/", 48)
    folder.state.touch()
    return folder


def test_a_run_from_before_a_key_existed_is_the_same_run(
    begun: RunFolder, tiny_recipe: Callable[..., Recipe]
) -> None:
    content = json.loads(begun.recipe.read_text())
    del content["recipe"]["views"]["flip"]
    begun.recipe.write_text(json.dumps(content))
    begun.claim(tiny_recipe(), "photos/", 48)
    with pytest.raises(TrainingError, match=r"other settings: views\.flip\."):
        begun.claim(tiny_recipe(views__flip=0.25), "photos/", 48)


def test_whoever_wants_more_epochs_is_told_how(
    begun: RunFolder, tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    with pytest.raises(TrainingError, match=r"other settings: run\.epochs\.") as refused:
        begun.claim(tiny_recipe(run__epochs=8), "photos/", 48)
    assert str(refused.value).endswith(f"--set backbone.init={tmp_path / 'model'}")


def test_photos_of_another_name_are_told_of(
    begun: RunFolder, tiny_recipe: Callable[..., Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    begun.claim(tiny_recipe(), "moved/photos/", 48)
    assert not caplog.records, "a folder may lie elsewhere now"
    begun.claim(tiny_recipe(), "others/", 48)
    assert "the run began with photos and goes on with others" in caplog.text


def test_photos_of_another_column_are_others(
    begun: RunFolder, tiny_recipe: Callable[..., Recipe]
) -> None:
    assert json.loads(begun.recipe.read_text())["image_column"] is None
    begun.claim(tiny_recipe(), "photos/", 48, "front")  # an earlier version recorded none
    begun.claim(tiny_recipe(), "photos/", 48, "front")
    before = begun.recipe.read_text()
    message = r"began with the photos of the column 'front', .* 'back'\. Give --image-column front"
    with pytest.raises(TrainingError, match=message):
        begun.claim(tiny_recipe(), "photos/", 48, "back")
    assert begun.recipe.read_text() == before
    begun.claim(tiny_recipe(), "moved/to/table.parquet", 48, "image")  # only warned of, as moved
    content = json.loads(before)
    del content["image_column"]
    begun.recipe.write_text(json.dumps(content))
    begun.claim(tiny_recipe(), "photos/", 48, "back")
    assert json.loads(begun.recipe.read_text())["image_column"] == "back"


def test_a_state_without_its_recipe_is_nobodys(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    folder = RunFolder(tmp_path)
    folder.state.touch()
    with pytest.raises(TrainingError, match=r"a state without the recipe\.json"):
        folder.claim(tiny_recipe(), "photos/", 48)
    assert not folder.recipe.exists()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_can_be_no_folder_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"file.*expected a run folder.*Give another --out"):
        RunFolder(tmp_path / place)


@pytest.mark.parametrize("action", ["claim", "rewind", "log"])
def test_a_full_disk_is_said_and_leaves_what_was_there(
    action: str,
    tmp_path: Path,
    tiny_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(tiny_recipe(), "photos/", 48)
    folder.log({"step": 1, "loss": 2.0})
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("clever_hub.files._flush", full)  # of every file that is replaced whole
    actions = {
        "claim": lambda: folder.claim(tiny_recipe(), "photos/", 48),
        "rewind": lambda: folder.rewind_metrics(1),
        "log": lambda: folder.log({"step": 2}),
    }
    if action == "log":
        folder.metrics = Path("/dev/full")  # the system's own full disk
    with pytest.raises(TrainingError, match=r"cannot be written \(No space left.*whole; make room"):
        actions[action]()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*.*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "files",
    [
        {".notes.tmp.bak": "precious"},
        {"recipe.json": '{"my": "recipe"}', "metrics.jsonl": "x"},
        {"recipe.json": "[1]"},
        {".cache.tmp/notes.txt": "mine"},
        {"photos/a.jpg": "a photo"},
    ],
)
def test_a_folder_of_other_files_is_refused_and_left_as_it_was(
    files: dict[str, str], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with (
        pytest.raises(TrainingError, match=r"empty one or one of a run, got other files: .*--out"),
        RunFolder(tmp_path).locked(),
    ):
        pass
    assert _files(tmp_path) == files
    assert not (tmp_path / ".lock").exists()


def test_of_partial_files_only_a_runs_own_are_removed(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    folder = RunFolder(tmp_path)
    own = [".state.0123abcd.tmp.safetensors", "model/.config.0123abcd.tmp.json"]
    kept = [".notes.tmp.bak", "model/.notes.0123abcd.tmp.txt", ".state.0123abcd.tmp.d/a.txt"]
    with folder.locked():  # a new one
        folder.claim(tiny_recipe(), "photos/", 48)
    for name in [*own, *kept]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("partial")
    with folder.locked():
        assert not any((tmp_path / name).exists() for name in own)
        assert all((tmp_path / name).exists() for name in kept)


def test_a_run_that_was_killed_before_its_recipe_was_there_begins(tmp_path: Path) -> None:
    for name in (".lock", ".recipe.0123abcd.tmp.json", ".DS_Store", "run.log"):
        (tmp_path / name).touch()
    with RunFolder(tmp_path).locked():
        # The log was opened by the shell that began the run.
        assert sorted(path.name for path in tmp_path.iterdir()) == [".DS_Store", ".lock", "run.log"]


def test_damaged_files_of_a_run_are_named(
    begun: RunFolder, tiny_recipe: Callable[..., Recipe]
) -> None:
    begun.metrics.write_text("x\n")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: expected the metrics of the run"):
        begun.rewind_metrics(1)
    begun.recipe.write_text("{")
    for use in (begun.earlier_recipe, lambda: begun.claim(tiny_recipe(), "photos/", 48)):
        with pytest.raises(TrainingError, match=r"recipe\.json: expected the recipe of the run"):
            use()
