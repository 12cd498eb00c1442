"""SimSiam's invariance term (Chen & He, CVPR 2021, https://arxiv.org/abs/2011.10566)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.equivariance import (
    cosine_matrix,
    mean_of_pairs,
    projector_regularization,
    symmetric_orthogonality,
)
from clever_training.objectives.projectors import SimsiamHead
from clever_training.runtime.gathering import average


def simsiam_loss(
    predictions: Float[Tensor, "views batch dim"],
    projections: Float[Tensor, "views batch dim"],
) -> Float[Tensor, ""]:
    """Predict the projection of one view from another's (equations 1 to 4 of the paper).

    −½[cos(p1, z2) + cos(p2, z1)] for two views, without a gradient through z; with more, the mean
    over all ordered pairs.

    Args:
        predictions: p of each view.
        projections: z of each view; its gradient is stopped here.

    Returns:
        A scalar in [−1, 1]; −1 where every prediction points along its target.

    Raises:
        ValueError: With fewer than two views.

    Example:
        >>> import torch
        >>> views = torch.ones(2, 8, 4)
        >>> simsiam_loss(views, views)
        tensor(-1.)
    """
    return -mean_of_pairs(_cosines(predictions, projections))


class Simsiam(Objective):
    """SimSiam: a predictor and a stopped gradient, without negatives or a teacher.

    Args:
        dim: Length of projections and predictions.
        bottleneck_dim: Width of the predictors' hidden layer.
    """

    def __init__(self, dim: int = 2048, bottleneck_dim: int = 512) -> None:
        super().__init__()
        self.dim, self.bottleneck_dim = dim, bottleneck_dim

    def make_head(self, in_dim: int) -> nn.Module:
        """A ``SimsiamHead``: a pair of projector and predictor for each part."""
        return SimsiamHead(in_dim, self.dim, self.bottleneck_dim)

    def invariance(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """The negative cosines, averaged over photos and processes."""
        z, p = projections.student.chunk(2, dim=-1)
        return average(simsiam_loss(p, z))

    def orthogonality(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """|½[cos(p1, sg z2) + cos(p2, sg z1)]| of the equivariant pair of heads."""
        z, p = projections.student.chunk(2, dim=-1)
        return symmetric_orthogonality(average(_cosines(p, z)))

    def regularization(self, invariant: nn.Module, equivariant: nn.Module) -> Tensor:
        """½ (the projectors' gap + the predictors' gap)."""
        assert isinstance(invariant, SimsiamHead)
        assert isinstance(equivariant, SimsiamHead)
        projectors = projector_regularization(invariant.projector, equivariant.projector)
        predictors = projector_regularization(invariant.predictor, equivariant.predictor)
        return (projectors + predictors) / 2


def _cosines(predictions: Tensor, projections: Tensor) -> Tensor:
    if len(predictions) < 2:
        raise ValueError(f"SimSiam needs at least 2 views, got {len(predictions)}")
    return cosine_matrix(predictions, projections.detach())
