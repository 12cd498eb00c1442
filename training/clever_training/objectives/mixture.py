"""A weighted sum of several invariance terms, each with a head of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from clever_training.objectives.base import Objective, Projections, check_gradient


class SideBySide(nn.Module):
    """Heads on the same part of the embedding, with concatenated outputs.

    Args:
        heads: The heads.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """The projections of all heads, (batch, sum of widths)."""
        return torch.cat([head(features) for head in self.heads], dim=-1)


class Mixture(Objective):
    """A weighted sum of invariance terms.

    The equivariant part has a single head; its kind, the orthogonality and the regularisation are
    those of the first objective.

    Args:
        objectives: The terms.
        weights: The weight of each term.

    Example:
        >>> from clever_training.objectives.simclr import Simclr
        >>> from clever_training.objectives.vicreg import Vicreg
        >>> mixture = Mixture([Simclr(dim=8), Vicreg(dim=16)], [10.0, 1.0])
        >>> mixture.make_head(4)(torch.zeros(2, 4)).shape
        torch.Size([2, 24])
    """

    def __init__(self, objectives: Sequence[Objective], weights: Sequence[float]) -> None:
        super().__init__()
        self.objectives = nn.ModuleList(objectives)
        self.weights = list(weights)
        self._widths: list[int] = []
        self.uses_teacher = any(part.uses_teacher for part in objectives)
        self.uses_targets = any(part.uses_targets for part in objectives)

    @property
    def first(self) -> Objective:
        """The objective that defines the terms of the equivariant part."""
        found = self.objectives[0]
        assert isinstance(found, Objective)
        return found

    def make_head(self, in_dim: int) -> nn.Module:
        """The heads of all objectives."""
        heads = [part.make_head(in_dim) for part in self._parts()]
        self._widths = [_width(head, in_dim) for head in heads]
        return SideBySide(heads)

    def make_equivariant_head(self, in_dim: int) -> nn.Module:
        """A head of the first objective."""
        return self.first.make_equivariant_head(in_dim)

    def invariance(self, projections: Projections, temperature: float) -> Tensor:
        """The weighted sum of the terms."""
        terms = []
        for part, weight, share in zip(
            self._parts(), self.weights, self._shares(projections), strict=True
        ):
            term = part.invariance(share, temperature)
            check_gradient(term, share, type(part).__name__)
            terms.append(weight * term)
        return torch.stack(terms).sum()

    def orthogonality(self, projections: Projections, temperature: float) -> Tensor:
        """The orthogonality term of the first objective."""
        return self.first.orthogonality(projections, temperature)

    def regularization(self, invariant: nn.Module, equivariant: nn.Module) -> Tensor:
        """The regularisation between the two heads of the first objective."""
        assert isinstance(invariant, SideBySide)
        return self.first.regularization(invariant.heads[0], equivariant)

    @torch.no_grad()
    def update(self, invariant: Projections, equivariant: Projections | None) -> None:
        """Update every objective; only the first gets the equivariant part."""
        for place, (part, share) in enumerate(
            zip(self._parts(), self._shares(invariant), strict=True)
        ):
            part.update(share, None if place else equivariant)

    def _parts(self) -> list[Objective]:
        return [part for part in self.objectives if isinstance(part, Objective)]

    def _shares(self, projections: Projections) -> list[Projections]:
        """The outputs of each objective's own head."""
        widths = self._widths
        students = torch.split(projections.student, widths, dim=-1)
        teacher = projections.teacher
        teachers = [None] * len(widths) if teacher is None else torch.split(teacher, widths, dim=-1)
        return [
            replace(projections, student=student, teacher=shown)
            for student, shown in zip(students, teachers, strict=True)
        ]


@torch.no_grad()
def _width(head: nn.Module, in_dim: int) -> int:
    """Length of a head's output; its running statistics do not change."""
    width = head.eval()(torch.zeros(1, in_dim)).shape[-1]
    head.train()
    return int(width)
