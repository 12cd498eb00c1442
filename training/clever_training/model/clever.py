"""CLeVER for any invariance objective: split, two heads, three terms."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.drop import DropPath
from torch import Tensor, nn

from clever_hub.embeddings import split
from clever_training.objectives import Objective, Projections
from clever_training.objectives.base import check_gradient
from clever_training.objectives.transformation import (
    TransformationHead,
    transformation_loss,
    view_pairs,
)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms; the defaults are the paper's values.

    Attributes:
        orthogonality: λ.
        regularization: λ_reg.
        transformation: Weight of predicting the relative transformation; not in the paper.
        groups: Weight of each group of predicted values, by name; 1 for groups that are left out.
    """

    orthogonality: float = 1.0
    regularization: float = 0.001
    transformation: float = 0.0
    groups: Mapping[str, float] = field(default_factory=dict)


class Branch(nn.Module):
    """Backbone, split and heads: the student, or its teacher.

    Args:
        backbone: Maps images to embeddings.
        invariant: Head of the invariant part, or of the whole embedding.
        equivariant: Head of the rest; None for a baseline without a split.
        invariant_dim: Length of the invariant part.

    Attributes:
        transformation: Predicts the relative transformation of two views from their equivariant
            parts; only the student has it, and only if the method does.
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
        self.transformation: TransformationHead | None = None

    def forward(
        self, crops: Sequence[Float[Tensor, "_ 3 _ _"]], batch: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Project all views of a batch.

        Args:
            crops: One tensor (views·batch, 3, size, size) for each image size, so that each size
                takes one pass through the backbone; the view is the slowest index.
            batch: Number of photos.

        Returns:
            Projections of the invariant part and, with a split, of the equivariant part, both
            (views, batch, dim) in float32, and the embeddings (views, batch, d).
        """
        embeddings = torch.cat([self.backbone(crop) for crop in crops])
        if self.equivariant is None:
            parts = (self.invariant(embeddings), None)
        else:
            invariant_part, equivariant_part = split(embeddings, self.invariant_dim)
            parts = (self.invariant(invariant_part), self.equivariant(equivariant_part))
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
    section 3.3), where L_CL is the objective's own term. Without a split it is the plain objective.

    Args:
        backbone: The backbone to train.
        num_features: d, the length of its embedding.
        invariant_dim: Length of the invariant part; d for a plain objective.
        objective: The invariance term.
        weights: λ, λ_reg, and the weight of the transformation term.
        global_count: Number of global views; the teacher sees only these.
        transformation_dim: Width of the hidden layers of the transformation head.

    Attributes:
        start: Origin of the backbone's weights, as ``start_backbone`` returns it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_features: int,
        invariant_dim: int,
        objective: Objective,
        weights: LossWeights | None = None,
        global_count: int = 2,
        transformation_dim: int = 512,
    ) -> None:
        super().__init__()
        self.global_count = global_count
        self.start: dict[str, Any] = {"init": "random"}
        split = invariant_dim < num_features
        self.objective = objective
        self.weights = weights or LossWeights()
        self.student = Branch(
            backbone,
            objective.make_head(invariant_dim),
            objective.make_equivariant_head(num_features - invariant_dim) if split else None,
            invariant_dim,
        )
        self.teacher: Branch | None = None
        if objective.uses_teacher:
            # As in DINO it stays in training mode, with batch statistics of its own. Its running
            # statistics come from its own passes; they are not averaged with the student's.
            self.teacher = copy.deepcopy(self.student).requires_grad_(False)
            for module in self.teacher.modules():
                if isinstance(module, DropPath):  # only the student drops
                    module.drop_prob = 0.0
        if split and self.weights.transformation:
            self.student.transformation = TransformationHead(
                num_features - invariant_dim, transformation_dim
            )

    def forward(
        self,
        crops: Sequence[Float[Tensor, "_ 3 _ _"]],
        batch: int,
        temperature: float = 0.04,
        parameters: Float[Tensor, "_ _ _"] | None = None,
        targets: Float[Tensor, "_ _"] | None = None,
    ) -> dict[str, Tensor]:
        """The loss terms of one batch; it also updates the objective's state.

        Args:
            crops: Normalised views by size, the global ones first: one tensor
                (views·batch, 3, size, size) for each size; the view is the slowest index.
            batch: Number of photos.
            temperature: τ_t, for objectives with a teacher.
            parameters: Parameters of each view, (batch, views, numbers), from
                ``ViewParameters.as_array``; needed by the transformation term only.
            targets: A frozen teacher's embeddings of the photos, (batch, target dim), for
                objectives that need them.

        Returns:
            Scalars: ``loss``, ``invariance`` and, with a split, ``orthogonality`` and
            ``regularization`` (unweighted), and ``embedding`` (batch, d), the detached embeddings
            of the first view, to watch for collapse. The transformation term adds
            ``transformation`` and indicators of how well it is predicted.
        """
        invariant, equivariant, whole = self._project(crops, batch, targets)
        # In bfloat16 a covariance or a softmax over 65536 prototypes is mostly rounding error.
        with torch.autocast(whole.device.type, enabled=False):
            terms = self._terms(invariant, equivariant, temperature)
        if self.student.transformation is not None:
            terms |= self._transformation(terms["loss"], whole, parameters)
        self.objective.update(invariant, equivariant)
        return {**terms, "embedding": whole[0].detach()}

    def _terms(
        self, invariant: Projections, equivariant: Projections | None, temperature: float
    ) -> dict[str, Tensor]:
        """The detached terms, and their weighted sum as ``loss``."""
        loss = self.objective.invariance(invariant, temperature)
        check_gradient(loss, invariant, type(self.objective).__name__)
        terms = {"invariance": loss.detach()}
        if equivariant is not None and self.student.equivariant is not None:
            orthogonality = self.objective.orthogonality(equivariant, temperature)
            regularization = self.objective.regularization(
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
        return {**terms, "loss": loss}

    def _transformation(
        self, loss: Tensor, whole: Tensor, parameters: Tensor | None
    ) -> dict[str, Tensor]:
        """The loss including the transformation term, the term itself, and its indicators."""
        assert self.student.transformation is not None
        if parameters is None:
            raise ValueError("the transformation term needs the views' parameters, got None")
        pairs = view_pairs(len(whole), self.global_count)
        _, equivariant = split(whole, self.student.invariant_dim)
        predicted = self.student.transformation(equivariant, pairs)
        with torch.autocast(whole.device.type, enabled=False):
            term, indicators = transformation_loss(
                predicted,
                parameters.to(whole.device),
                pairs,
                self.student.transformation.unit,
                self.weights.groups,
            )
        loss = loss + self.weights.transformation * term
        return {**indicators, "transformation": term.detach(), "loss": loss}

    def _project(
        self, crops: Sequence[Tensor], batch: int, targets: Tensor | None
    ) -> tuple[Projections, Projections | None, Tensor]:
        invariant, equivariant, whole = self.student(crops, batch)
        teacher_invariant = teacher_equivariant = None
        if self.teacher is not None:
            with torch.no_grad():
                # Local views of the same size are in the same tensor, after the global ones.
                seen = crops[0][: self.global_count * batch]
                teacher_invariant, teacher_equivariant, _ = self.teacher([seen], batch)
        first = Projections(invariant, teacher_invariant, self.global_count, targets)
        if equivariant is None:
            return first, None, whole
        return first, Projections(equivariant, teacher_equivariant, self.global_count), whole

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """θ_t ← m θ_t + (1 − m) θ_s for every parameter; buffers are not averaged.

        As in DINO the teacher has BatchNorm statistics of its own, from the views that it sees.

        Args:
            momentum: m, in [0, 1].
        """
        if self.teacher is None:
            return
        students = dict(self.student.named_parameters())
        for name, teacher in self.teacher.named_parameters():
            teacher.lerp_(students[name].detach(), 1 - momentum)

    @property
    def shipped_backbone(self) -> nn.Module:
        """The backbone that is saved: the teacher's if there is one, else the student's."""
        return (self.teacher or self.student).backbone
