"""LeJEPA's invariance term with SIGReg (Balestriero & LeCun, https://arxiv.org/abs/2511.08544)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.projectors import PlainHead
from clever_training.runtime.gathering import from_first_process, gather_photos


def lejepa_loss(
    views: Float[Tensor, "views batch dim"],
    directions: Float[Tensor, "slices dim"],
    global_count: int = 2,
    weight: float = 0.05,
) -> Float[Tensor, ""]:
    """LeJEPA's loss: agreement with the mean of the global views, and a Gaussian distribution.

    (1 − λ) · mean squared distance of every view to the mean of its photo's global views
    + λ · SIGReg, the mean of ``sigreg`` over the views. It needs no stopped gradient, no teacher
    and no negatives.

    Args:
        views: Projected embeddings, global views first, of the whole batch over all processes.
        directions: Directions of SIGReg's slices, of any length; drawn again at each step.
        global_count: Number of global views.
        weight: λ, the method's only hyper-parameter; 0.05 as published.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: With fewer than two photos, which have no distribution.

    Example:
        >>> views = torch.randn(3, 64, 8, generator=torch.Generator().manual_seed(0))
        >>> lejepa_loss(views, torch.eye(8)).item() > 0
        True
    """
    if views.shape[1] < 2:
        raise ValueError(f"LeJEPA needs at least 2 photos, got {views.shape[1]}")
    center = views[:global_count].mean(dim=0)
    invariance = (views - center).pow(2).mean()
    gaussian = torch.stack([sigreg(view, directions) for view in views]).mean()
    return (1 - weight) * invariance + weight * gaussian


def sigreg(
    vectors: Float[Tensor, "batch dim"],
    directions: Float[Tensor, "slices dim"],
    knots: int = 17,
    limit: float = 3.0,
) -> Float[Tensor, ""]:
    """Sketched isotropic Gaussian regularisation: the mean Epps–Pulley statistic over slices.

    For the projections x of the vectors on each direction it is N ∫ |φ_N(t) − φ(t)|² w(t) dt, where
    φ_N is the empirical characteristic function of x, φ(t) = exp(−t²/2) that of the standard normal
    distribution, and w = φ. The integrand is even, so the trapezoidal rule runs over [0, limit] and
    counts twice, as in the authors' code (the listing in the paper takes [−5, 5] with as many
    knots, https://arxiv.org/abs/2511.08544, algorithm 1).

    Args:
        vectors: N vectors.
        directions: Directions of the slices, of any length.
        knots: Number of points of the trapezoidal rule.
        limit: Upper limit of the integral.

    Returns:
        A scalar, 0 or more; √(2π)·(1 − 1/√3) ≈ 1.06 on average for a Gaussian sample of any size,
        growing as N for any other distribution.

    Example:
        >>> sample = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
        >>> (sigreg(sample, torch.eye(8)) < 2, sigreg(sample * 3, torch.eye(8)) > 10)
        (tensor(True), tensor(True))
    """
    t = torch.linspace(0, limit, knots, device=vectors.device)
    gaussian = torch.exp(-t.square() / 2)
    shadows = vectors @ F.normalize(directions, dim=-1).T  # (batch, slices)
    angles = shadows.unsqueeze(-1) * t  # (batch, slices, knots)
    real, imaginary = angles.cos().mean(dim=0), angles.sin().mean(dim=0)
    distance = (real - gaussian).square() + imaginary.square()
    integral = 2 * torch.trapezoid(distance * gaussian, t, dim=-1)  # (slices,)
    return len(vectors) * integral.mean()


class Lejepa(Objective):
    """LeJEPA: views agree, and the projected embeddings are Gaussian.

    Args:
        dim: Length of the projected vectors.
        hidden_dim: Width of the projector's two hidden layers.
        slices: Number of random directions at each step.
        weight: λ of SIGReg; the other term has 1 − λ.
    """

    def __init__(
        self, dim: int = 128, hidden_dim: int = 2048, slices: int = 1024, weight: float = 0.05
    ) -> None:
        super().__init__()
        self.dim, self.hidden_dim, self.slices, self.weight = dim, hidden_dim, slices, weight

    def make_head(self, in_dim: int) -> nn.Module:
        """A ``PlainHead`` of three layers."""
        return PlainHead([in_dim, self.hidden_dim, self.hidden_dim, self.dim])

    def invariance(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """Both terms over the photos of all processes, which share their random directions."""
        views = gather_photos(projections.student)
        directions = from_first_process(torch.randn(self.slices, self.dim, device=views.device))
        return lejepa_loss(views, directions, projections.global_count, self.weight)
