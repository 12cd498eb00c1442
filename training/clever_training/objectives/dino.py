"""DINO's invariance term (Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.equivariance import cosine_matrix, mean_of_pairs
from clever_training.objectives.projectors import DinoHead
from clever_training.runtime.gathering import average


def dino_loss(
    student_log_probs: Float[Tensor, "views batch prototypes"],
    teacher_probs: Float[Tensor, "globals batch prototypes"],
) -> Float[Tensor, ""]:
    """Cross-entropy between the teacher's and the student's view of the same photos (L_CL).

    The mean over pairs (global view q of the teacher, view v ≠ q of the student) of the batch mean
    of −Σ teacher_q · log student_v. The arguments are already (log-)probabilities, computed once
    per view; the published code computes them for every pair. All pairs are one matrix product.

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
    batch = student_log_probs.shape[1]
    # Σ over photos and prototypes at once: (globals, batch·K) by (batch·K, views)
    cross_entropy = -(teacher_probs.flatten(1) @ student_log_probs.flatten(1).T) / batch
    return mean_of_pairs(cross_entropy)


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
        momentum: Weight of the old centre, in [0, 1].

    Returns:
        A new tensor.
    """
    return center * momentum + batch_mean.detach() * (1 - momentum)


# The names that the centres had in state files of earlier versions.
_FORMER_NAMES = {
    "center_ir": "teacher_invariant_center",
    "center_ef": "teacher_equivariant_center",
}


class Dino(Objective):
    """DINO: the student predicts the teacher's prototypes from another view.

    Args:
        prototypes: K of both heads; 65536 as published.
        hidden_dim: Width of the heads' hidden layers.
        bottleneck_dim: Length of the heads' normalised vector.
        head_batch_norm: Whether the heads have BatchNorm, as DINO's have for ResNets.
        student_temperature: τ_s, the student's temperature.
        center_momentum: Weight of the old centre in its update, in [0, 1].
    """

    uses_teacher = True
    teacher_invariant_center: Tensor
    teacher_equivariant_center: Tensor

    def __init__(
        self,
        prototypes: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        head_batch_norm: bool = False,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.head_args = (prototypes, hidden_dim, bottleneck_dim, head_batch_norm)
        self.student_temperature = student_temperature
        self.center_momentum = center_momentum
        self.register_buffer("teacher_invariant_center", torch.zeros(1, prototypes))
        self.register_buffer("teacher_equivariant_center", torch.zeros(1, prototypes))
        self.register_load_state_dict_pre_hook(_rename_centers)  # type: ignore[no-untyped-call]

    def make_head(self, in_dim: int) -> nn.Module:
        """A ``DinoHead``."""
        return DinoHead(in_dim, *self.head_args)

    def invariance(self, projections: Projections, temperature: float) -> Tensor:
        """Cross-entropy with the teacher, averaged over photos and processes."""
        assert projections.teacher is not None
        loss = dino_loss(
            F.log_softmax(projections.student / self.student_temperature, dim=-1),
            sharpen(projections.teacher, self.teacher_invariant_center, temperature),
        )
        return average(loss)

    def orthogonality(self, projections: Projections, temperature: float) -> Tensor:
        """L_Orth between probabilities over the prototypes, as in the paper."""
        assert projections.teacher is not None
        matrix = cosine_matrix(
            F.softmax(projections.student / self.student_temperature, dim=-1),
            sharpen(projections.teacher, self.teacher_equivariant_center, temperature),
        )
        return mean_of_pairs(average(matrix).abs())

    @torch.no_grad()
    def update(self, invariant: Projections, equivariant: Projections | None) -> None:
        """Move the centres towards the teacher's mean output over all processes."""
        centers = (self.teacher_invariant_center, self.teacher_equivariant_center)
        for center, part in zip(centers, (invariant, equivariant), strict=True):
            if part is not None and part.teacher is not None:
                mean = average(part.teacher.mean(dim=(0, 1)).unsqueeze(0))
                center.copy_(update_center(center, mean, self.center_momentum))


def _rename_centers(
    _module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_args: object
) -> None:
    """Rename the centres in a state of an earlier version."""
    for former, name in _FORMER_NAMES.items():
        if prefix + former in state_dict:
            state_dict[prefix + name] = state_dict.pop(prefix + former)
