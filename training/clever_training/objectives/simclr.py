"""SimCLR's invariance term, NT-Xent (Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709)."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.projectors import MlpHead
from clever_training.runtime.gathering import gather_photos


def nt_xent_loss(
    views: Float[Tensor, "views batch dim"], temperature: float = 0.5
) -> Float[Tensor, ""]:
    """NT-Xent: identify the other view of the same photo among all views (equation 1).

    For two views of n photos each of the 2n vectors is an anchor. Its positive is the other view
    of its photo, its negatives are the 2n − 2 views of the other photos. With more than two views
    it is the mean over all pairs of views.

    Args:
        views: Projected embeddings of each view, of the whole batch over all processes; any scale.
        temperature: τ; 0.5 is the paper's best for long training (its table 5).

    Returns:
        A scalar, 0 or more; log(2n − 1) where all vectors are alike.

    Raises:
        ValueError: With fewer than two views, or with fewer than two photos, as negatives are
            missing.

    Example:
        >>> alike = torch.ones(2, 8, 4)
        >>> round(nt_xent_loss(alike).exp().item())
        15
    """
    if views.shape[0] < 2 or views.shape[1] < 2:
        raise ValueError(
            f"SimCLR needs at least 2 views of 2 photos, got {views.shape[0]} of {views.shape[1]}"
        )
    batch = views.shape[1]
    normalised = F.normalize(views, dim=-1)
    own = torch.eye(2 * batch, dtype=torch.bool, device=views.device)
    positives = torch.arange(2 * batch, device=views.device).roll(batch)
    terms = []
    for a, b in combinations(range(len(views)), 2):
        pair = torch.cat([normalised[a], normalised[b]])  # (2·batch, dim)
        logits = (pair @ pair.T / temperature).masked_fill(own, float("-inf"))
        terms.append(F.cross_entropy(logits, positives))
    return torch.stack(terms).mean()


class Simclr(Objective):
    """SimCLR: each view identifies the other view of its photo among all photos of the batch.

    Args:
        dim: Length of the projected vectors.
        hidden_dim: Width of the head's hidden layer.
        temperature: τ.
    """

    def __init__(self, dim: int = 128, hidden_dim: int = 2048, temperature: float = 0.5) -> None:
        super().__init__()
        self.dim, self.hidden_dim, self.temperature = dim, hidden_dim, temperature

    def make_head(self, in_dim: int) -> nn.Module:
        """An ``MlpHead`` of two layers."""
        return MlpHead([in_dim, self.hidden_dim, self.dim])

    def invariance(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """NT-Xent, with the photos of all processes as negatives."""
        return nt_xent_loss(gather_photos(projections.student), self.temperature)
