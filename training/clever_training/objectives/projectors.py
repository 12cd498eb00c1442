"""The heads between an embedding and a loss; they are used in training only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class DinoHead(nn.Module):
    """DINO's projection head (Caron et al., https://arxiv.org/abs/2104.14294, appendix C).

    MLP in → hidden → hidden → bottleneck with GELU, L2 normalisation, then a linear layer without
    bias whose rows are weight-normalised with a gain frozen at 1. Parameters have the names of the
    published code, so that its states load.

    Args:
        in_dim: Length of the part of the embedding.
        out_dim: K, the number of prototypes.
        hidden_dim: Width of the two hidden layers.
        bottleneck_dim: Length of the normalised vector.
        batch_norm: Whether BatchNorm follows the hidden layers, as in DINO for ResNets.

    Example:
        >>> DinoHead(409, 4096)(torch.zeros(2, 409)).shape
        torch.Size([2, 4096])
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (in_dim, hidden_dim):
            layers.append(nn.Linear(width, hidden_dim))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden_dim))
            layers.append(nn.GELU())
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden_dim, bottleneck_dim))
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = WeightNormLinear(bottleneck_dim, out_dim)

    def forward(self, features: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """Logits over the prototypes."""
        normalised = F.normalize(self.mlp(features), dim=-1)
        logits: Tensor = self.last_layer(normalised)
        return logits


class WeightNormLinear(nn.Module):
    """A linear layer without bias whose rows v are scaled to length g; g is frozen at 1.

    Args:
        in_dim: Length of the input.
        out_dim: Number of rows.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=False)
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.kaiming_uniform_(self.weight_v, a=5**0.5)  # nn.Linear's own

    def forward(self, features: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch out_dim"]:
        """The product with the normalised rows."""
        rows = self.weight_v / self.weight_v.norm(dim=1, keepdim=True)
        return F.linear(features, self.weight_g * rows)


class Expander(nn.Sequential):
    """VICReg's expander: Linear, BatchNorm, ReLU, twice, then Linear without bias.

    Args:
        in_dim: Length of the part of the embedding.
        out_dim: Length of the expanded vector; also the width of the hidden layers unless given.
        hidden_dim: Width of the hidden layers.

    Example:
        >>> Expander(409, 1024)(torch.zeros(2, 409)).shape
        torch.Size([2, 1024])
    """

    def __init__(self, in_dim: int, out_dim: int = 8192, hidden_dim: int | None = None) -> None:
        width = hidden_dim or out_dim
        super().__init__(
            nn.Linear(in_dim, width),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, out_dim, bias=False),
        )


class MlpHead(nn.Sequential):
    """An MLP with BatchNorm after every layer and ReLU between them, as SimCLR's and SimSiam's.

    Linear layers have no bias, since BatchNorm would remove it.

    Args:
        widths: Length of the input, of each hidden layer, and of the output.
        affine_last: Whether the last BatchNorm has a scale and an offset.

    Example:
        >>> MlpHead([409, 2048, 128])(torch.zeros(2, 409)).shape
        torch.Size([2, 128])
    """

    def __init__(self, widths: Sequence[int], affine_last: bool = True) -> None:
        layers: list[nn.Module] = []
        for before, width in pairwise(widths[:-1]):
            layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width)]
            layers.append(nn.ReLU(inplace=True))
        super().__init__(
            *layers,
            nn.Linear(widths[-2], widths[-1], bias=False),
            nn.BatchNorm1d(widths[-1], affine=affine_last),
        )


class SimsiamHead(nn.Module):
    """SimSiam's projector and predictor (Chen & He, https://arxiv.org/abs/2011.10566, section 3).

    The projector is an MLP of three layers whose last BatchNorm is not affine, the predictor one of
    two with a bottleneck.

    Args:
        in_dim: Length of the part of the embedding.
        dim: Length of projections and predictions; also the width of the projector's hidden layers.
        bottleneck_dim: Width of the predictor's hidden layer.

    Example:
        >>> SimsiamHead(409)(torch.zeros(2, 409)).shape  # projection and prediction
        torch.Size([2, 4096])
    """

    def __init__(self, in_dim: int, dim: int = 2048, bottleneck_dim: int = 512) -> None:
        super().__init__()
        self.projector = MlpHead([in_dim, dim, dim, dim], affine_last=False)
        self.predictor = nn.Sequential(
            nn.Linear(dim, bottleneck_dim, bias=False),
            nn.BatchNorm1d(bottleneck_dim),
            nn.ReLU(inplace=True),
            nn.Linear(bottleneck_dim, dim),
        )

    def forward(self, features: Float[Tensor, "batch in_dim"]) -> Float[Tensor, "batch twice_dim"]:
        """The projection z and the prediction p, side by side."""
        projection = self.projector(features)
        return torch.cat([projection, self.predictor(projection)], dim=-1)


class PlainHead(nn.Sequential):
    """An MLP with BatchNorm and ReLU after every layer but the last, which is plain.

    Args:
        widths: Length of the input, of each hidden layer, and of the output.

    Example:
        >>> PlainHead([409, 2048, 2048, 128])(torch.zeros(2, 409)).shape
        torch.Size([2, 128])
    """

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for before, width in pairwise(widths[:-1]):
            layers += [nn.Linear(before, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))
