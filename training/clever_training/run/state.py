"""The progress of a run: the counters beside the tensors in its state file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.parameters import PARAMETER_NAMES

_ANGLE = PARAMETER_NAMES.index("angle")


@dataclass
class RunState:
    """The progress of a run; a new run begins with the defaults.

    Attributes:
        step: Steps done.
        seconds: Seconds spent on them, over all starts of the run.
        start: Where the backbone's first weights came from, as ``start_backbone`` says it; None
            in states of runs that did not record it.
        stream: Position of each process in a stream; None where photos are picked by number.
        angle: The largest angle of a view that the first process has seen, in degrees, in [0, 180];
            None where the recipe tells how views are turned.

    Example:
        >>> RunState.from_json({"step": 3, "seconds": 1.5, "start": {"init": "timm"}}).step
        3
    """

    step: int = 0
    seconds: float = 0.0
    start: dict[str, Any] | None = None
    stream: list[dict[str, Any]] | None = None
    angle: float | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RunState:
        """Read the counters of a state file; missing ones get their defaults."""
        known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """The counters for a state file; those that are None are left out."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def see(self, recipe: ViewsRecipe, parameters: Float[Tensor, "batch views numbers"]) -> None:
        """Keep the largest angle of the views that a step was made with, if they are one's own.

        Args:
            recipe: Of the views.
            parameters: How each view was made; NaN where an augmentation does not tell.

        Example:
            >>> state, parameters = RunState(), torch.zeros(1, 2, len(PARAMETER_NAMES))
            >>> parameters[0, 1, PARAMETER_NAMES.index("angle")] = math.radians(330)
            >>> state.see(ViewsRecipe(aug="mine:augment"), parameters)
            >>> round(state.angle)
            30
        """
        if recipe.aug is None:
            return
        angles = parameters[..., _ANGLE].nan_to_num(0.0).double()
        turned = torch.atan2(angles.sin(), angles.cos()).abs().max()
        self.angle = max(self.angle or 0.0, math.degrees(float(turned)))
