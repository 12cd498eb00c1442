"""One rule says which model a job takes where none is named: what is shipped decides."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_hub.config import ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.hub import shipped
from clever_hub.jobs import heads as heads_module
from clever_hub.jobs.default import RECOMMENDED, WITHOUT_HEADS, default_model
from clever_hub.jobs.heads import HeadsConfig
from tests.hub.jobs.conftest import CALIBRATION, write_heads


@pytest.fixture
def zoo(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that ships three models, none with heads."""
    folder = tmp_path / "zoo"
    for name in ("clever-a", "clever-b", "clever-c"):
        shutil.copytree(model_folder, folder / name)
    for module in (shipped, heads_module):
        monkeypatch.setattr(module, "ZOO", folder)
    return folder


def give_heads(folder: Path, quarters: float | None) -> None:
    """Heads whose calibration says how many quarter turns they tell; None has no calibration."""
    calibration = copy.deepcopy(CALIBRATION)
    calibration["measured"]["quarter_from_four"] = quarters
    write_heads(folder, calibration if quarters is not None else None)


def test_what_this_package_ships_has_a_default() -> None:
    name = default_model()
    assert name == RECOMMENDED
    assert HeadsConfig.of(ModelConfig.load(shipped.ZOO / name)) is not None


def test_the_recommended_one_is_taken_whatever_others_are_calibrated_to(zoo: Path) -> None:
    """Another model's calibration, on other photos, does not change what the jobs take."""
    (zoo / "clever-c").rename(zoo / RECOMMENDED)
    give_heads(zoo / RECOMMENDED, 0.7)
    give_heads(zoo / "clever-b", 0.9)
    assert default_model() == default_model(heads=True) == RECOMMENDED


def test_without_heads_in_the_package_those_jobs_that_need_them_say_so(zoo: Path) -> None:
    assert default_model() == WITHOUT_HEADS
    with pytest.raises(ModelFormatError, match=r"none of the shipped models has heads.*--model"):
        default_model(heads=True)


def test_the_one_that_tells_orientation_best_is_taken_by_all_jobs(zoo: Path) -> None:
    give_heads(zoo / "clever-b", 0.8)
    give_heads(zoo / "clever-c", None)
    assert default_model() == default_model(heads=True) == "clever-b"
    give_heads(zoo / "clever-a", 0.9)
    assert default_model() == default_model(heads=True) == "clever-a"


@pytest.mark.parametrize("verb", ["relate", "orient", "duplicates", "leaks", "index"])
def test_every_verb_names_the_same_rule(
    verb: str, zoo: Path, photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verb loads what the rule says: the shipped model with heads, and no other."""
    from clever_hub.cli import loading

    give_heads(zoo / "clever-b", 0.8)
    asked: list[str] = []

    def refuse(name: str, **_: object) -> str:
        asked.append(name)
        raise ModelFormatError("stop here")

    monkeypatch.setattr(loading, "fastest_backend", refuse)
    cat, coffee = photos["chelsea"], photos["coffee"]
    given: dict[str, list[object]] = {
        "relate": [cat, coffee],
        "orient": [cat],
        "duplicates": [cat, coffee],
        "leaks": [cat, coffee],
        "index": [cat, "-o", tmp_path / "photos.lance"],
    }
    result = CliRunner().invoke(app, [verb, *(str(word) for word in given[verb])])
    assert "stop here" in result.stderr
    assert asked == ["clever-b"]
