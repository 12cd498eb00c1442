"""The two terms that make an objective CLeVER: orthogonality and projector regularisation.

Both are pure functions. Source: "Contrastive Learning Via Equivariant Representation" (Song et
al., https://arxiv.org/abs/2406.00262), with the constants of its published code.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def orthogonality_loss(
    students: Float[Tensor, "views batch dim"],
    targets: Float[Tensor, "targets batch dim"],
    eps: float = 1e-8,
) -> Float[Tensor, ""]:
    """How far the equivariant parts of two views are from being orthogonal (L_Orth).

    For every pair of a target q and a view v ≠ q: the absolute value of the batch mean of
    cos(target_q, view_v); then the mean over the pairs. Target q is another look at view q, so the
    pair q = v says nothing about distortion and is left out.

    Args:
        students: What the equivariant head says of each view. For DINO softmax(s_EF / τ_s), for
            other objectives the projected vectors themselves.
        targets: The same of the first views, by the teacher or by another branch. Their gradient
            is taken as it comes: detach them where the method stops it.
        eps: Smallest product of norms, as in ``torch.nn.functional.cosine_similarity``.

    Returns:
        A scalar in [0, 1].

    Example:
        >>> views = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> orthogonality_loss(views, views)
        tensor(0.)
    """
    terms = [
        F.cosine_similarity(target, student, dim=-1, eps=eps).mean().abs()
        for q, target in enumerate(targets)
        for v, student in enumerate(students)
        if v != q
    ]
    return torch.stack(terms).mean()


def squared_norm(module: nn.Module) -> Float[Tensor, ""]:
    """Σ‖θ‖² over all parameters of a head, frozen ones included."""
    return _sum_of_squares(module.parameters())


def projector_regularization(invariant: nn.Module, equivariant: nn.Module) -> Float[Tensor, ""]:
    """Keep the two heads' parameter norms together (L_PReg).

    | Σ‖θ_head_IR‖² − Σ‖θ_head_EF‖² |, over all parameters of the student's heads.

    Args:
        invariant: The head of the invariant part.
        equivariant: The head of the equivariant part.

    Returns:
        A scalar, 0 or more.

    Example:
        >>> head = nn.Linear(4, 2)
        >>> projector_regularization(head, head).item()
        0.0
    """
    return (squared_norm(invariant) - squared_norm(equivariant)).abs()


def _sum_of_squares(parameters: Iterable[Tensor]) -> Tensor:
    return torch.stack([parameter.float().pow(2).sum() for parameter in parameters]).sum()
