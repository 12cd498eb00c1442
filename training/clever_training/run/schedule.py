"""The schedule: learning rate, weight decay, teacher momentum and temperature of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clever_training.recipe.schema import Recipe


@dataclass(frozen=True)
class StepSettings:
    """The settings of one step.

    Attributes:
        lr: Learning rate.
        weight_decay: Weight decay of matrices; biases and norms have none.
        teacher_momentum: m of the teacher's update after the step.
        temperature: τ_t, the teacher's temperature.
        freeze_last_layer: Whether the last layers of DINO's heads are frozen.
    """

    lr: float
    weight_decay: float
    teacher_momentum: float
    temperature: float
    freeze_last_layer: bool


def settings_at(recipe: Recipe, step: int, steps_per_epoch: int) -> StepSettings:
    """The settings of a step, as published for DINO but for the warm-up of the learning rate.

    The learning rate warms up linearly from 0, then follows a cosine. Its warm-up is base · step /
    warm-up steps, which comes to base at the first step of the cosine; DINO's is an np.linspace,
    which has come to it one step earlier, so that two steps in a row have it. Weight decay and
    momentum follow cosines. The temperature warms up linearly, epoch by epoch.

    Args:
        recipe: The run's recipe.
        step: Number of the step, from 0.
        steps_per_epoch: Steps in a pass through the data.

    Returns:
        The settings.

    Example:
        >>> recipe = Recipe.parse({"name": "mine", "optimizer": {"lr": 0.1, "warmup_epochs": 1}})
        >>> settings_at(recipe, 50, 100).lr
        0.05
    """
    optimizer, method = recipe.optimizer, recipe.method
    total = recipe.total_steps(steps_per_epoch)
    base = optimizer.lr * recipe.run.batch_size / 256
    warmup = optimizer.warmup_epochs * steps_per_epoch
    if step < warmup:
        lr = base * step / warmup
    else:
        lr = _cosine(base, optimizer.final_lr, (step - warmup) / max(1.0, total - warmup))
    end = optimizer.weight_decay_end
    epoch = step // steps_per_epoch
    heat = method.warmup_teacher_temperature_epochs
    # As np.linspace over the warm-up epochs: the last of them already has the final temperature.
    share = min(1.0, epoch / max(1.0, heat - 1)) if heat > 1 else 1.0
    return StepSettings(
        lr=lr,
        weight_decay=_cosine(
            optimizer.weight_decay, optimizer.weight_decay if end is None else end, step / total
        ),
        teacher_momentum=_cosine(method.teacher_momentum, 1.0, step / total),
        temperature=method.warmup_teacher_temperature
        + share * (method.teacher_temperature - method.warmup_teacher_temperature),
        freeze_last_layer=epoch < method.freeze_last_layer_epochs,
    )


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
