"""The objectives that a recipe can name, wrapped around their pure functions."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from clever_hub.errors import ConfigError, suggest
from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.dino import dino_loss, sharpen, update_center
from clever_training.objectives.vicreg import vicreg_loss
from clever_training.projectors import DinoHead, Expander


class Dino(Objective):
    """DINO: the student predicts the teacher's prototypes from another view.

    Args:
        prototypes: K of both heads; 65536 as published.
        hidden_dim: Width of the heads' hidden layers.
        bottleneck_dim: Length of the heads' normalised vector.
        head_batch_norm: BatchNorm in the heads, as DINO has for ResNets.
        student_temperature: τ_s.
        center_momentum: How much of the old centre stays at each step.
    """

    uses_teacher: ClassVar[bool] = True
    center_ir: Tensor
    center_ef: Tensor

    def __init__(
        self,
        prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        head_batch_norm: bool = False,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.head_args = (prototypes, hidden_dim, bottleneck_dim, head_batch_norm)
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center_ir", torch.zeros(1, prototypes))
        self.register_buffer("center_ef", torch.zeros(1, prototypes))

    def make_head(self, in_dim: int) -> nn.Module:
        """A ``DinoHead``."""
        return DinoHead(in_dim, *self.head_args)

    def invariance(self, projections: Projections, temperature: float) -> Tensor:
        """Cross-entropy with the teacher."""
        assert projections.teacher is not None
        return dino_loss(
            F.log_softmax(projections.student / self.student_temperature, dim=-1),
            sharpen(projections.teacher, self.center_ir, temperature),
        )

    def equivariant_views(
        self, projections: Projections, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Probabilities over the prototypes, as the paper compares them."""
        assert projections.teacher is not None
        return (
            F.softmax(projections.student / self.student_temperature, dim=-1),
            sharpen(projections.teacher, self.center_ef, temperature),
        )

    @torch.no_grad()
    def update(self, invariant: Projections, equivariant: Projections | None) -> None:
        """Move the centres towards the teacher's mean output over all processes."""
        for center, part in ((self.center_ir, invariant), (self.center_ef, equivariant)):
            if part is not None and part.teacher is not None:
                mean = _mean_over_processes(part.teacher.mean(dim=(0, 1)).unsqueeze(0))
                center.copy_(update_center(center, mean, self.center_momentum))


class Vicreg(Objective):
    """VICReg: views agree, dimensions vary and do not repeat each other.

    Args:
        dim: Length of the expanded vectors; 8192 in the paper.
        hidden_dim: Width of the expander's hidden layers; ``dim`` when None.
        invariance_weight: λ of the paper.
        variance_weight: μ of the paper.
        covariance_weight: ν of the paper.
    """

    def __init__(
        self,
        dim: int = 8192,
        hidden_dim: int | None = None,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.dim, self.hidden_dim = dim, hidden_dim
        self.weights = (invariance_weight, variance_weight, covariance_weight)

    def make_head(self, in_dim: int) -> nn.Module:
        """An ``Expander``."""
        return Expander(in_dim, self.dim, self.hidden_dim)

    def invariance(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """The three terms of VICReg."""
        return vicreg_loss(projections.student, *self.weights)

    def equivariant_views(
        self,
        projections: Projections,
        temperature: float,  # noqa: ARG002 -- the interface's
    ) -> tuple[Tensor, Tensor]:
        """The expanded vectors themselves, each view against each other, gradient on both sides."""
        return projections.student, projections.student


OBJECTIVES: dict[str, type[Objective]] = {"dino": Dino, "vicreg": Vicreg}


def objective_names() -> list[str]:
    """The names a recipe can give as ``method.objective``, sorted."""
    return sorted(OBJECTIVES)


def make_objective(name: str, arguments: dict[str, Any]) -> Objective:
    """Build an objective by name.

    Args:
        name: One of ``objective_names()``.
        arguments: Keyword arguments of its class; what is left out keeps its published value.

    Returns:
        The objective.

    Raises:
        ConfigError: When the name or an argument is unknown.

    Example:
        >>> make_objective("vicreg", {"dim": 512}).uses_teacher
        False
    """
    if name not in OBJECTIVES:
        hint = suggest(name, OBJECTIVES)
        raise ConfigError(f"method.objective: {name!r} is not an objective. {hint}")
    known = inspect.signature(OBJECTIVES[name]).parameters
    for key in arguments:
        if key not in known:
            hint = suggest(key, known)
            raise ConfigError(f"method.objective_args.{key}: {name} has no such argument. {hint}")
    try:
        return OBJECTIVES[name](**arguments)
    except TypeError as error:
        raise ConfigError(f"method.objective_args: {name} refuses {arguments}: {error}") from error


def _mean_over_processes(value: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value
