"""DINO's invariance term (Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def dino_loss(
    student_log_probs: Float[Tensor, "views batch prototypes"],
    teacher_probs: Float[Tensor, "globals batch prototypes"],
) -> Float[Tensor, ""]:
    """Cross-entropy between the teacher's and the student's view of the same photos (L_CL).

    The mean over pairs (global view q of the teacher, view v ≠ q of the student) of the batch mean
    of −Σ teacher_q · log student_v. Softmax and log-softmax come in ready, once per view, where
    the published code recomputes them for every pair.

    Args:
        student_log_probs: log softmax(s_IR / τ_s), global views first.
        teacher_probs: ``sharpen(t_IR, c_IR, τ_t)``, without gradient.

    Returns:
        A scalar, 0 or more.

    Example:
        >>> sure = torch.eye(4).unsqueeze(0).repeat(2, 1, 1)
        >>> dino_loss((sure * 50).log_softmax(-1), sure) < 1e-3
        tensor(True)
    """
    terms = [
        -(teacher * student).sum(dim=-1).mean()
        for q, teacher in enumerate(teacher_probs)
        for v, student in enumerate(student_log_probs)
        if v != q
    ]
    return torch.stack(terms).mean()


def sharpen(
    logits: Float[Tensor, "globals batch prototypes"],
    center: Float[Tensor, "1 prototypes"],
    temperature: float,
) -> Float[Tensor, "globals batch prototypes"]:
    """The teacher's probabilities: softmax((logits − centre) / τ_t), in float32, detached.

    Args:
        logits: Outputs of the teacher's head.
        center: The running mean that keeps one prototype from winning everywhere.
        temperature: τ_t; lower is sharper.

    Returns:
        Probabilities, summing to 1 over the last dimension.
    """
    return F.softmax((logits.detach().float() - center) / temperature, dim=-1)


def update_center(
    center: Float[Tensor, "1 prototypes"],
    batch_mean: Float[Tensor, "1 prototypes"],
    momentum: float = 0.9,
) -> Float[Tensor, "1 prototypes"]:
    """The next centre: an exponential moving average of the teacher's mean output.

    Args:
        center: The centre so far.
        batch_mean: The mean over all global views and, by the caller, over all processes.
        momentum: How much of the old centre stays.

    Returns:
        A new tensor.
    """
    return center * momentum + batch_mean.detach() * (1 - momentum)
