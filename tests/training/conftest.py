"""Small real data for training tests: tiles cut from the photos that every test shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clever_training.recipe.schema import Recipe

TILE = 96


@pytest.fixture(scope="session")
def photo_folder(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 different tiles of real photos, 96 px, in an image folder."""
    folder = tmp_path_factory.mktemp("tiles")
    for name, path in photos.items():
        image = Image.open(path).convert("RGB")
        for place in range(12):
            left, top = place % 4 * 64, place // 4 * 64
            tile = image.crop((left, top, left + TILE, top + TILE))
            tile.save(folder / f"{name}-{place:02}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe() -> Callable[..., Recipe]:
    """Makes recipes of a few seconds; keyword arguments replace keys, `__` for the dots."""

    def make(objective: str = "vicreg", **changes: Any) -> Recipe:
        arguments = {
            "vicreg": {"dim": 32},
            "dino": {
                "prototypes": 64,
                "hidden_dim": 64,
                "bottleneck_dim": 32,
                "head_batch_norm": True,
            },
        }
        content: dict[str, Any] = {
            "name": "tiny",
            "image_size": 32,
            "backbone": {"architecture": "test_resnet"},
            "method": {"objective": objective, "objective_args": arguments.get(objective, {})},
            "views": {
                "strategy": "caug",
                "global_size": 32,
                "global_scale": [0.3, 1.0],
                "local_count": 1,
                "local_size": 24,
                "local_scale": [0.1, 0.3],
            },
            "optimizer": {"lr": 0.01, "warmup_epochs": 0.0},
            "run": {"epochs": 2, "batch_size": 8, "num_workers": 0, "log_steps": 1},
        }
        for dotted, value in changes.items():
            section = content
            *parents, last = dotted.split("__")
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        return Recipe.parse(content)

    return make
