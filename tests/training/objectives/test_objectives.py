"""Invariance and equivariance terms: against other implementations, and at their limits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss
from lightly.loss.lejepa_loss import LeJEPALoss, SIGReg

from clever_hub.errors import ConfigError
from clever_training.objectives import make_objective
from clever_training.objectives.dino import dino_loss, sharpen, update_center
from clever_training.objectives.equivariance import (
    cosine_matrix,
    orthogonality_loss,
    symmetric_orthogonality,
)
from clever_training.objectives.lejepa import lejepa_loss, sigreg
from clever_training.objectives.simclr import nt_xent_loss
from clever_training.objectives.simsiam import Simsiam, simsiam_loss
from clever_training.objectives.vicreg import vicreg_loss


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class TestDino:
    def test_a_state_with_the_centres_former_names_is_loaded(self) -> None:
        names = ("teacher_invariant_center", "teacher_equivariant_center")
        written, read = (make_objective("dino", {"prototypes": 7}) for _ in range(2))
        for name in names:
            getattr(written, name).copy_(_random(1, 7) + len(name))
        former = dict(zip(("center_ir", "center_ef"), written.state_dict().values(), strict=True))
        parent = torch.nn.ModuleDict({"objective": read})
        parent.load_state_dict({f"objective.{key}": value for key, value in former.items()})
        for name in names:
            assert torch.equal(getattr(read, name), getattr(written, name))
        assert tuple(read.state_dict()) == names

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

    def test_agrees_with_lightly_on_multi_crop(self) -> None:
        student, teacher = _random(4, 5, 7), _random(2, 5, 7)
        theirs = DINOLoss(output_dim=7, teacher_temp=0.04, student_temp=0.1)
        expected = theirs(list(teacher), list(student), teacher_temp=0.04)
        target = sharpen(teacher, torch.zeros(1, 7), 0.04)
        found = dino_loss(F.log_softmax(student / 0.1, dim=-1), target)
        torch.testing.assert_close(found, expected)
        # lightly moves its centre in the same call.
        moved = update_center(torch.zeros(1, 7), teacher.mean(dim=(0, 1)).unsqueeze(0))
        torch.testing.assert_close(moved, theirs.center.reshape(1, 7))

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


class TestSimclr:
    @pytest.mark.parametrize("temperature", [0.1, 0.5])
    def test_agrees_with_lightly_on_two_views(self, temperature: float) -> None:
        views = _random(2, 16, 8)
        expected = NTXentLoss(temperature=temperature)(views[0], views[1])
        torch.testing.assert_close(nt_xent_loss(views, temperature), expected)

    def test_agrees_with_the_papers_algorithm(self) -> None:
        """Algorithm 1 of the paper, in float64, as loops over i, j and k."""
        views = _random(2, 5, 6).double()
        z = views.transpose(0, 1).reshape(10, 6)  # z[2k], z[2k + 1]: the views of photo k
        similarity = F.cosine_similarity(z[:, None], z[None], dim=-1) / 0.5
        total = torch.zeros((), dtype=torch.float64)
        for i in range(10):
            others = torch.stack([similarity[i, k] for k in range(10) if k != i])
            total = total - (similarity[i, i ^ 1] - others.logsumexp(0))
        torch.testing.assert_close(nt_xent_loss(views), total / 10)

    def test_more_views_are_the_mean_over_pairs(self) -> None:
        views = _random(3, 6, 4)
        pairs = [nt_xent_loss(views[list(pair)]) for pair in ((0, 1), (0, 2), (1, 2))]
        torch.testing.assert_close(nt_xent_loss(views), torch.stack(pairs).mean())

    def test_scale_and_order_do_not_matter_and_collapse_costs_a_blind_guess(self) -> None:
        views = _random(2, 10, 6)
        turned = 3 * views.flip(0, 1)
        torch.testing.assert_close(nt_xent_loss(views), nt_xent_loss(turned))
        assert nt_xent_loss(torch.ones(2, 8, 4)).exp().item() == pytest.approx(15, rel=1e-5)

    @pytest.mark.parametrize("shape", [(1, 8, 4), (2, 1, 4)])
    def test_one_view_or_one_photo_is_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match="at least 2 views of 2 photos"):
            nt_xent_loss(torch.zeros(shape))


class TestSimsiam:
    def test_agrees_with_lightly_and_stops_the_gradient_of_the_target(self) -> None:
        p, z = _random(2, 6, 5).requires_grad_(), _random(2, 6, 5).flip(0).requires_grad_()
        theirs = NegativeCosineSimilarity()
        expected = (theirs(p[0], z[1].detach()) + theirs(p[1], z[0].detach())) / 2
        found = simsiam_loss(p, z)
        torch.testing.assert_close(found, expected)
        torch.autograd.backward(found)
        assert p.grad is not None
        assert z.grad is None

    def test_a_view_does_not_predict_itself(self) -> None:
        """Predictions equal to their own projections, orthogonal to the others': no reward."""
        views = torch.eye(3)[:, None, :]
        assert simsiam_loss(views, views) == 0

    def test_orthogonality_is_the_absolute_mean_of_both_directions(self) -> None:
        p, z = _random(2, 6, 5), _random(2, 6, 5).flip(2)
        cosine = torch.nn.CosineSimilarity(dim=1)
        both = (cosine(p[0], z[1]).mean() + cosine(p[1], z[0]).mean()) / 2
        torch.testing.assert_close(symmetric_orthogonality(cosine_matrix(p, z)), both.abs())

    def test_heads_are_those_of_the_paper(self) -> None:
        head = Simsiam(dim=16, bottleneck_dim=4).make_head(8)
        linear = [m for m in head.modules() if isinstance(m, torch.nn.Linear)]
        shapes = [(layer.in_features, layer.out_features) for layer in linear]
        assert shapes == [(8, 16), (16, 16), (16, 16), (16, 4), (4, 16)]
        norms = [m for m in head.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        assert [norm.affine for norm in norms] == [True, True, False, True]

    def test_regularization_is_half_of_both_gaps(self) -> None:
        objective = Simsiam(dim=4, bottleneck_dim=2)
        one, other = objective.make_head(6), objective.make_head(3)

        def total(module: torch.nn.Module) -> float:
            return sum(p.pow(2).sum().item() for p in module.parameters())

        gaps = [
            abs(total(a) - total(b)) for a, b in zip(one.children(), other.children(), strict=True)
        ]
        found = objective.regularization(one, other).item()
        assert found == pytest.approx(sum(gaps) / 2, rel=1e-4)


class TestLejepa:
    def _directions(self, seed: int, dim: int, slices: int) -> torch.Tensor:
        """Those that lightly draws after this seed; ours are rows."""
        torch.manual_seed(seed)
        return torch.randn(dim, slices).T

    def test_sigreg_agrees_with_lightly(self) -> None:
        vectors = _random(32, 8) * 1.7 + 0.3
        directions = self._directions(3, 8, 64)
        torch.manual_seed(3)
        torch.testing.assert_close(sigreg(vectors, directions), SIGReg(num_vectors=64)(vectors))

    def test_agrees_with_lightly_on_two_global_and_three_local_views(self) -> None:
        views = _random(5, 16, 8)
        directions = self._directions(4, 8, 32)
        torch.manual_seed(4)
        theirs = LeJEPALoss(sigreg_num_vectors=32)
        expected = theirs(global_proj=views[:2], local_proj=views[2:])
        torch.testing.assert_close(lejepa_loss(views, directions, global_count=2), expected)

    def test_sigreg_is_the_papers_statistic_in_complex_numbers(self) -> None:
        """N ∫ |mean exp(itx) − exp(−t²/2)|² exp(−t²/2) dt along one axis, on a fine grid."""
        x = _random(40, 1).double()
        t = torch.linspace(-3, 3, 33, dtype=torch.float64)
        empirical = torch.exp(1j * x * t).mean(dim=0)
        target = torch.exp(-(t**2) / 2)
        expected = 40 * torch.trapezoid((empirical - target).abs() ** 2 * target, t)
        found = sigreg(x.float(), torch.ones(1, 1))
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)

    def test_sigreg_tells_gaussian_from_collapsed_and_from_uniform(self) -> None:
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(64, 8, generator=generator)
        gaussian = sigreg(torch.randn(512, 8, generator=generator), directions)
        uniform = sigreg(torch.rand(512, 8, generator=generator) * 12**0.5, directions)
        # The mean over Gaussian samples is √(2π) (1 − 1/√3), whatever their size.
        assert gaussian.item() == pytest.approx(1.06, abs=0.25)
        assert uniform > 10 * gaussian
        assert sigreg(torch.zeros(512, 8), directions) > 100 * gaussian

    def test_length_of_the_directions_does_not_matter(self) -> None:
        views, directions = _random(3, 16, 8), _random(5, 8)
        torch.testing.assert_close(
            lejepa_loss(views, directions), lejepa_loss(views, directions * 7)
        )

    def test_one_photo_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 2 photos"):
            lejepa_loss(torch.zeros(2, 1, 4), torch.eye(4))


class TestOrthogonality:
    def test_orthogonal_views_cost_nothing_and_equal_ones_cost_one(self) -> None:
        views = torch.eye(2)[:, None, :]  # two views of one photo
        assert orthogonality_loss(views, views) == 0
        assert orthogonality_loss(views[:1].repeat(2, 1, 1), views[:1]) == 1

    def test_agrees_with_torchs_cosine_pair_by_pair(self) -> None:
        students, targets = _random(4, 6, 5), _random(2, 6, 5)
        cosines = [
            F.cosine_similarity(targets[q], students[v], dim=-1).mean().abs()
            for q in range(2)
            for v in range(4)
            if v != q
        ]
        found = orthogonality_loss(students, targets)
        torch.testing.assert_close(found, torch.stack(cosines).mean())

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


def test_arguments_have_the_types_that_are_annotated() -> None:
    assert make_objective("vicreg", {"dim": 1e3}).dim == 1000  # as YAML reads 1e3
    with pytest.raises(ConfigError, match=r"method\.objective_args\.dim: expected int, got 'wide'"):
        make_objective("vicreg", {"dim": "wide"})
