"""Another method for a recipe keeps the settings that both methods take."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import pytest
import yaml

from clever_hub.errors import ConfigError
from clever_training.objectives.registry import OBJECTIVES
from clever_training.recipe.methods import OBJECTIVE_ARGUMENTS
from clever_training.recipe.reading import read_recipe


def test_the_same_method_by_name_changes_nothing() -> None:
    recipe = read_recipe("clever-dino-resnet18-tiny")
    again = read_recipe("clever-dino-resnet18-tiny", {"method": recipe.method.name})
    assert again == recipe
    assert again.method.objective_args["prototypes"] < 65_536


def test_another_method_keeps_what_it_takes_and_names_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = read_recipe("clever-dino-resnet18-tiny").method
    with caplog.at_level(logging.WARNING):
        after = read_recipe("clever-dino-resnet18-tiny", {"method": "clever-plus-dino"}).method
    assert after.objective_args == before.objective_args
    assert after.teacher_momentum == before.teacher_momentum
    assert after.transformation_weight == 1.0
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        other = read_recipe("clever-dino-resnet18-tiny", {"method": "clever-simclr"}).method
    assert other.objective_args.keys() == before.objective_args.keys() & {
        *OBJECTIVE_ARGUMENTS["simclr"]
    }
    (record,) = caplog.records
    assert "method clever-simclr does not take" in record.getMessage()
    assert "method.objective_args.prototypes" in record.getMessage()
    assert "method.teacher_momentum" in record.getMessage()


@pytest.mark.parametrize("first", [True, False], ids=["method-first", "method-last"])
def test_a_plain_method_leaves_the_split_out(first: bool, caplog: pytest.LogCaptureFixture) -> None:
    overrides = {"method.split_ratio": 0.7, "method": "vicreg"}
    if first:
        overrides = dict(reversed(overrides.items()))
    with caplog.at_level(logging.WARNING):
        method = read_recipe("clever-resnet18-tiny", overrides).method
    assert not method.equivariance
    assert method.split_ratio == 0.8
    assert "method.split_ratio" in caplog.text


def test_the_arguments_of_objectives_are_those_of_their_classes() -> None:
    found = {name: tuple(inspect.signature(kind).parameters) for name, kind in OBJECTIVES.items()}
    assert found == OBJECTIVE_ARGUMENTS


LITE0 = "clever-plus-distill-efficientnet-lite0"


@pytest.mark.parametrize("method", ["clever-distill", "distill"])
def test_another_method_that_distills_keeps_its_terms_and_teacher(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_recipe(LITE0).method
    with caplog.at_level(logging.WARNING):
        after = read_recipe(LITE0, {"method": method}).method
    assert after.name == method
    assert after.terms == before.terms
    assert [term.weight for term in after.terms] == [20]
    assert after.teacher == before.teacher
    assert after.transformation_weight == 0
    (record,) = caplog.records
    assert "method.transformation_groups, method.transformation_weight" in record.getMessage()
    assert "objectives" not in record.getMessage()
    assert "method.teacher" not in record.getMessage()
    if method == "clever-distill":
        assert after.orthogonality_weight == before.orthogonality_weight


def test_a_mixture_follows_its_first_term(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "name: mixed\n"
        "method:\n"
        "  name: clever-distill\n"
        "  teacher: {model: clever-resnet18, size: 48}\n"
        "  objectives:\n"
        "    - {name: distill, weight: 10, args: {form: contrastive, negatives: 64}}\n"
        "    - {name: simclr, weight: 2, args: {temperature: 0.3, dim: 64}}\n"
    )
    before = read_recipe(path).method
    with caplog.at_level(logging.WARNING):
        assert read_recipe(path, {"method": "clever-plus-distill"}).method.terms == before.terms
        assert not caplog.records
        # Simclr alone: what it takes is that of its term, and nothing is learned from a teacher.
        after = read_recipe(path, {"method": "clever-simclr"}).method
    assert not after.objectives
    assert after.teacher is None
    assert after.objective_args == {"temperature": 0.3, "dim": 64}
    assert "left out: method.objectives, method.teacher" in caplog.text


def test_a_second_term_that_distills_keeps_the_teacher(tmp_path: Path) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "name: mixed\n"
        "method:\n"
        "  name: clever-simclr\n"
        "  teacher: clever-resnet18\n"
        "  objectives: [{name: simclr}, {name: distill, weight: 0.5}]\n"
    )
    before, after = (read_recipe(path, o).method for o in ({}, {"method": "clever-plus-simclr"}))
    assert after.terms == before.terms
    assert after.teacher == before.teacher


def test_an_objective_of_ones_own_keeps_its_arguments(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nmethod: {name: 'mine:loss', objective_args: {scale: 2}, split_ratio: 0.7}\n"
    )
    assert read_recipe(path, {"method": "clever-mine:loss"}).method.objective_args == {"scale": 2}


@pytest.fixture
def own_objectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a function, and with a class that has no ``dim``."""
    (tmp_path / "ones_own.py").write_text(
        "def agree(views, temperature=1.0):\n    return views.var()\n\n"
        "class Whole:\n    def __init__(self, hidden_dim=8):\n        pass\n\n"
        "class Taught(Whole):\n    uses_targets = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "ones_own"


@pytest.mark.parametrize("first", [True, False], ids=["method-first", "method-last"])
def test_the_head_of_ones_own_objective_is_as_wide_as_asked(
    first: bool, own_objectives: str, caplog: pytest.LogCaptureFixture
) -> None:
    method = {"method": f"clever-{own_objectives}:agree"}
    width = {"method.objective_args.dim": 32}
    overrides = {**method, **width} if first else {**width, **method}
    with caplog.at_level(logging.WARNING):
        found = read_recipe("clever-resnet18-tiny", overrides).method
    assert found.objective == f"{own_objectives}:agree"
    assert found.objective_args == {"dim": 32}
    assert not caplog.records


def test_ones_own_objective_keeps_of_a_recipe_what_it_takes(
    own_objectives: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.yaml"
    arguments = "{dim: 16, hidden_dim: 64, temperature: 0.3}"
    path.write_text(f"{{name: mine, method: {{name: simclr, objective_args: {arguments}}}}}")
    function = read_recipe(path, {"method": f"{own_objectives}:agree"}).method
    assert function.objective_args == {"dim": 16, "hidden_dim": 64, "temperature": 0.3}
    unknown = read_recipe(path, {"method": "no_such_module:agree"}).method
    assert unknown.objective_args == {"dim": 16, "hidden_dim": 64}
    caplog.clear()
    whole = read_recipe(path, {"method": f"{own_objectives}:Whole"}).method
    assert whole.objective_args == {"hidden_dim": 64}
    assert "method.objective_args.dim, method.objective_args.temperature" in caplog.text


def test_a_class_of_ones_own_takes_what_is_said_of_its_teachers(
    own_objectives: str, caplog: pytest.LogCaptureFixture
) -> None:
    momentum = {"method.teacher_momentum": 0.9}
    with caplog.at_level(logging.WARNING):
        name = f"clever-{own_objectives}:Whole"
        whole = read_recipe("clever-resnet18-tiny", {"method": name, **momentum}).method
        assert whole.teacher_momentum == 0.9
        given = {"method": f"clever-{own_objectives}:Taught", "method.teacher": "clever-resnet18"}
        taught = read_recipe("clever-resnet18-tiny", {**given, **momentum}).method
    assert taught.teacher is not None
    assert taught.teacher.model == "clever-resnet18"
    assert "teacher" not in caplog.text
    # A function gets neither, and what a recipe has for another method goes as before.
    function = {"method": f"clever-{own_objectives}:agree", **momentum}
    assert read_recipe(LITE0, function).method.teacher is None
    assert "method.teacher, method.teacher_momentum" in caplog.text


def test_what_is_replaced_is_not_said_to_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    overrides = {"method.objective_args.prototypes": 7, "method": "clever-simclr"}
    with caplog.at_level(logging.WARNING):
        found = read_recipe("clever-dino-resnet18-tiny", overrides).method
    assert found.objective_args["prototypes"] == 7  # simclr refuses it and names what it has
    assert "method.teacher_momentum" in caplog.text
    assert "prototypes" not in caplog.text


def test_a_base_may_have_short_sections(tmp_path: Path) -> None:
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text("{name: base, backbone: resnet50, method: clever-vicreg}")
    child.write_text(
        "{base: base.yaml, backbone: {drop_path: 0.1}, method: {orthogonality_weight: 2}}"
    )
    overrides = {"backbone.drop_path": 0.1, "method.orthogonality_weight": 2}
    found, expected = read_recipe(child), read_recipe(base, overrides)
    assert found == expected
    assert (found.backbone.architecture, found.method.name) == ("resnet50", "clever-vicreg")


def test_objectives_take_the_place_of_the_one_below_and_of_its_arguments(tmp_path: Path) -> None:
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text("{name: a, method: {objective: dino, objective_args: {hidden_dim: 8}}}")
    child.write_text("{base: base.yaml, method: {objectives: [{name: simclr}, {name: vicreg}]}}")
    terms = [{"name": "simclr"}, {"name": "vicreg"}]
    for method in (
        read_recipe(child).method,
        read_recipe(base, {"method.objectives": terms}).method,
    ):
        assert [term.name for term in method.terms] == ["simclr", "vicreg"]
        assert method.objective_args == {}
    for overrides in ({}, {"method.objectives": terms}):
        with pytest.raises(ConfigError, match="objective_args: objectives take the place"):
            read_recipe(child, {"method.objective_args.dim": 8, **overrides})


def test_a_teacher_may_be_a_name_and_have_a_size(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("{name: mine, method: {name: distill, teacher: clever-resnet18}}")
    teacher = read_recipe(file, {"method.teacher.size": 96}).method.teacher
    assert teacher is not None
    assert (teacher.model, teacher.size) == ("clever-resnet18", 96)


def test_a_methods_name_decides_its_terms(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = tmp_path / "whole.yaml"
    for name in ("clever-simsiam-imagenet100", "clever-plus-distill-resnet18-tiny"):
        whole.write_text(yaml.safe_dump(read_recipe(name).model_dump(mode="json")))
        for key in ("method", "method.name"):
            assert read_recipe(whole, {key: "ddcl"}).method.regularization_weight == 0
    whole.write_text(yaml.safe_dump(read_recipe("clever-resnet18-tiny").model_dump(mode="json")))
    with caplog.at_level(logging.WARNING):
        plus = read_recipe(whole, {"method": "clever-plus-vicreg"}).method
    assert plus.transformation_weight == 1
    assert "method.transformation_weight" in caplog.text
    given = {"method": "clever-plus-vicreg", "method.transformation_weight": 3.0}
    assert read_recipe(whole, given).method.transformation_weight == 3


def test_a_childs_method_decides_its_terms(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    begin = "base: clever-plus-resnet18-tiny\nname: mine\n"
    child.write_text(begin + "method: {name: clever-vicreg}\n")
    assert read_recipe(child).method.transformation_weight == 0
    child.write_text(begin + "method: {teacher_momentum: 0.9}\n")
    base = read_recipe("clever-plus-resnet18-tiny").method
    assert read_recipe(child).method.transformation_weight == base.transformation_weight > 0
