"""Invariance and equivariance terms: against other implementations, and at their limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import VICRegLoss

from clever_hub.errors import ConfigError
from clever_training.equivariance import orthogonality_loss
from clever_training.objectives import make_objective
from clever_training.objectives.dino import dino_loss, sharpen, update_center
from clever_training.objectives.vicreg import vicreg_loss


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class TestDino:
    def test_is_the_published_double_loop(self) -> None:
        student, teacher = _random(4, 5, 7), _random(2, 5, 7)
        center = _random(1, 7)
        total, terms = torch.zeros(()), 0
        for q in range(2):
            target = F.softmax((teacher[q] - center) / 0.04, dim=-1)
            for v in range(4):
                if v != q:
                    log = F.log_softmax(student[v] / 0.1, dim=-1)
                    total, terms = total + torch.sum(-target * log, dim=-1).mean(), terms + 1
        found = dino_loss(F.log_softmax(student / 0.1, dim=-1), sharpen(teacher, center, 0.04))
        torch.testing.assert_close(found, total / terms)

    def test_a_view_is_never_compared_with_itself(self) -> None:
        """Changing what the student says of view 0 leaves the pair (teacher 0, student 0) out."""
        sure = torch.eye(3).unsqueeze(0)
        logs = torch.stack([torch.full((3, 3), -50.0), sure[0].clamp_min(1e-9).log()])
        assert dino_loss(logs, sure) < 1e-6

    def test_centre_moves_towards_the_batch(self) -> None:
        moved = update_center(torch.zeros(1, 3), torch.ones(1, 3), momentum=0.9)
        torch.testing.assert_close(moved, torch.full((1, 3), 0.1))


class TestVicreg:
    def test_agrees_with_lightly_on_two_views(self) -> None:
        views = _random(2, 16, 8)
        torch.testing.assert_close(vicreg_loss(views), VICRegLoss()(views[0], views[1]))

    def test_agrees_with_the_papers_pseudocode(self) -> None:
        a, b = views = _random(2, 12, 5)

        def variance(z: torch.Tensor) -> torch.Tensor:
            return F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean()

        def covariance(z: torch.Tensor) -> torch.Tensor:
            z = z - z.mean(dim=0)
            matrix = (z.T @ z) / (len(z) - 1)
            return (matrix.pow(2).sum() - matrix.diagonal().pow(2).sum()) / z.shape[1]

        # The paper's code halves the two variances; its equation 6 does not fix the factor.
        expected = (
            25 * F.mse_loss(a, b)
            + 25 * (variance(a) + variance(b)) / 2
            + (covariance(a) + covariance(b))
        )
        torch.testing.assert_close(vicreg_loss(views), expected)

    def test_order_of_photos_and_of_views_does_not_matter(self) -> None:
        views = _random(3, 10, 6)
        shuffled = views[[2, 0, 1]][:, torch.randperm(10, generator=torch.Generator())]
        torch.testing.assert_close(vicreg_loss(views), vicreg_loss(shuffled))

    def test_collapse_costs_the_whole_variance_term(self) -> None:
        same = torch.ones(2, 8, 4)
        assert vicreg_loss(same).item() == pytest.approx(25 * (1 - 1e-2), rel=1e-4)

    @pytest.mark.parametrize("shape", [(1, 8, 4), (2, 1, 4)])
    def test_one_view_or_one_photo_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="at least 2 views of 2 photos"):
            vicreg_loss(torch.zeros(shape))


class TestOrthogonality:
    def test_orthogonal_views_cost_nothing_and_equal_ones_cost_one(self) -> None:
        views = torch.eye(2)[:, None, :]  # two views of one photo
        assert orthogonality_loss(views, views) == 0
        assert orthogonality_loss(views[:1].repeat(2, 1, 1), views[:1]) == 1

    def test_scale_does_not_matter(self) -> None:
        views = _random(3, 6, 5)
        scaled = views * torch.tensor([1.0, 7.0, 0.2])[:, None, None]
        torch.testing.assert_close(
            orthogonality_loss(views, views), orthogonality_loss(scaled, scaled)
        )

    def test_absolute_value_is_taken_of_the_batch_mean(self) -> None:
        """Two photos whose cosines cancel cost nothing: the mean comes first, as published."""
        views = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 0.0]]])
        assert orthogonality_loss(views, views) == 0


def test_unknown_objective_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"method\.objective: 'vicre'.*'vicreg'"):
        make_objective("vicre", {})


def test_unknown_argument_is_named_by_its_path() -> None:
    with pytest.raises(ConfigError, match=r"method\.objective_args\.dims.*'dim'"):
        make_objective("vicreg", {"dims": 3})
