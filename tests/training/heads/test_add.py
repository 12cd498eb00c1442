"""From a model folder and photos to the same model with heads, by the command too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import clever_hub
from clever_hub.backends.torch import CleverModel
from clever_hub.cli.app import app
from clever_hub.config import CONFIG_NAME, ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, DataError, ModelFormatError
from clever_hub.jobs.heads import HEADS_NAME
from clever_training.data.photos import load_photos
from clever_training.heads import add
from clever_training.heads.add import HeadsPlan, add_heads
from clever_training.heads.fit import FitSettings
from clever_training.heads.views import HeadViews

PLAN = HeadsPlan(
    views=HeadViews(count=6),
    fit=FitSettings(hidden_dim=16, steps=60, batch_size=64),
    bootstraps=3,
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without heads: a small ResNet with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="clever-test",
        architecture="test_resnet",
        num_features=WIDTH,
        invariant_dim=WIDTH * 3 // 4,
        preprocessing=PreprocessingConfig(36, 32),
    )
    return CleverModel(config).save_pretrained(tmp_path_factory.mktemp("plain") / "model")


WIDTH = 96


@pytest.fixture(scope="module")
def headed(plain: Path, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("headed") / "model"
    add_heads(plain, target, str(tiles), calibration=str(tiles), plan=PLAN)
    return target


def test_the_model_is_the_same_and_has_heads(
    plain: Path, headed: Path, photos: dict[str, Path]
) -> None:
    one, two = (clever_hub.from_pretrained(folder) for folder in (plain, headed))
    np.testing.assert_array_equal(
        one.encode(photos.values()).full, two.encode(photos.values()).full
    )
    found = two.relate(photos["coffee"], photos["coffee"])
    assert found.same is not None
    assert found.same > 0.5
    assert two.orientation([photos["coffee"]]).confidence.shape == (1,)
    entry = json.loads((headed / CONFIG_NAME).read_text())["heads"]
    assert entry["photos"] <= 200
    assert entry["rotation"] == 180.0
    calibration = two.heads.config.calibration
    assert calibration is not None
    assert calibration.cosine["full"]["1e-7"].extrapolated
    assert calibration.from_eight is not None


def test_photos_are_set_apart_for_the_calibration_when_none_are_given(
    plain: Path, tiles: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    with pytest.raises(DataError, match=r"calibrate on, got 50\. .* so give 400"):
        add_heads(
            *(plain, tmp_path / "new", str(tiles)),
            plan=PLAN,
            progress=lambda what, *_: told.append(what),
        )
    assert not told, "before any work"
    assert not (tmp_path / "new").exists()


def test_copies_of_a_photo_count_once(plain: Path, tiles: Path, tmp_path: Path) -> None:
    doubled = tmp_path / "doubled"
    shutil.copytree(tiles, doubled)
    for path in sorted(tiles.iterdir())[:120]:
        shutil.copyfile(path, doubled / f"copy-{path.name}")
    found = add_heads(plain, tmp_path / "new", str(tiles), calibration=str(doubled), plan=PLAN)
    assert found.photos <= 200


def test_heads_are_put_beside_the_weights_of_the_models_own_folder(
    plain: Path, tiles: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    shutil.copytree(plain, own)
    (own / "verify.json").write_text("{}")
    add_heads(own, own, str(tiles), calibration=str(tiles), plan=PLAN)
    assert clever_hub.from_pretrained(own).has_heads
    assert not (own / "verify.json").exists()  # it is about the folder without heads


def test_trained_heads_are_kept_and_calibrated(headed: Path, tiles: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(headed, trained)
    config = json.loads((trained / CONFIG_NAME).read_text())
    del config["heads"]["calibration"]
    (trained / CONFIG_NAME).write_text(json.dumps(config))
    before = clever_hub.from_pretrained(trained).heads
    add_heads(trained, tmp_path / "new", str(tiles), plan=PLAN, keep_trained=True)
    after = clever_hub.from_pretrained(tmp_path / "new").heads
    assert after.config.calibration is not None
    assert after.config.data == before.config.data
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(after.tensors[name], tensor)


@pytest.mark.parametrize("others", [False, True])
def test_the_command_says_that_kept_heads_need_no_photos_to_fit_to(
    others: bool, plain: Path, tiles: Path, tmp_path: Path
) -> None:
    words = ["heads", str(plain), "--data", str(tiles), "-o", str(tmp_path / "new"), "--keep"]
    words += ["--calibration", str(tiles)] if others else []
    result = CliRunner().invoke(app, words)
    assert "has no heads" in result.stderr
    assert ("not used: --data; heads that are kept" in result.stderr) == others


def test_bad_input_is_refused(plain: Path, tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="is there already"):
        add_heads(plain, tmp_path / "taken", str(tiles), plan=PLAN)
    with pytest.raises(ModelFormatError, match="has no heads"):
        add_heads(plain, tmp_path / "new", str(tiles), plan=PLAN, keep_trained=True)
    config = ModelConfig.load(plain)
    whole = replace(config, invariant_dim=config.num_features)
    folder = CleverModel(whole).save_pretrained(tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"no equivariant part.*clever-hub split"):
        add_heads(folder, tmp_path / "new", str(tiles), plan=PLAN)


def test_the_command_shows_what_was_measured(plain: Path, tiles: Path, tmp_path: Path) -> None:
    arguments = ["heads", plain, "--data", tiles, "--calibration", tiles, "-o", tmp_path / "new"]
    options = ["--views", "6", "--steps", "100"]
    result = CliRunner().invoke(app, [*map(str, arguments), *options])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "new" / HEADS_NAME).is_file()
    for text in ("mirrored or not", "quarter turns", "false pairs, full", "photos of"):
        assert text in result.output


def test_no_path_of_this_machine_is_published(headed: Path, tiles: Path) -> None:
    entry = json.loads((headed / CONFIG_NAME).read_text())["heads"]
    assert (entry["data"], entry["calibration"]["data"]) == (tiles.name, tiles.name)


def test_a_full_disk_leaves_no_half_of_a_folder(
    plain: Path, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])
        raise OSError(28, "No space left on device")

    target = tmp_path / "new"
    with monkeypatch.context() as patched:
        patched.setattr("clever_training.heads.files.shutil.copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            add_heads(plain, target, str(tiles), calibration=str(tiles), plan=PLAN)
    assert not list(tmp_path.iterdir())
    target.mkdir()  # empty: as good as none, and it stays the folder that it is
    monkeypatch.chdir(target)
    with monkeypatch.context() as patched:
        patched.setattr("clever_training.heads.files.shutil.copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            add_heads(plain, ".", str(tiles), calibration=str(tiles), plan=PLAN)
    assert not list(target.iterdir())
    add_heads(plain, ".", str(tiles), calibration=str(tiles), plan=PLAN)
    assert clever_hub.from_pretrained(target).has_heads
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_photos_to_measure_on_are_drawn_and_not_the_first(tiles: Path) -> None:
    photos = load_photos(str(tiles), None)
    plan = HeadsPlan(photos=len(photos), calibration_photos=120)
    _, rows = add._rows(photos, None, plan, only_measuring=True)
    assert len(rows) == 120
    assert rows != list(range(120))
    assert rows == sorted(rows)


def test_the_seed_of_the_plan_reaches_the_fit(
    plain: Path, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def stopped(_: Any, settings: FitSettings, *__: Any) -> Any:
        seeds.append(settings.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(add, "fit", stopped)
    for plan in (replace(PLAN, seed=7), PLAN, replace(PLAN, fit=replace(PLAN.fit, seed=3), seed=7)):
        with pytest.raises(KeyboardInterrupt):
            add_heads(plain, tmp_path / "out", str(tiles), calibration=str(tiles), plan=plan)
    assert seeds == [7, 0, 3]
