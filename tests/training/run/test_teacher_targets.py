"""Runs with a frozen teacher: targets are of clean photos; a linear head starts at its optimum."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import clever_hub
from clever_hub.errors import ConfigError
from clever_training.data.embeddings import teacher_embeddings
from clever_training.data.loader import Views, batches, make_loader
from clever_training.data.orders import Order
from clever_training.data.photos import load_photos
from clever_training.recipe.schema import Recipe
from clever_training.run.dry_run import estimate_run
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.pretrain import pretrain
from clever_training.run.teacher_targets import (
    TeacherTargets,
    fit_linear,
    initialize_distillation,
    open_targets,
)
from tests.training.data.test_teacher import write_teacher

Make = Callable[..., Recipe]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEVER_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def recipe(tiny_recipe: Make, teacher_folder: Path) -> Callable[..., Recipe]:
    """A warm start: teacher and student are the same network."""

    def make(**changes: object) -> Recipe:
        method = {"name": "clever-plus-distill", "teacher": str(teacher_folder)}
        backbone = {
            "architecture": "test_resnet",
            "init": str(teacher_folder),
            "batch_norm": "frozen",
        }
        settings = {"method": method, "backbone": backbone, "optimizer__lr": 1e-3}
        return tiny_recipe(**{**settings, **changes})

    return make


def _learner(recipe: Recipe, teacher_targets: TeacherTargets | None) -> Learner:
    return Learner(recipe, make_accelerator(recipe), teacher_targets)


def test_targets_are_of_the_clean_photo_not_of_its_views(recipe: Make, photo_folder: Path) -> None:
    """Live and from the cache alike; the same photo's views would give other ones."""
    settings, photos = recipe(), load_photos(str(photo_folder))
    kept = open_targets(settings, photos, torch.device("cpu"), progress=False)
    assert kept is not None
    live = TeacherTargets(kept.teacher, None)
    views = Views(photos, settings, live.clean)
    batch = next(batches(make_loader(views, Order(settings, 48, 0, 1), 0)))
    targets = kept.for_batch(batch, torch.device("cpu"))
    torch.testing.assert_close(
        live.for_batch(batch, torch.device("cpu")), targets, rtol=2e-3, atol=1e-4
    )
    for number, target in zip(batch.numbers, targets, strict=True):
        clean = kept.teacher.embed(kept.teacher.prepare(photos.open(number))[None])
        torch.testing.assert_close(clean[0], target, rtol=2e-3, atol=1e-4)
    of_views = kept.teacher.embed(batch.crops[0][: batch.size])
    center = targets.mean(dim=0)
    assert F.cosine_similarity(of_views - center, targets - center, dim=1).mean() < 0.9


def test_a_linear_head_begins_as_the_best_predictor(recipe: Make, photo_folder: Path) -> None:
    settings, photos = recipe(), load_photos(str(photo_folder))
    teacher_targets = open_targets(settings, photos, torch.device("cpu"), progress=False)
    assert teacher_targets is not None
    learner = _learner(settings, teacher_targets)
    assert isinstance(learner.clever.student.invariant, nn.Linear)
    before = {k: v.clone() for k, v in learner.clever.student.backbone.state_dict().items()}
    cosine = initialize_distillation(
        learner.clever, settings, photos, teacher_targets, learner.normalize
    )
    # 76 of the student's 96 features predict all of them, on 48 photos.
    assert cosine is not None
    assert cosine > 0.95
    assert learner.clever.student.backbone.training
    after = learner.clever.student.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_head_is_fitted_to_what_is_linear() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 6, generator=generator) * torch.tensor([1, 2, 3, 1, 2, 3])
    planted = torch.randn(6, 4, generator=generator)
    head = nn.Linear(6, 4)
    assert fit_linear(head, features, features @ planted + 2) > 0.999
    torch.testing.assert_close(head(features), features @ planted + 2, rtol=0.1, atol=0.3)


def test_an_end_where_nothing_was_trained_is_the_start(
    recipe: Make, photo_folder: Path, tmp_path: Path, teacher_folder: Path
) -> None:
    """Frozen statistics, a rate that moves no float: the model that comes out is the one put in."""
    settings = recipe(optimizer__lr=1e-30, optimizer__final_lr=0.0, run__max_steps=3)
    model = pretrain(settings, str(photo_folder), tmp_path / "run", progress=False)
    start, end = (load_file(folder / "model.safetensors") for folder in (teacher_folder, model))
    assert start.keys() == end.keys()
    # A bias that begins at 0 is the one number that such a rate can move.
    assert max(float((end[name].double() - start[name]).abs().max()) for name in start) < 1e-25
    config = clever_hub.from_pretrained(model).config
    assert config.preprocessing.mean == (0.5, 0.5, 0.5)
    assert config.preprocessing.std == (0.25, 0.25, 0.25)
    assert config.preprocessing.interpolation == "bilinear"


@pytest.mark.parametrize("form", ["regression", "contrastive"])
def test_a_resumed_run_ends_with_the_same_weights(
    form: str, recipe: Make, photo_folder: Path, tmp_path: Path, teacher_folder: Path
) -> None:
    method = {
        "name": "clever-plus-distill",
        "teacher": {"model": str(teacher_folder), "size": 40},
        "objectives": [
            {"name": "distill", "weight": 10, "args": {"form": form, "negatives": 20}},
            {"name": "simclr", "args": {"dim": 16, "hidden_dim": 16}},
        ],
    }
    for name, stops in (("whole", [4]), ("parts", [2, 4])):
        for stop in stops:
            settings = recipe(method=method, run__max_steps=stop)
            pretrain(settings, str(photo_folder), tmp_path / name, progress=False)
    one, other = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    assert np.isfinite([json.loads(line)["loss"] for line in lines]).all()
    assert "student.invariant.heads.0.weight" in str(one.keys())


def test_a_stream_is_embedded_live(recipe: Make, photo_folder: Path, tmp_path: Path) -> None:
    import datasets

    files = [{"bytes": path.read_bytes(), "path": None} for path in sorted(photo_folder.iterdir())]
    table = datasets.Dataset.from_dict({"image": files})
    table = table.cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "train.parquet")
    for name, stops in (("whole", [3]), ("parts", [2, 3])):
        for stop in stops:
            settings = recipe(run__stream=True, run__stream_window=24, run__max_steps=stop)
            pretrain(settings, str(tmp_path / "train.parquet"), tmp_path / name, progress=False)
    one, other = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert one["module.objective.centered"] == 24
    assert not (tmp_path / "cache" / "teacher").exists()


def test_what_it_is_for_is_learned(recipe: Make, photo_folder: Path, tmp_path: Path) -> None:
    settings = recipe(run__epochs=8, run__batch_size=24)
    pretrain(settings, str(photo_folder), tmp_path / "run", progress=False)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    invariance = [json.loads(line)["invariance"] for line in lines]
    assert np.mean(invariance[-3:]) < 0.9 * np.mean(invariance[:3])


def test_a_dry_run_says_what_the_teacher_takes_and_keeps_nothing(
    recipe: Make, photo_folder: Path, cache: Path
) -> None:
    found = estimate_run(recipe(run__batch_size=24), str(photo_folder))
    assert found.teacher_seconds > 0
    assert "teacher     about" in found.text()
    assert not (cache / "teacher").exists()


def test_a_tag_names_weights_and_not_another_network(recipe: Make, photo_folder: Path) -> None:
    settings = recipe(backbone={"architecture": "test_resnet.r160_in1k"})
    photos = load_photos(str(photo_folder))
    teacher_targets = open_targets(settings, photos, torch.device("cpu"), progress=False)
    assert teacher_targets is not None
    assert teacher_targets.teacher.architecture == "test_resnet"
    assert isinstance(_learner(settings, teacher_targets).clever.student.invariant, nn.Linear)


def test_a_random_student_of_another_network_gets_an_mlp(recipe: Make, photo_folder: Path) -> None:
    settings = recipe(backbone={"architecture": "resnet18"})
    photos = load_photos(str(photo_folder))
    teacher_targets = open_targets(settings, photos, torch.device("cpu"), progress=False)
    assert teacher_targets is not None
    learner = _learner(settings, teacher_targets)
    assert isinstance(learner.clever.student.invariant, nn.Sequential)
    assert (
        initialize_distillation(
            learner.clever, settings, photos, teacher_targets, learner.normalize
        )
        is None
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("clever-distill", "teacher: distill needs one"),
        (
            {"name": "clever-simclr", "teacher": "clever-resnet18"},
            "only the objective distill learns from a teacher",
        ),
        (
            {"name": "clever-distill", "teacher": "a", "objectives": [{"name": "simclr"}]},
            "the first of objectives is 'simclr'",
        ),
    ],
)
def test_methods_that_contradict_themselves_are_refused(method: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.parse({"name": "mine", "method": method})


def test_frozen_statistics_stay_and_later_layers_learn_faster(
    recipe: Make, photo_folder: Path
) -> None:
    settings = recipe(optimizer__layer_decay=0.5, optimizer__lr=1e-3)
    photos = load_photos(str(photo_folder))
    teacher_targets = open_targets(settings, photos, torch.device("cpu"), progress=False)
    learner = _learner(settings, teacher_targets)
    scales = {group["lr_scale"] for group in learner.optimizer.param_groups}
    assert max(scales) == 1.0
    assert len(scales) > 2
    named = {id(p): name for name, p in learner.clever.student.named_parameters()}
    rate = {
        named[id(p)]: group["lr_scale"]
        for group in learner.optimizer.param_groups
        for p in group["params"]
    }
    assert len(rate) == len(named)
    assert rate["backbone.conv1.0.weight"] < rate["backbone.layer4.0.conv1.weight"] <= 1
    assert rate["invariant.weight"] == 1.0


def test_every_process_finds_what_the_others_embedded(
    recipe: Make, photo_folder: Path, cache: Path
) -> None:
    settings, photos = recipe(), load_photos(str(photo_folder))
    teacher_targets = open_targets(settings, photos, torch.device("cpu"), progress=False)
    assert teacher_targets is not None
    parts = sorted((cache / "teacher").rglob("part-*.npy"))
    assert len(parts) == 1
    teacher_embeddings(teacher_targets.teacher, photos)
    assert sorted((cache / "teacher").rglob("part-*.npy")) == parts
