"""Settings of a step, against the published schedules."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clever_training.recipe.schema import Recipe
from clever_training.run.schedule import settings_at


def _dino() -> Recipe:
    return Recipe.parse(
        {
            "name": "dino",
            "method": {
                "warmup_teacher_temperature": 0.04,
                "teacher_temperature": 0.07,
                "warmup_teacher_temperature_epochs": 5,
            },
            "optimizer": {"weight_decay": 0.04, "weight_decay_end": 0.4},
            "run": {"epochs": 20, "batch_size": 512},
        }
    )


def test_learning_rate_warms_up_and_then_is_the_published_array() -> None:
    """After the warm-up DINO's cosine_scheduler; its np.linspace is steeper by one step."""
    steps, total, warmup = 10, 200, 100
    base, final = 5e-4 * 512 / 256, 1e-6
    after = np.arange(total - warmup)
    cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * after / len(after)))
    found = [settings_at(_dino(), step, steps).lr for step in range(total)]
    np.testing.assert_allclose(found[warmup:], cosine)
    np.testing.assert_allclose(found[:warmup], base * np.arange(warmup) / warmup)
    published = np.linspace(0, base, warmup)
    np.testing.assert_allclose(found[:warmup], published * (warmup - 1) / warmup)


def test_decay_and_momentum_follow_cosines() -> None:
    middle = settings_at(_dino(), 100, 10)
    assert middle.weight_decay == pytest.approx((0.04 + 0.4) / 2)
    assert middle.teacher_momentum == pytest.approx((0.996 + 1) / 2)
    assert math.isclose(settings_at(_dino(), 0, 10).weight_decay, 0.04)


def test_temperature_warms_up_by_epoch_as_linspace() -> None:
    found = [settings_at(_dino(), epoch * 10, 10).temperature for epoch in range(8)]
    np.testing.assert_allclose(found, [*np.linspace(0.04, 0.07, 5), 0.07, 0.07, 0.07])


def test_last_layer_keeps_still_in_the_first_epoch_only() -> None:
    assert settings_at(_dino(), 9, 10).freeze_last_layer
    assert not settings_at(_dino(), 10, 10).freeze_last_layer
