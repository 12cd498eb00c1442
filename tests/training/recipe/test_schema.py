"""Recipes are typed: what is unknown or ill-typed is named by its path."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from clever_hub.errors import ConfigError
from clever_training.cli.pretrain import _override
from clever_training.cli.pretrain import run as pretrain
from clever_training.model.build import build
from clever_training.objectives import objective_names
from clever_training.recipe.methods import OBJECTIVE_NAMES, method_names
from clever_training.recipe.reading import read_recipe, recipe_names
from clever_training.recipe.schema import Recipe
from clever_training.run.schedule import settings_at


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "a", "epochs": 3}, r"epochs: unknown key"),
        ({"name": "a", "run": {"epoch": 3}}, r"run\.epoch: unknown key\. Did you mean 'epochs'"),
        ({"name": "a", "views": {"global_sise": 3}}, r"views\.global_sise.*'global_size'"),
        ({"name": "a", "run": {"epochs": "many"}}, r"run\.epochs: .*number.*got 'many'"),
        ({"name": "a", "views": {"global_count": 1}}, r"views\.global_count: expected 2 views"),
        ({"name": "a", "run": {"epochs": 0}}, r"run\.epochs: .*greater than 0"),
        ({"name": "a", "run": {"epochs": float("inf")}}, r"run\.epochs: .*finite"),
        ({"name": "a", "optimizer": {"name": "adam"}}, r"optimizer\.name: .*'adamw'"),
        ({"name": "a", "views": {"global_scale": [0.9, 0.2]}}, r"global_scale: expected 0 < low"),
        ({"name": "a", "views": {"growth": [{"after": 0.5}]}}, r"views\.growth\.0\.global_size"),
        (
            {"name": "a", "views": {"growth": [{"after": 0.5, "global_size": 8, "sise": 1}]}},
            r"views\.growth\.0\.sise: unknown key\. .*global_size",
        ),
        (
            {"name": "a", "method": {"name": "distill", "teacher": {"model": "a", "sise": 1}}},
            r"method\.teacher\.sise: unknown key\. Did you mean 'size'",
        ),
        (
            {"name": "a", "method": {"objectives": [{"name": "dino", "wieght": 1}]}},
            r"method\.objectives\.0\.wieght: unknown key\. Did you mean 'weight'",
        ),
        (
            {"name": "a", "method": {"objectives": [{"name": "dino"}], "objective": "simclr"}},
            r"objective: 'simclr' would be ignored, the first of objectives is 'dino'",
        ),
        (
            {
                "name": "a",
                "method": {"objectives": [{"name": "dino"}], "objective_args": {"hidden_dim": 8}},
            },
            r"objective_args: objectives take the place",
        ),
        (
            {"name": "a", "method": {"name": "dino", "objectives": {"name": "dino"}}},
            r"method\.objectives: Input should be a valid list",
        ),
        ({"name": "a", "views": {"blur_sigma": [-2, -1]}}, r"blur_sigma: expected 0 <= low"),
        ({"name": "a", "views": {"blur_sigma": [2, 0.1]}}, r"blur_sigma: .*got \[2\.0, 0\.1\]"),
        ({"name": "a", "views": {"blur": [2, 0, 0]}}, r"views\.blur\.0: .*less than or equal to 1"),
        ({"name": "a", "views": {"jitter": [0, -1, 0, 0]}}, r"views\.jitter\.1: .*equal to 0"),
        ({"name": "a", "views": {"jitter": [1, 1, 1, 0.6]}}, r"views\.jitter\.3: .*equal to 0\.5"),
        ({"name": "a", "run": {"seed": 2**31}}, r"run\.seed: .*less than 2147483648"),
        (
            {"name": "a", "views": {"disc": 0.5, "backend": "torchvision"}},
            r"disc needs backend: fast",
        ),
        (
            {"name": "a", "views": {"rotation_probability": 0.5, "aug": "own:aug"}},
            r"rotation_probability needs backend: fast, and no aug",
        ),
        ({"name": "a", "method": "clever-dyno"}, r"method: .*'clever-dyno'.*'clever-dino'"),
        (
            {"name": "a", "method": {"name": "dino", "objective": "vicreg"}},
            r"Leave one of them out",
        ),
        (
            {"name": "a", "method": {"name": "dino", "transformation_weight": 1}},
            r"transformation_weight: this method has no equivariant part",
        ),
        (
            {"name": "a", "backbone": {"trainable": "last-0-stages"}},
            r"backbone\.trainable: .*pattern",
        ),
        ({"run": {"epochs": 3}}, r"name: Field required"),
        ({"name": "No Spaces"}, r"name: .*pattern"),
        ([1, 2], r"expected a mapping of keys, got list"),
    ],
)
def test_mistakes_are_named_by_their_path(content: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.parse(content)


def test_a_mistake_is_said_once_and_in_our_words() -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.parse({"name": "a", "method": "clever-dyno"})
    assert str(caught.value).startswith("recipe: method: 'clever-dyno' is not a method. Did you")
    assert str(caught.value).count("clever-dyno") == 1


@pytest.mark.parametrize("item", ["run.epochs", "=3", "run.epochs=[", "run.epochs={a"])
def test_an_override_that_cannot_be_read_is_named(item: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--set {item!r}: expected")):
        _override(item)


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


def test_numbers_with_an_exponent_are_numbers_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "{name: a, optimizer: {lr: 1e-2}, method: {name: simclr,\n"
        " objective_args: {temperature: 1e-1, dim: 32}}}"
    )
    recipe = read_recipe(path, dict([_override("method.objective_args.dim=1e2")]))
    assert recipe.method.objective_args == {"temperature": 0.1, "dim": 100.0}
    assert recipe.optimizer.lr == 0.01


def test_schedules_that_do_not_fit_are_remarked_upon() -> None:
    recipe = Recipe.parse({"name": "a", "method": "dino", "run": {"epochs": 0.65}})
    assert [warning.partition(":")[0] for warning in recipe.warnings()] == [
        "optimizer.warmup_epochs",
        "method.freeze_last_layer_epochs",
    ]
    for name in recipe_names():
        assert read_recipe(name).warnings() == []


def test_overrides_replace_keys_by_dotted_path() -> None:
    recipe = read_recipe("clever-resnet18-tiny", {"run.epochs": 7, "views.strategy": "baug"})
    assert recipe.run.epochs == 7
    assert recipe.views.strategy == "baug"


@pytest.mark.parametrize(
    ("name", "objective", "equivariance", "regularization", "transformation"),
    [
        ("dino", "dino", False, 0.001, 0),
        ("clever-dino", "dino", True, 0.001, 0),
        ("clever-plus-dino", "dino", True, 0.001, 1),
        ("ddcl", "simsiam", True, 0, 0),
        ("clever-ddcl", "simsiam", True, 0.001, 0),
        ("clever-simsiam", "simsiam", True, 0.001, 0),
        ("clever-plus-lejepa", "lejepa", True, 0.001, 1),
        ("clever-mine.losses:spread", "mine.losses:spread", True, 0.001, 0),
    ],
)
def test_methods_are_composed_by_name(
    name: str, objective: str, equivariance: bool, regularization: float, transformation: float
) -> None:
    method = Recipe.parse({"name": "a", "method": name}).method
    assert (method.objective, method.equivariance) == (objective, equivariance)
    assert method.regularization_weight == regularization
    assert method.transformation_weight == transformation
    assert method.name == name
    assert method == Recipe.parse({"name": "a", "method": method.model_dump()}).method


def test_a_method_of_several_objectives_is_named_and_stored_as_its_first() -> None:
    terms = [{"name": "simclr", "weight": 2.0}, {"name": "vicreg"}]
    recipe = Recipe.parse({"name": "a", "method": {"objectives": terms}})
    assert (recipe.method.name, recipe.method.objective) == ("clever-simclr", "simclr")
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


def test_every_objective_has_a_name_as_a_method() -> None:
    assert list(OBJECTIVE_NAMES) == objective_names()
    for name in method_names():
        method = {"name": name, **({"teacher": "a"} if "distill" in name else {})}
        assert Recipe.parse({"name": "a", "method": method}).method.objective in OBJECTIVE_NAMES


def test_a_named_method_keeps_what_is_set_beside_it() -> None:
    method = Recipe.parse({"name": "a", "method": {"name": "ddcl", "split_ratio": 0.5}}).method
    assert (method.split_ratio, method.regularization_weight) == (0.5, 0)
    assert Recipe.parse({"name": "a", "method": {"objective": "vicreg"}}).method.name == (
        "clever-vicreg"
    )


def test_strings_and_dotted_overrides_go_together(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("{name: r, method: clever-dino, backbone: resnet50}")
    changes = {"method.split_ratio": 0.7, "backbone.drop_path": 0.1}
    recipe = read_recipe(path, changes)
    assert (recipe.method.name, recipe.method.split_ratio) == ("clever-dino", 0.7)
    assert (recipe.backbone.architecture, recipe.backbone.drop_path) == ("resnet50", 0.1)
    assert read_recipe(path, {"method": "simclr"}).method.objective == "simclr"


def test_a_recipe_is_laid_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "{name: base, run: {epochs: 7, seed: 3}, views: {global_scale: [0.2, 1.0]}}"
    )
    child = tmp_path / "child.yaml"
    child.write_text("{base: base.yaml, name: child, run: {epochs: 2}}")
    recipe = read_recipe(child, {"run.batch_size": 8})
    assert (recipe.name, recipe.run.epochs, recipe.run.seed) == ("child", 2, 3)
    assert (recipe.views.global_scale, recipe.run.batch_size) == ((0.2, 1.0), 8)
    (tmp_path / "base.yaml").write_text("{base: child.yaml}")
    with pytest.raises(ConfigError, match=r"circle: child\.yaml -> base\.yaml -> child\.yaml"):
        read_recipe(child)
    child.write_text("{base: clever-resnet18-tyni, name: child}")
    with pytest.raises(ConfigError, match="clever-resnet18-tiny"):
        read_recipe(child)


def test_the_help_names_every_shipped_recipe() -> None:
    named = re.findall(r"`([a-z0-9-]+)`", pretrain.__doc__ or "")
    assert set(recipe_names()) <= set(named)
    assert "clever-plus-simclr" in set(named) & set(method_names())


def _opening(name: str) -> str:
    folder = Path(str(files("clever_training") / "recipes"))
    return (folder / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_builds_and_opens_with_what_it_is(name: str) -> None:
    # What a warm start begins from is not here; no embedding of a teacher is longer.
    recipe = read_recipe(name).with_random_start()
    assert build(recipe, 1280).student.invariant_dim < 4096
    for field in ("Reproduces:", "Command:", "Hardware:", "Run time:", "Expected:"):
        assert f"# {field}" in _opening(name), field
    command = re.search(r"clever-hub pretrain (\S+)", _opening(name))
    assert command is not None
    assert command[1] == name


@pytest.mark.parametrize("ratio", [0.0019, 1 - 1e-12])
def test_a_split_that_leaves_a_part_empty_is_refused_before_the_run(ratio: float) -> None:
    method = {"name": "clever-simclr", "split_ratio": ratio}
    with pytest.raises(ConfigError, match=r"method\.split_ratio: .* of 512 .* a part empty"):
        build(Recipe.parse({"name": "a", "method": method}))


@pytest.mark.parametrize(
    ("backbone", "features", "drop_path"),
    [
        ({}, 384, 0.1),
        ({"backbone.architecture": "vit_tiny_patch16_224"}, 192, 0.1),
        ({"backbone": "resnet18"}, 512, 0.0),
        ({"backbone": "resnet50"}, 2048, 0.0),
    ],
)
@pytest.mark.parametrize("method", ["dino", "clever-dino"])
def test_one_file_has_every_row_of_the_papers_table(
    backbone: dict[str, Any], features: int, drop_path: float, method: str
) -> None:
    # The heads' size is that of the published run; 64 prototypes build faster.
    changes = {**backbone, "method.name": method, "method.objective_args.prototypes": 64}
    assert read_recipe("clever-dino-imagenet100").method.objective_args["prototypes"] == 65536
    for strategy in ("baug", "caug", "caug+"):
        recipe = read_recipe("clever-dino-imagenet100", {**changes, "views.strategy": strategy})
        assert recipe.views.strategy == strategy
    assert recipe.backbone.drop_path == drop_path
    clever = build(recipe)
    assert clever.student.invariant_dim == (features * 4 // 5 if method[0] == "c" else features)
    with torch.no_grad():
        local = clever.student.backbone.eval()(torch.zeros(1, 3, 96, 96))
    assert local.shape == (1, features)


@pytest.mark.parametrize(
    ("name", "changes", "features"),
    [
        ("clever-resnet18-tiny", {}, 512),
        ("clever-resnet50-tiny", {}, 2048),
        ("clever-vit-tiny-tiny", {}, 192),
        ("clever-vit-tiny-tiny", {"backbone.architecture": "vit_small_patch16_224"}, 384),
    ],
)
def test_the_papers_backbones_have_recipes_at_64_pixels(
    name: str, changes: dict[str, Any], features: int
) -> None:
    recipe = read_recipe(name, {**changes, "method.objective_args.dim": 16})
    assert recipe.image_size == 64
    backbone = build(recipe).student.backbone.eval()
    for size in (64, recipe.views.global_size):
        with torch.no_grad():
            assert backbone(torch.zeros(1, 3, size, size)).shape == (1, features)


@pytest.mark.parametrize("method", ["simsiam", "ddcl", "clever-ddcl"])
def test_one_file_has_simsiam_ddcl_and_clever_ddcl(method: str) -> None:
    recipe = read_recipe("clever-simsiam-imagenet100", {"method.name": method})
    assert recipe.method.name == method
    assert (recipe.method.objective, recipe.views.global_scale) == ("simsiam", (0.2, 1.0))
    assert recipe.method.equivariance == (method != "simsiam")
    steps_per_epoch = 10
    settings = settings_at(recipe, 30 * steps_per_epoch, steps_per_epoch)
    assert settings.lr == pytest.approx(0.05 * 512 / 256)


def test_clever_dino_and_its_baseline_differ_in_the_method_alone() -> None:
    ours, baseline = (
        read_recipe(name).model_dump()
        for name in ("clever-dino-resnet18-tiny", "dino-resnet18-tiny")
    )
    different = {key for key in ours if ours[key] != baseline[key]}
    assert different == {"name", "method"}
    keys = {key for key in ours["method"] if ours["method"][key] != baseline["method"][key]}
    assert keys == {"name", "equivariance"}
