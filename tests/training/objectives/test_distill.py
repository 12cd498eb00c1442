"""Distillation: a planted teacher is recovered, in both forms; terms can be mixed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clever_hub.errors import ConfigError
from clever_training.objectives import make_objective
from clever_training.objectives.base import Projections
from clever_training.objectives.distill import Distill, distill_contrastive, distill_regression
from clever_training.objectives.mixture import Mixture, SideBySide
from clever_training.objectives.simclr import Simclr


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_regression_is_one_less_the_cosine() -> None:
    views, targets = _random(3, 5, 7), _random(5, 7, seed=1)
    expected = torch.stack(
        [1 - F.cosine_similarity(views[v], targets, dim=1).mean() for v in range(3)]
    ).mean()
    torch.testing.assert_close(distill_regression(views, targets), expected)
    torch.testing.assert_close(distill_regression(views * 3, targets * 0.1), expected)
    torch.testing.assert_close(distill_regression(-targets[None], targets), torch.tensor(2.0))


def test_contrastive_is_the_cross_entropy_of_picking_the_own_target() -> None:
    views, targets, others = _random(2, 4, 7), _random(4, 7, seed=1), _random(6, 7, seed=2)
    bank = F.normalize(torch.cat([targets, others]), dim=1)
    logits = F.normalize(views, dim=-1) @ bank.T / 0.2
    expected = torch.stack([F.cross_entropy(logit, torch.arange(4)) for logit in logits]).mean()
    # The batch's own targets are among the others, and no photo is told apart from itself.
    found = distill_contrastive(views, targets, bank, temperature=0.2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("form", "cosine"), [("regression", 0.99), ("contrastive", 0.95)])
def test_a_planted_teacher_is_recovered_by_a_linear_student(form: str, cosine: float) -> None:
    """Its embedding is a linear map of what the student sees, far from centred.

    The contrastive form also keeps away from other photos' targets, and so from the own one a bit.
    """
    torch.manual_seed(0)
    seen, held_out = _random(512, 12), _random(128, 12, seed=1)
    planted = _random(12, 20, seed=2)

    def teach(photos: torch.Tensor) -> torch.Tensor:
        return photos @ planted + 3.0

    objective = Distill(20, form=form, head="linear", negatives=256)
    objective.set_center(teach(seen).mean(dim=0))
    head = objective.make_head(12)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.02, weight_decay=0.0)

    def agreement() -> float:
        with torch.no_grad():
            targets = teach(held_out) - objective.center
            return float(F.cosine_similarity(head(held_out), targets, dim=1).mean())

    assert agreement() < 0.5
    for step in range(400):
        photos = seen[torch.randperm(512, generator=torch.Generator().manual_seed(step))[:64]]
        projections = Projections(head(photos)[None], targets=teach(photos))
        loss = objective.invariance(projections, 0.04)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        objective.update(projections, None)
    assert agreement() > cosine


def test_live_targets_are_centred_by_the_mean_of_all_photos_so_far() -> None:
    objective, targets = Distill(3, head="linear"), _random(24, 3) + 5
    for start, stop in ((0, 4), (4, 16), (16, 24)):
        objective.invariance(
            Projections(torch.ones(1, stop - start, 3), targets=targets[start:stop]), 0.04
        )
    torch.testing.assert_close(objective.center, targets.mean(dim=0))
    objective.set_center(torch.zeros(3))
    objective.invariance(Projections(torch.ones(1, 24, 3), targets=targets), 0.04)
    assert objective.center.abs().max() == 0


def test_the_queue_has_the_latest_targets() -> None:
    objective = Distill(2, form="contrastive", negatives=5)
    for value in (1.0, 2.0, 3.0):
        targets = torch.full((2, 2), value)
        objective.update(Projections(torch.zeros(1, 2, 2), targets=targets), None)
    assert objective.queue[:, 0].tolist() == [3.0, 3.0, 2.0, 2.0, 1.0]


def test_arguments_that_mean_nothing_are_refused() -> None:
    for arguments, message in (
        ({"form": "guess"}, r"objective_args\.form: expected regression or contrastive"),
        ({"head": "deep"}, r"objective_args\.head: expected linear or mlp"),
        ({"temperature": 0.0}, "temperature > 0"),
        ({"heads": 2}, r"objective_args\.heads: distill has no such argument.*head"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_objective("distill", {"target_dim": 4, **arguments})


def test_a_mixture_is_the_weighted_sum_with_a_head_for_each() -> None:
    torch.manual_seed(0)
    distill, simclr = Distill(6, head="linear"), Simclr(dim=8)
    mixture = Mixture([distill, simclr], [10.0, 0.5])
    assert (mixture.uses_targets, mixture.uses_teacher) == (True, False)
    head, targets = mixture.make_head(5), _random(16, 6)
    features = _random(32, 5)
    said = head(features).unflatten(0, (2, 16))
    assert said.shape == (2, 16, 14)
    distill.set_center(torch.zeros(6))
    found = mixture.invariance(Projections(said, targets=targets), 0.04)
    expected = 10 * distill.invariance(Projections(said[..., :6], targets=targets), 0.04)
    expected = expected + 0.5 * simclr.invariance(Projections(said[..., 6:]), 0.04)
    torch.testing.assert_close(found, expected)
    # The equivariant part's head and both of CLeVER's terms are those of the first.
    equivariant = mixture.make_equivariant_head(3)
    assert isinstance(equivariant, torch.nn.Linear)
    assert isinstance(head, SideBySide)
    own = distill.regularization(head.heads[0], equivariant)
    assert mixture.regularization(head, equivariant) == own
