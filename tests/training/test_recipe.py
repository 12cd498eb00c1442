"""Recipes are typed: what is unknown or ill-typed is named by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from clever_hub.errors import ConfigError
from clever_training.pretrain import build
from clever_training.recipe import Recipe, read_recipe, recipe_names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "a", "epochs": 3}, r"epochs: unknown key"),
        ({"name": "a", "run": {"epoch": 3}}, r"run\.epoch: unknown key\. Did you mean 'epochs'"),
        ({"name": "a", "views": {"global_sise": 3}}, r"views\.global_sise.*'global_size'"),
        ({"name": "a", "run": {"epochs": "many"}}, r"run\.epochs: .*integer.*got 'many'"),
        ({"name": "a", "optimizer": {"name": "adam"}}, r"optimizer\.name: .*'adamw'"),
        ({"name": "a", "views": {"global_scale": [0.9, 0.2]}}, r"global_scale: expected 0 < low"),
        ({"name": "a", "views": {"growth": [{"after": 0.5}]}}, r"views\.growth\.0\.global_size"),
        (
            {"name": "a", "views": {"growth": [{"after": 0.5, "global_size": 8, "sise": 1}]}},
            r"views\.growth\.0\.sise: unknown key",
        ),
        ({"run": {"epochs": 3}}, r"name: Field required"),
        ({"name": "No Spaces"}, r"name: .*pattern"),
        ([1, 2], r"expected a mapping of keys, got list"),
    ],
)
def test_mistakes_are_named_by_their_path(content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.parse(content)


def test_every_mistake_is_listed_at_once() -> None:
    with pytest.raises(ConfigError, match=r"run\.a: .*run\.b: "):
        Recipe.parse({"name": "x", "run": {"a": 1, "b": 2}})


def test_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="clever-resnet18-tiny"):
        read_recipe("clever-resnet18-tiney")


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("name: [")
    with pytest.raises(ConfigError, match=r"r\.yaml: not YAML"):
        read_recipe(path)


def test_overrides_replace_keys_by_dotted_path() -> None:
    recipe = read_recipe("clever-resnet18-tiny", {"run.epochs": 7, "views.strategy": "baug"})
    assert recipe.run.epochs == 7
    assert recipe.views.strategy == "baug"


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_builds(name: str) -> None:
    recipe = read_recipe(name)
    assert build(recipe).student.invariant_dim < 4096
