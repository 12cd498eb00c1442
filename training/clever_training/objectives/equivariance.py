"""The two terms that CLeVER adds to an objective: orthogonality and projector regularisation.

All are pure functions. Source: "Contrastive Learning Via Equivariant Representation" (Song et
al., https://arxiv.org/abs/2406.00262), with the constants of its published code.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def cosine_matrix(
    students: Float[Tensor, "views batch dim"],
    targets: Float[Tensor, "targets batch dim"],
    eps: float = 1e-8,
) -> Float[Tensor, "targets views"]:
    """For every target q and view v, the batch mean of cos(target_q, view_v).

    The batch mean is linear, so the mean of the matrices of several processes is the matrix of the
    whole batch. Each vector is normalised once, not once per pair.

    Args:
        students: Vectors of each view.
        targets: Vectors of the first views from another branch.
        eps: Smallest norm, as in ``torch.nn.functional.cosine_similarity``.

    Returns:
        Entries in [−1, 1].

    Example:
        >>> views = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]])
        >>> cosine_matrix(views, views)
        tensor([[1., 0.],
                [0., 1.]])
    """
    batch = students.shape[1]
    unit, unit_targets = (F.normalize(part, dim=-1, eps=eps) for part in (students, targets))
    return unit_targets.flatten(1) @ unit.flatten(1).T / batch


def mean_of_pairs(matrix: Float[Tensor, "targets views"]) -> Float[Tensor, ""]:
    """The mean over the pairs of a target q and a view v ≠ q.

    Target q is made from view q, so the pair q = v contains no distortion between views and is left
    out.

    Args:
        matrix: A value for every target and view.

    Returns:
        A scalar.
    """
    return matrix[_pairs(matrix)].mean()


def orthogonality_loss(
    students: Float[Tensor, "views batch dim"],
    targets: Float[Tensor, "targets batch dim"],
    eps: float = 1e-8,
) -> Float[Tensor, ""]:
    """How far the equivariant parts of two views are from being orthogonal (L_Orth).

    For every pair of a target q and a view v ≠ q: the absolute value of the batch mean of
    cos(target_q, view_v); then the mean over the pairs.

    Args:
        students: Output of the equivariant head for each view: softmax(s_EF / τ_s) for DINO, the
            projected vectors for other objectives.
        targets: The same for the first views, from the teacher or from another branch. Gradients
            flow into them; detach them where the method stops the gradient.
        eps: Smallest norm of a vector.

    Returns:
        A scalar in [0, 1].

    Example:
        >>> views = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> orthogonality_loss(views, views)
        tensor(0.)
    """
    return mean_of_pairs(cosine_matrix(students, targets, eps).abs())


def symmetric_orthogonality(matrix: Float[Tensor, "views views"]) -> Float[Tensor, ""]:
    """The orthogonality term of CLeVER on SimSiam, from the cosines of every pair.

    |½[cos(p1, z2) + cos(p2, z1)]|, batch means inside, for two views; with more, the mean over the
    unordered pairs.

    Args:
        matrix: ``cosine_matrix(predictions, projections)``.

    Returns:
        A scalar in [0, 1].

    Example:
        >>> symmetric_orthogonality(torch.tensor([[1.0, 0.5], [-0.5, 1.0]]))
        tensor(0.)
    """
    return mean_of_pairs(((matrix + matrix.T) / 2).abs())


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


def _pairs(matrix: Tensor) -> Tensor:
    """True where target and view differ."""
    return ~torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device)


def _sum_of_squares(parameters: Iterable[Tensor]) -> Tensor:
    return torch.stack([parameter.float().pow(2).sum() for parameter in parameters]).sum()
