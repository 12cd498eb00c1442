"""A run estimate_runn: all that it is, measured, and nothing written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_training.model.build import build
from clever_training.recipe.schema import Recipe
from clever_training.run.dry_run import RunEstimate, Stage, estimate_run
from clever_training.views.sample import ViewSizes

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def estimate(photo_folder: Path, tiny_recipe: Make) -> RunEstimate:
    growth = [{"after": 0.75, "global_size": 40}]
    return estimate_run(tiny_recipe("dino", views__growth=growth), str(photo_folder))


def test_it_counts_what_the_run_would(estimate: RunEstimate) -> None:
    assert (estimate.photos, estimate.steps, estimate.views) == (48, 2 * 6, 3 * 8)
    clever = build(estimate.recipe)
    student = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in clever.student.named_children()
    }
    assert estimate.parameters["backbone"] == student["backbone"]
    assert estimate.parameters["teacher, a moving average"] == sum(student.values())
    assert [(stage.sizes, stage.share) for stage in estimate.stages] == [
        (ViewSizes(32, 24), 0.75),
        (ViewSizes(40, 24), 0.25),
    ]
    assert all(stage.step_seconds > 0 and stage.batch_seconds > 0 for stage in estimate.stages)


def test_the_report_holds_the_resolved_recipe(estimate: RunEstimate) -> None:
    text = estimate.text()
    content, _, report = text.partition("\n\n")
    assert Recipe.parse(yaml.safe_load(content)) == estimate.recipe
    for word in ("48 photos, 12 steps of 8", "views/s", "memory", "duration    about"):
        assert word in report


def test_without_the_module_resource_it_says_nothing_of_memory(
    photo_folder: Path, tiny_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    seen = estimate_run(tiny_recipe(run__max_steps=1), str(photo_folder))
    assert "peak of this process" not in seen.text()
    assert "duration    about" in seen.text()


@pytest.mark.parametrize(
    ("max_steps", "stages"),
    [(6, [(ViewSizes(32, 24), 1.0)]), (10, [(ViewSizes(32, 24), 0.9), (ViewSizes(40, 24), 0.1)])],
)
def test_a_trial_of_a_few_steps_is_estimaten_as_such(
    max_steps: int, stages: list[tuple[ViewSizes, float]], photo_folder: Path, tiny_recipe: Make
) -> None:
    growth = [{"after": 0.75, "global_size": 40}]
    recipe = tiny_recipe("dino", views__growth=growth, run__max_steps=max_steps)
    seen = estimate_run(recipe, str(photo_folder))
    assert seen.steps == max_steps
    assert [stage.sizes for stage in seen.stages] == [sizes for sizes, _ in stages]
    assert [stage.share for stage in seen.stages] == pytest.approx([share for _, share in stages])


def test_a_part_of_a_worker_is_one_more(estimate: RunEstimate) -> None:
    run = estimate.recipe.run.model_copy(update={"num_workers": 2})
    stage = Stage(ViewSizes(32, 24), 1.0, step_seconds=1.0, batch_seconds=2.4)
    recipe = estimate.recipe.model_copy(update={"run": run})
    assert (
        "--set run.num_workers=3 or more" in replace(estimate, recipe=recipe, stages=[stage]).text()
    )


@pytest.mark.parametrize(("workers", "hours"), [(0, 3.0), (1, 2.0), (4, 1.0)])
def test_duration_follows_the_slower_of_loading_and_training(
    workers: int, hours: float, estimate: RunEstimate
) -> None:
    run = estimate.recipe.run.model_copy(update={"num_workers": workers})
    stage = Stage(ViewSizes(32, 24), 1.0, step_seconds=1.0, batch_seconds=2.0)
    seen = replace(
        estimate,
        recipe=estimate.recipe.model_copy(update={"run": run}),
        stages=[stage],
        steps=3600,
    )
    assert seen.hours == pytest.approx(hours)
    assert ("--set run.num_workers=2 or more" in seen.text()) == (workers == 1)


def test_the_command_writes_nothing(
    photo_folder: Path, tiny_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    words = ["pretrain", str(path), "--data", str(photo_folder), "--dry-run"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert "duration    about" in result.stdout
    assert "not used: --output; a dry run writes nothing" in result.stderr
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--validation", "nowhere"), "nowhere"),
        (("--validation", "PHOTOS"), "PHOTOS"),
        (("--track", "tensorbord"), "--track tensorbord: expected one of"),
    ],
)
def test_the_command_refuses_what_the_run_would(
    options: tuple[str, str], message: str, photo_folder: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    words = ["pretrain", str(path), "--data", str(photo_folder), "--dry-run"]
    named = [word.replace("PHOTOS", str(photo_folder)) for word in options]
    result = CliRunner().invoke(app, [*words, *named])
    assert result.exit_code == 1
    assert message.replace("PHOTOS", str(photo_folder)) in result.stderr
    assert "duration" not in result.stdout
