"""The interface of an invariance objective: its heads, its loss and its state."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clever_hub.errors import ConfigError
from clever_training.objectives.equivariance import (
    cosine_matrix,
    mean_of_pairs,
    projector_regularization,
)
from clever_training.runtime.gathering import average


@dataclass(frozen=True)
class Projections:
    """The heads' outputs for one part of the embedding of this process's photos.

    Attributes:
        student: The student's output for every view, global ones first, (views, batch, dim),
            float32.
        teacher: The teacher's output for the global views, (globals, batch, dim), float32, without
            gradient; None for objectives without a teacher.
        global_count: Number of global views.
        targets: A frozen teacher's embeddings of the photos, clean and whole, (batch, target dim),
            float32; None for objectives without them.
    """

    student: Float[Tensor, "views batch dim"]
    teacher: Float[Tensor, "globals batch dim"] | None = None
    global_count: int = 2
    targets: Float[Tensor, "batch target_dim"] | None = None


def check_gradient(loss: Tensor, projections: Projections, name: str) -> None:
    """Refuse a term from which nothing would be learned while the other terms train on.

    Args:
        loss: The term.
        projections: What it was computed from.
        name: The objective's, for the error.

    Raises:
        ConfigError: When the term has no gradient although the student's outputs have one.
    """
    if torch.is_grad_enabled() and projections.student.requires_grad and not loss.requires_grad:
        raise ConfigError(
            f"method.objective: {name} should return a loss with a gradient, and got views that "
            "have one, but returned a tensor without. Compute it from the views by torch alone: "
            "detach(), item(), numpy(), torch.tensor() and no_grad() cut the gradient off"
        )


class Objective(nn.Module):
    """An invariance term; state between steps is kept in buffers.

    Every term must be that of the *whole* batch, the same in each process; the functions of
    ``runtime.gathering`` do this. The gradients of the processes are averaged afterwards.

    Attributes:
        uses_teacher: Whether it needs a teacher, an exponential moving average of the student.
        uses_targets: Whether it needs a frozen teacher's embeddings of the photos.
    """

    uses_teacher: bool = False
    uses_targets: bool = False

    @abstractmethod
    def make_head(self, in_dim: int) -> nn.Module:
        """A projection head for a part of the embedding of length ``in_dim``."""

    def make_equivariant_head(self, in_dim: int) -> nn.Module:
        """The head of the equivariant part, of length ``in_dim``; by default of the same kind."""
        return self.make_head(in_dim)

    @abstractmethod
    def invariance(self, projections: Projections, temperature: float) -> Float[Tensor, ""]:
        """The term that makes the views of one photo agree, on the invariant part.

        Args:
            projections: Outputs of the invariant part's heads.
            temperature: The teacher's temperature at this step; not used without a teacher.
        """

    def orthogonality(
        self,
        projections: Projections,
        temperature: float,  # noqa: ARG002 -- for objectives with a teacher
    ) -> Float[Tensor, ""]:
        """L_Orth on the equivariant part: by default between the projected vectors of all views.

        Args:
            projections: Outputs of the equivariant part's heads.
            temperature: The teacher's temperature at this step.
        """
        matrix = cosine_matrix(projections.student, projections.student)
        return mean_of_pairs(average(matrix).abs())

    def regularization(self, invariant: nn.Module, equivariant: nn.Module) -> Float[Tensor, ""]:
        """L_PReg between the student's heads of the two parts."""
        return projector_regularization(invariant, equivariant)

    @torch.no_grad()
    def update(self, invariant: Projections, equivariant: Projections | None) -> None:
        """Update the state after a step's losses were computed; does nothing by default."""
