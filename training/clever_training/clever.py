"""CLeVER for any invariance objective: split, two heads, three terms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.layers.drop import DropPath
from torch import Tensor, nn

from clever_training.equivariance import orthogonality_loss, projector_regularization
from clever_training.objectives import Objective, Projections


@dataclass(frozen=True)
class LossWeights:
    """How the terms add up; the paper's values by default.

    Attributes:
        orthogonality: λ.
        regularization: λ_reg.
    """

    orthogonality: float = 1.0
    regularization: float = 0.001


class Branch(nn.Module):
    """Backbone, split and heads: the student, or its teacher.

    Args:
        backbone: Maps images to embeddings.
        invariant: Head of the invariant part, or of the whole embedding.
        equivariant: Head of the rest; None for a baseline without a split.
        invariant_dim: Where the embedding is split.
    """

    def __init__(
        self,
        backbone: nn.Module,
        invariant: nn.Module,
        equivariant: nn.Module | None,
        invariant_dim: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.invariant = invariant
        self.equivariant = equivariant
        self.invariant_dim = invariant_dim

    def forward(
        self, crops: Sequence[Float[Tensor, "_ 3 _ _"]], batch: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Project all views of a batch.

        Args:
            crops: One tensor (views·batch, 3, size, size) for each image size, views slowest, so
                that each size takes one pass through the backbone.
            batch: Number of photos.

        Returns:
            Projections of the invariant part and, with a split, of the equivariant part, both
            (views, batch, dim) in float32, and the embeddings (views, batch, d).
        """
        embeddings = torch.cat([self.backbone(crop) for crop in crops])
        if self.equivariant is None:
            parts = (self.invariant(embeddings), None)
        else:
            split = self.invariant_dim
            parts = (
                self.invariant(embeddings[:, :split]),
                self.equivariant(embeddings[:, split:]),
            )
        invariant, equivariant, whole = (
            None if part is None else part.float().unflatten(0, (-1, batch))
            for part in (*parts, embeddings)
        )
        assert invariant is not None
        assert whole is not None
        return invariant, equivariant, whole


class Clever(nn.Module):
    """An invariance objective with CLeVER's equivariance terms around it.

    L = L_CL + λ · L_Orth + λ_reg · L_PReg (Song et al., https://arxiv.org/abs/2406.00262,
    section 3.3), where L_CL is the objective's own term. Without the split it is the plain
    objective.

    Args:
        backbone: The backbone to be trained.
        num_features: d, the length of its embedding.
        invariant_dim: Length of the invariant part; equal to d for a plain objective.
        objective: The invariance term.
        weights: λ and λ_reg.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        invariant_dim: int,
        objective: Objective,
        weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        split = invariant_dim < num_features
        self.objective = objective
        self.weights = weights or LossWeights()
        self.student = Branch(
            backbone,
            objective.make_head(invariant_dim),
            objective.make_head(num_features - invariant_dim) if split else None,
            invariant_dim,
        )
        self.teacher: Branch | None = None
        if objective.uses_teacher:
            # It stays in train mode: batch statistics of its own, as in DINO. Its running
            # statistics come from its own passes and are not averaged with the student's.
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)
            for module in self.teacher.modules():
                if isinstance(module, DropPath):  # only the student drops
                    module.drop_prob = 0.0

    def forward(
        self,
        crops: Sequence[Float[Tensor, "_ 3 _ _"]],
        batch: int,
        temperature: float = 0.04,
    ) -> dict[str, Tensor]:
        """The loss terms of one batch; also moves the objective's state.

        Args:
            crops: Normalised views grouped by size, the global ones first: for each size one
                tensor (views·batch, 3, size, size), views slowest.
            batch: Number of photos.
            temperature: τ_t, for objectives with a teacher.

        Returns:
            Scalars: ``loss``, ``invariance`` and, with a split, ``orthogonality`` and
            ``regularization`` (unweighted), and the embeddings of the first view, detached, as
            ``embedding`` (batch, d), to watch for collapse.
        """
        invariant, equivariant, whole = self._project(crops, batch)
        loss = self.objective.invariance(invariant, temperature)
        terms = {"invariance": loss.detach(), "embedding": whole[0].detach()}
        if equivariant is not None and self.student.equivariant is not None:
            views, targets = self.objective.equivariant_views(equivariant, temperature)
            orthogonality = orthogonality_loss(views, targets)
            regularization = projector_regularization(
                self.student.invariant, self.student.equivariant
            )
            loss = (
                loss
                + self.weights.orthogonality * orthogonality
                + self.weights.regularization * regularization
            )
            terms |= {
                "orthogonality": orthogonality.detach(),
                "regularization": regularization.detach(),
            }
        self.objective.update(invariant, equivariant)
        return {**terms, "loss": loss}

    def _project(
        self, crops: Sequence[Tensor], batch: int
    ) -> tuple[Projections, Projections | None, Tensor]:
        student_ir, student_ef, whole = self.student(crops, batch)
        teacher_ir = teacher_ef = None
        if self.teacher is not None:
            with torch.no_grad():
                teacher_ir, teacher_ef, _ = self.teacher(crops[:1], batch)
        equivariant = None if student_ef is None else Projections(student_ef, teacher_ef)
        return Projections(student_ir, teacher_ir), equivariant, whole

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """θ_t ← m θ_t + (1 − m) θ_s for every parameter; buffers are the teacher's own.

        Args:
            momentum: m, in [0, 1].
        """
        if self.teacher is None:
            return
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student.detach(), 1 - momentum)

    @property
    def shipped_backbone(self) -> nn.Module:
        """What is worth keeping: the teacher's backbone where there is one, else the student's."""
        return (self.teacher or self.student).backbone
