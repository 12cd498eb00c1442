"""What an invariance objective gives to CLeVER: heads, its own term, and what is orthogonal."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Projections:
    """What the heads say of one part of the embedding.

    Attributes:
        student: Every view, global ones first, (views, batch, dim), float32.
        teacher: The global views by the teacher, (globals, batch, dim), float32, without gradient;
            None for objectives without a teacher.
    """

    student: Float[Tensor, "views batch dim"]
    teacher: Float[Tensor, "globals batch dim"] | None = None


class Objective(nn.Module):
    """An invariance term, with whatever state it keeps between steps as buffers.

    Attributes:
        uses_teacher: Whether it needs an exponential moving average of the student.
    """

    uses_teacher: ClassVar[bool] = False

    @abstractmethod
    def make_head(self, in_dim: int) -> nn.Module:
        """A projection head for a part of the embedding of length ``in_dim``."""

    @abstractmethod
    def invariance(self, projections: Projections, temperature: float) -> Float[Tensor, ""]:
        """The term that makes the views of one photo agree, on the invariant part.

        Args:
            projections: What the invariant part's heads say.
            temperature: The teacher's temperature at this step; unused without a teacher.
        """

    @abstractmethod
    def equivariant_views(
        self, projections: Projections, temperature: float
    ) -> tuple[Float[Tensor, "views batch dim"], Float[Tensor, "targets batch dim"]]:
        """The vectors of the equivariant part that orthogonality compares.

        Args:
            projections: What the equivariant part's heads say.
            temperature: The teacher's temperature at this step.

        Returns:
            Views and targets, as ``orthogonality_loss`` takes them.
        """

    @torch.no_grad()
    def update(self, invariant: Projections, equivariant: Projections | None) -> None:
        """Change the state after a step's losses have been taken; does nothing by default."""
