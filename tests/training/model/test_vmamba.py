"""VMamba is trained, frozen and fine-tuned as timm's backbones are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.drop import DropPath

import clever_hub
from clever_training.model.backbones import create_backbone
from clever_training.model.build import build, make_optimizer
from clever_training.recipe.reading import read_recipe
from clever_training.recipe.schema import Recipe
from clever_training.run.pretrain import pretrain

Make = Callable[..., Recipe]
SMALL: dict[str, Any] = {
    "architecture": "vmamba_tiny",
    "model_args": {"depths": [1, 1, 1, 1], "dims": [16, 32, 48, 64]},
}


@pytest.mark.parametrize("objective", ["simclr", "vicreg", "dino"])
def test_ten_steps_on_real_photos_lower_the_loss(
    objective: str, tiny_imagenet: Path, tiny_recipe: Make, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        objective,
        image_size=64,
        backbone=SMALL | {"drop_path": 0.1, "gradient_checkpointing": objective == "dino"},
        method__freeze_last_layer_epochs=0,
        optimizer__name="adamw",
        optimizer__lr=0.002,
        run__max_steps=10,
        run__batch_size=32,
    )
    folder = pretrain(recipe, str(tiny_imagenet / "train.parquet"), tmp_path, progress=False)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < np.mean(losses[:3]), losses
    model = clever_hub.from_pretrained(folder)
    assert model.config.architecture == "vmamba_tiny"
    assert (model.config.num_features, model.config.invariant_dim) == (64, 51)


def test_only_the_student_drops_paths(tiny_recipe: Make) -> None:
    clever = build(tiny_recipe("dino", backbone=SMALL | {"drop_path": 0.3}))
    assert clever.teacher is not None

    def rates(branch: torch.nn.Module) -> list[float]:
        return [m.drop_prob or 0.0 for m in branch.modules() if isinstance(m, DropPath)]

    np.testing.assert_allclose(rates(clever.student), [0, 0.1, 0.2, 0.3])
    assert rates(clever.teacher) == [0, 0, 0, 0]


def test_its_last_stages_can_learn_alone(tiny_recipe: Make) -> None:
    clever = build(tiny_recipe(backbone=SMALL | {"trainable": "last-2-stages"}))
    learning = {n for n, p in clever.student.backbone.named_parameters() if p.requires_grad}
    assert {name.partition(".blocks")[0] for name in learning if ".blocks" in name} == {
        "layers.2",
        "layers.3",
    }
    assert "classifier.norm.weight" in learning
    assert not any(name.startswith(("patch_embed", "layers.0", "layers.1")) for name in learning)


def test_time_scales_are_not_decayed(tiny_recipe: Make) -> None:
    recipe = tiny_recipe(backbone=SMALL)
    student = build(recipe).student
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    groups = make_optimizer(recipe, student).param_groups
    decayed = {names[id(p)] for group in groups if group["decayed"] for p in group["params"]}
    assert "backbone.layers.0.blocks.0.op.x_proj_weight" in decayed
    assert not any(name.endswith(("A_logs", "Ds", "dt_projs_bias")) for name in decayed)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_the_recipe_of_the_published_row() -> None:
    changes = {"method.objective_args.prototypes": 64}
    clever = build(read_recipe("clever-dino-vmamba-imagenet100", changes))
    backbone = clever.student.backbone
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 29_480_064
    assert clever.student.invariant_dim == 614
    rates = [m.drop_prob or 0.0 for m in backbone.modules() if isinstance(m, DropPath)]
    assert max(rates) == pytest.approx(0.2)


def test_both_sizes_of_the_paper() -> None:
    backbone: Any = create_backbone("vmamba_tiny", SMALL["model_args"]).eval()
    with torch.no_grad():
        for size in (96, 224):
            assert backbone(torch.zeros(1, 3, size, size)).shape == (1, 64)
