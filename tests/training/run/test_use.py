"""What a run says of its photos and of its name, and of a run that is over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clever_hub.config import ModelConfig
from clever_hub.errors import ConfigError, TrainingError
from clever_training.recipe.reading import read_recipe, recipe_names
from clever_training.recipe.schema import Recipe
from clever_training.run.pretrain import pretrain

TINY: dict[str, Any] = {
    "name": "mine",
    "image_size": 16,
    "backbone": {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {
            "img_size": 16,
            "patch_size": 8,
            "embed_dim": 20,
            "depth": 1,
            "num_heads": 2,
        },
    },
    "method": {"name": "clever-simclr", "objective_args": {"dim": 8, "hidden_dim": 16}},
    "views": {"global_size": 16},
    "optimizer": {"warmup_epochs": 0},
    "run": {"epochs": 1, "batch_size": 4, "num_workers": 0},
}


@pytest.fixture
def folder(photos: dict[str, Path], tmp_path: Path) -> Path:
    """Eight photos in a folder called birds."""
    target = tmp_path / "birds"
    target.mkdir()
    for number in range(8):
        name = sorted(photos)[number % 4]
        shutil.copy(photos[name], target / f"{number}{photos[name].suffix}")
    return target


def test_the_model_names_the_photos_it_was_trained_on(folder: Path, tmp_path: Path) -> None:
    model = pretrain(Recipe.parse(TINY), str(folder), tmp_path / "run", progress=False)
    config = ModelConfig.load(model)
    assert (config.provenance["data"], config.provenance["photos"]) == ("birds", 8)
    assert config.data_terms == ""
    assert str(tmp_path) not in (model / "config.json").read_text("utf-8")


def test_a_run_is_not_called_as_a_model_that_ships(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse({**TINY, "name": "clever-resnet18"})
    with pytest.raises(ConfigError, match=r"a model that ships.*--set name=clever-resnet18\.mine"):
        pretrain(recipe, str(folder), tmp_path / "run", progress=False)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_claim_no_photos_and_no_name_of_a_shipped_model(name: str) -> None:
    recipe = read_recipe(name)
    assert (recipe.data_name, recipe.data_terms) == ("", "")
    assert recipe.name not in ("clever-resnet18", "clever-resnet50", "clever-vit-tiny")


def test_a_run_that_is_over_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.parse(TINY)
    model = pretrain(recipe, str(folder), tmp_path / "run", progress=False)
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert pretrain(recipe, str(folder), tmp_path / "run") == model
    assert "the run is complete, 2 steps are done" in capsys.readouterr().err
    assert (model / "model.safetensors").stat().st_mtime_ns == before


def test_photos_that_came_or_went_are_named_with_the_ways_out(folder: Path, tmp_path: Path) -> None:
    recipe = Recipe.parse(TINY)
    pretrain(recipe, str(folder), tmp_path / "run", progress=False)
    (folder / "0.png").unlink()
    message = r"began with 8 photos, .* has 7 now.*Bring back.*backbone\.init="
    with pytest.raises(TrainingError, match=message):
        pretrain(recipe, str(folder), tmp_path / "run", progress=False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_does_not_go_on_with_the_photos_of_another_column(
    stream: bool, folder: Path, tmp_path: Path
) -> None:
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    table = pa.table({"front": files, "back": files[::-1]})
    parquet = tmp_path / "photos.parquet"
    pq.write_table(table, parquet)
    recipe = Recipe.parse({**TINY, "run": {**TINY["run"], "stream": stream, "max_steps": 1}})

    def train(column: str) -> None:
        out = tmp_path / "run"
        pretrain(recipe, str(parquet), out, image_column=column, progress=False)

    train("front")
    train("front")
    with pytest.raises(TrainingError, match=r"column 'front'.*--image-column front"):
        train("back")


def test_a_view_that_raises_ends_the_run_with_its_photo_and_function(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "my_views.py").write_text("def corner(image, size, rng):\n    return image[size]\n")
    content = {**TINY, "views": {"global_size": 2000, "aug": "my_views:corner"}}
    content["backbone"] = {"architecture": "test_resnet"}
    content["run"] = {**TINY["run"], "num_workers": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(content))
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from clever_hub.cli.app import main; main()"),
            *("pretrain", str(recipe)),
            *("--data", str(folder), "-o", str(tmp_path / "run")),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert "my_views:corner failed on a photo of" in line
    assert str(folder) in line
    assert "Traceback" not in done.stderr
