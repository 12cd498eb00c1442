"""What a run tells while it goes: also in TensorBoard, and refused where there is no such thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clever_hub.errors import ConfigError
from clever_training.recipe.schema import Recipe
from clever_training.run.pretrain import pretrain
from clever_training.run.recording import check_trackers


def test_tensorboard_has_the_figures_of_metrics_jsonl(
    photo_folder: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = tiny_recipe(run__max_steps=3)
    pretrain(recipe, str(photo_folder), tmp_path, track=["tensorboard"], progress=False)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    reader = EventAccumulator(str(events))
    reader.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "orthogonality", "std_equivariant", "rank_invariant", "lr"):
        scalars = [(event.step, event.value) for event in reader.Scalars(name)]
        assert scalars == [(n["step"], pytest.approx(n[name], rel=1e-6)) for n in lines], name


def test_trackers_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--track mlflow: expected one of tensorboard, wandb"):
        check_trackers(["mlflow"])
    monkeypatch.setattr("clever_training.run.recording.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="trackio is not installed: pip install trackio"):
        check_trackers(["trackio"])
