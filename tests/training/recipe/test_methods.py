"""Every named method learns on real photos: ten steps lower its loss and collapse neither part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clever_hub.config import IMAGENET_MEAN, IMAGENET_STD
from clever_training.data.loader import Batch, Views, make_loader
from clever_training.data.orders import Order
from clever_training.data.photos import load_photos
from clever_training.evaluation.collapse import effective_rank, feature_std
from clever_training.model.build import build, make_optimizer
from clever_training.recipe.methods import method_names, method_settings
from clever_training.recipe.schema import Recipe

PHOTOS, STEPS = 16, 10
# The paper's other names of clever-simsiam and clever-plus-simsiam.
SYNONYMS = {"clever-ddcl", "clever-plus-ddcl"}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "dino": {"prototypes": 256, "hidden_dim": 256, "bottleneck_dim": 64, "head_batch_norm": True},
    "distill": {"hidden_dim": 128},
    "lejepa": {"dim": 32, "hidden_dim": 256, "slices": 64},
    "simclr": {"dim": 64, "hidden_dim": 256},
    "simsiam": {"dim": 256, "bottleneck_dim": 64},
    "vicreg": {"dim": 128},
}


def _recipe(method: str) -> Recipe:
    objective = method_settings(method)["objective"]
    teacher = {"teacher": "timm:test_resnet"} if objective == "distill" else {}
    return Recipe.parse(
        {
            "name": "ten-steps",
            "backbone": "resnet18",
            "method": {"name": method, "objective_args": ARGUMENTS[objective], **teacher},
            "views": {"strategy": "caug", "global_size": 32, "global_scale": (0.3, 1.0)},
            "optimizer": {"lr": 1e-3},
            "run": {"batch_size": PHOTOS},
        }
    )


@pytest.fixture(scope="module")
def batch(photo_folder: Path) -> Batch:
    """The views of 16 real photos, the same at every step and for every method."""
    recipe, photos = _recipe("dino"), load_photos(str(photo_folder))
    order = Order(recipe, len(photos), 0, 1)
    found: Batch = next(iter(make_loader(Views(photos, recipe), order, 0)))
    return found


def _normalise(crops: Tensor) -> Tensor:
    mean, std = (255 * torch.tensor(values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((crops.float() - mean) / std).permute(0, 3, 1, 2)


@pytest.mark.parametrize("method", sorted(set(method_names()) - SYNONYMS))
def test_ten_steps_lower_the_loss_and_collapse_neither_part(method: str, batch: Batch) -> None:
    recipe = _recipe(method)
    torch.manual_seed(0)
    # What the teacher of distillation says of each photo is drawn, and the same at every step.
    targets = torch.randn(PHOTOS, 64) if recipe.method.teacher else None
    clever = build(recipe, 64).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe, clever.student)
    crops = [_normalise(crop) for crop in batch.crops]
    losses, terms = [], {}
    for _ in range(STEPS):
        terms = clever(crops, batch.size, 0.04, batch.parameters, targets)
        optimizer.zero_grad()
        torch.autograd.backward(terms["loss"])
        optimizer.step()
        clever.update_teacher(0.9)
        losses.append(terms["loss"].item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < losses[0] - 0.1
    embedding = terms["embedding"]
    for part in (embedding[:, :409], embedding[:, 409:]):
        assert effective_rank(part) > PHOTOS / 4
        assert feature_std(part) > 0.3
