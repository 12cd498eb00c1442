"""A run folder is of one run, and stays so when recipes learn new keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clever_hub.errors import TrainingError
from clever_training.recipe import Recipe
from clever_training.run_folder import RunFolder


def test_a_run_from_before_a_key_existed_is_the_same_run(
    tmp_path: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(tiny_recipe(), "photos/", 48)
    folder.state.touch()
    content = json.loads(folder.recipe.read_text())
    del content["recipe"]["views"]["flip"]
    folder.recipe.write_text(json.dumps(content))
    folder.claim(tiny_recipe(), "photos/", 48)
    with pytest.raises(TrainingError, match=r"other settings: views\.flip\."):
        folder.claim(tiny_recipe(views__flip=0.25), "photos/", 48)
