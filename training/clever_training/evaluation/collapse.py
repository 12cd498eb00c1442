"""Signs of collapse: how many of its dimensions an embedding uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def effective_rank(features: Float[Tensor, "batch dim"]) -> float:
    """Exponential of the entropy of the normalised singular values, after centring.

    Source: RankMe (Garrido et al., ICML 2023, https://arxiv.org/abs/2210.02885, equation 1), on
    centred features.

    Args:
        features: Embeddings.

    Returns:
        Between 1 (collapsed to a line) and min(batch − 1, dim).

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(4), -torch.eye(4)])), 3)
        4.0
    """
    centred = features.float() - features.float().mean(dim=0)
    singular = torch.linalg.svdvals(centred)
    shares = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(torch.special.entr(shares).sum()))


def feature_std(features: Float[Tensor, "batch dim"]) -> float:
    """Mean standard deviation of the L2-normalised features, times √dim.

    Args:
        features: Embeddings.

    Returns:
        About 1 for directions spread evenly over the sphere, 0 for a single direction (SimSiam,
        https://arxiv.org/abs/2011.10566, section 4.1).
    """
    normalised = F.normalize(features.float(), dim=1)
    return float(normalised.std(dim=0).mean() * features.shape[1] ** 0.5)
