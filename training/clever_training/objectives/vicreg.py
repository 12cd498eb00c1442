"""VICReg's invariance term (Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906)."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.projectors import Expander
from clever_training.runtime.gathering import gather_photos


def vicreg_loss(
    views: Float[Tensor, "views batch dim"],
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    eps: float = 1e-4,
) -> Float[Tensor, ""]:
    """Variance, invariance and covariance (equations 1 to 6 of the paper).

    As in the authors' code, the invariance is averaged over the dimensions (equation 5 sums), and
    the variance over the views (equation 6 adds both). With more than two views the invariance is
    the mean over all pairs. Variance and covariance are means over the views; the covariance counts
    twice, as the paper adds that of both branches.

    Args:
        views: Expanded embeddings of each view, of the whole batch over all processes, float32.
        invariance_weight: λ of the paper.
        variance_weight: μ of the paper.
        covariance_weight: ν of the paper.
        eps: Added to the variance before the root.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: With fewer than two views, or fewer than two photos, which have no variance.

    Example:
        >>> views = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
        >>> vicreg_loss(views, invariance_weight=0.0, covariance_weight=0.0) < 5
        tensor(True)
    """
    if views.shape[0] < 2 or views.shape[1] < 2:
        raise ValueError(
            f"VICReg needs at least 2 views of 2 photos, got {views.shape[0]} of {views.shape[1]}"
        )
    pairs = [F.mse_loss(views[a], views[b]) for a, b in combinations(range(len(views)), 2)]
    invariance = torch.stack(pairs).mean()
    centred = views - views.mean(dim=1, keepdim=True)
    deviation = torch.sqrt(centred.var(dim=1) + eps)  # (views, dim)
    variance = F.relu(1 - deviation).mean()
    covariance = torch.stack([_off_diagonal(view) for view in centred]).mean() * 2
    return (
        invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    )


def _off_diagonal(centred: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Sum of the squared covariances of different dimensions, divided by the dimension."""
    batch, dim = centred.shape
    covariance = centred.T @ centred / (batch - 1)  # (dim, dim)
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / dim


class Vicreg(Objective):
    """VICReg: views agree, dimensions vary and are not correlated.

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
        """The three terms of VICReg, over the photos of all processes."""
        return vicreg_loss(gather_photos(projections.student), *self.weights)
