"""Distillation: the invariant part of every view predicts a frozen teacher's embedding.

The target of a view is the teacher's embedding of the clean, whole, upright photo, less its mean
over the training photos. So invariance to whatever was done to the view is what is learned, and
what tells photos apart is the teacher's.

Two forms. The regression, 1 − cos(h(z_IR), t), is that of feature distillation (FitNets, Romero et
al., ICLR 2015, https://arxiv.org/abs/1412.6550) on normalised vectors. The contrastive one lets h
pick the photo's own target out of those of other photos, as CRD (Tian et al., ICLR 2020,
https://arxiv.org/abs/1910.10699) does; the targets do not change, so that a queue of them never
ages, and negatives cost one product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clever_hub.errors import ConfigError
from clever_training.objectives.base import Objective, Projections
from clever_training.objectives.projectors import PlainHead
from clever_training.runtime.gathering import average, gather_photos, world_size

FORMS = ("regression", "contrastive")
HEADS = ("linear", "mlp")


def distill_regression(
    views: Float[Tensor, "views batch dim"], targets: Float[Tensor, "batch dim"]
) -> Float[Tensor, ""]:
    """The mean over views and photos of 1 − cos(view, target).

    Args:
        views: What the head says of each view.
        targets: The teacher's embeddings of the photos, centred.

    Returns:
        A scalar in [0, 2].

    Example:
        >>> distill_regression(torch.eye(2)[None], torch.eye(2)).item()
        0.0
    """
    return 1 - F.cosine_similarity(views, targets.unsqueeze(0), dim=-1).mean()


def distill_contrastive(
    views: Float[Tensor, "views batch dim"],
    targets: Float[Tensor, "batch dim"],
    others: Float[Tensor, "others dim"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """The mean over views and photos of −log softmax(cos(view, ·) / τ) at the photo's own target.

    Args:
        views: What the head says of each view.
        targets: The teacher's embeddings of the photos, centred.
        others: Targets of other photos, which serve as negatives.
        temperature: τ.

    Returns:
        A scalar, 0 or more.

    Example:
        >>> distill_contrastive(torch.eye(2)[None], torch.eye(2), torch.eye(2)[1:]) < 0.001
        tensor(True)
    """
    unit = F.normalize(views, dim=-1)
    own = (unit * F.normalize(targets, dim=-1)).sum(dim=-1, keepdim=True)  # (views, batch, 1)
    rest = unit @ F.normalize(others, dim=-1).T  # (views, batch, others)
    # A photo is not told apart from itself: it may be among the others.
    same = F.normalize(targets, dim=-1) @ F.normalize(others, dim=-1).T > 1 - 1e-4
    rest = rest.masked_fill(same, -torch.inf)
    logits = torch.cat([own, rest], dim=-1) / temperature
    return (torch.logsumexp(logits, dim=-1) - logits[..., 0]).mean()


class Distill(Objective):
    """Distillation as an invariance term.

    Args:
        target_dim: Length of the teacher's embedding; the builder of a run fills it in.
        form: ``regression`` or ``contrastive``.
        head: ``linear``; or ``mlp``, two layers with BatchNorm between them. A warm start, where
            student and teacher have the same network, is best off with a linear one, which begins
            as the least-squares map; else an MLP.
        hidden_dim: Width of the MLP.
        temperature: τ of the contrastive form.
        negatives: Of the contrastive form: targets of earlier photos to tell the own one apart
            from, beside the batch's.

    Attributes:
        center: The mean of the teacher's embeddings over the photos. With targets that are computed
            live it is that of the photos so far.

    Raises:
        ConfigError: When an argument is none of the known ones.

    Example:
        >>> Distill(8, head="linear").make_head(4)
        Linear(in_features=4, out_features=8, bias=True)
    """

    uses_targets = True
    center: Tensor
    centered: Tensor
    queue: Tensor

    def __init__(
        self,
        target_dim: int,
        form: str = "regression",
        head: str = "mlp",
        hidden_dim: int = 2048,
        temperature: float = 0.1,
        negatives: int = 4096,
    ) -> None:
        super().__init__()
        for key, value, known in (("form", form, FORMS), ("head", head, HEADS)):
            if value not in known:
                raise ConfigError(
                    f"method.objective_args.{key}: expected {' or '.join(known)}, got {value!r}"
                )
        if temperature <= 0 or negatives < 0:
            raise ConfigError(
                "method.objective_args: distill needs temperature > 0 and negatives >= 0, got "
                f"{temperature} and {negatives}"
            )
        self.target_dim, self.form, self.head = target_dim, form, head
        self.hidden_dim, self.temperature = hidden_dim, temperature
        self.register_buffer("center", torch.zeros(target_dim))
        # Photos that the centre is the mean of; infinite where it is known before the first step.
        self.register_buffer("centered", torch.zeros((), dtype=torch.float64))
        rows = negatives if form == "contrastive" else 0
        self.register_buffer("queue", torch.zeros(rows, target_dim))

    def make_head(self, in_dim: int) -> nn.Module:
        """A linear map, or an MLP of two layers."""
        if self.head == "linear":
            return nn.Linear(in_dim, self.target_dim)
        return PlainHead([in_dim, self.hidden_dim, self.target_dim])

    @torch.no_grad()
    def set_center(self, center: Float[Tensor, " dim"]) -> None:
        """Fix the mean of the targets, where it is known before the first step.

        Args:
            center: Over all training photos.
        """
        self.center.copy_(center)
        self.centered.fill_(torch.inf)

    def invariance(self, projections: Projections, temperature: float) -> Tensor:  # noqa: ARG002 -- the interface's
        """The regression or the contrastive term, over the photos of all processes."""
        if projections.targets is None:
            raise ValueError("distillation needs the teacher's embeddings, got None")
        self._follow(projections.targets)
        targets = projections.targets - self.center
        if self.form == "regression":
            return average(distill_regression(projections.student, targets))
        everyone = gather_photos(targets.unsqueeze(0))[0]
        known = self.queue[self.queue.abs().sum(dim=1) > 0]
        others = torch.cat([everyone, known - self.center])
        loss = distill_contrastive(projections.student, targets, others, self.temperature)
        return average(loss)

    @torch.no_grad()
    def update(self, invariant: Projections, equivariant: Projections | None) -> None:  # noqa: ARG002
        """The targets of this step's photos, of all processes, replace the queue's oldest."""
        if len(self.queue) == 0 or invariant.targets is None:
            return
        newest = gather_photos(invariant.targets.unsqueeze(0))[0]
        self.queue.copy_(torch.cat([newest, self.queue])[: len(self.queue)])

    @torch.no_grad()
    def _follow(self, targets: Tensor) -> None:
        """Move the centre by a batch, so that it is the mean of all photos so far."""
        if bool(torch.isinf(self.centered)):
            return
        mean = average(targets.mean(dim=0))
        count = len(targets) * world_size()
        self.centered += count
        self.center.lerp_(mean, count / float(self.centered))
