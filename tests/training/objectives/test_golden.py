"""Agreement with the outputs of the method's published implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clever_training.objectives import Projections
from clever_training.objectives.dino import Dino
from clever_training.objectives.equivariance import projector_regularization, squared_norm
from clever_training.objectives.projectors import DinoHead
from clever_training.objectives.simsiam import Simsiam
from clever_training.recipe.schema import Recipe
from clever_training.run.schedule import settings_at


def _temperature(golden: Any, epoch: int) -> float:
    """The teacher's temperature at an epoch, by our own schedule from the published settings."""
    recipe = Recipe.parse(
        {
            "name": "golden",
            "method": {
                "warmup_teacher_temperature": float(golden["warmup_teacher_temp"]),
                "teacher_temperature": float(golden["teacher_temp"]),
                "warmup_teacher_temperature_epochs": int(golden["warmup_teacher_temp_epochs"]),
            },
            "run": {"epochs": int(golden["epochs"])},
        }
    )
    return settings_at(recipe, epoch * 10, steps_per_epoch=10).temperature


def test_losses_centres_and_gradients_of_three_steps(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "clever_dino_loss.npz")
    batch = int(golden["batch"])
    objective = Dino(prototypes=int(golden["out_dim"]))
    for step, epoch in enumerate(golden["step_epochs"]):

        def read(name: str, step: int = step) -> torch.Tensor:
            return torch.from_numpy(golden[f"step{step}/{name}"])

        def views(name: str, read: Any = read) -> torch.Tensor:
            stacked: torch.Tensor = read(name).unflatten(0, (-1, batch))
            return stacked

        student_ir, student_ef = (
            views(f"student_{part}").requires_grad_() for part in ("ir", "ef")
        )
        invariant = Projections(student_ir, views("teacher_ir"))
        equivariant = Projections(student_ef, views("teacher_ef"))
        temperature = _temperature(golden, int(epoch))
        contrastive = objective.invariance(invariant, temperature)
        orthogonality = objective.orthogonality(equivariant, temperature)
        total = contrastive + float(golden["orthogonality_weight"]) * orthogonality
        torch.autograd.backward(total)
        objective.update(invariant, equivariant)

        exact: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-12}
        torch.testing.assert_close(contrastive.detach(), read("loss_contrastive"), **exact)
        # cos of two nearly orthogonal vectors: its rounding is that of its operands.
        torch.testing.assert_close(
            orthogonality.detach(), read("loss_orthogonality"), rtol=1e-5, atol=1e-8
        )
        torch.testing.assert_close(total.detach(), read("loss"), **exact)
        for found, name in ((student_ir.grad, "ir"), (student_ef.grad, "ef")):
            assert found is not None
            expected = read(f"grad_student_{name}")
            scale = float(expected.abs().max())
            difference = (found.flatten(0, 1) - expected).abs().max()
            assert float(difference) <= 1e-5 * scale
        torch.testing.assert_close(objective.teacher_invariant_center, read("center_ir"), **exact)
        torch.testing.assert_close(objective.teacher_equivariant_center, read("center_ef"), **exact)


def test_losses_of_clever_on_simsiam(golden_dir: Path) -> None:
    golden = np.load(golden_dir / "simsiam_clever_loss.npz")

    def heads_output(part: str) -> Projections:
        """As ``SimsiamHead`` gives it: projection and prediction side by side."""
        views = [
            np.concatenate([golden[f"z{view}_{part}"], golden[f"p{view}_{part}"]], axis=1)
            for view in (1, 2)
        ]
        return Projections(torch.from_numpy(np.stack(views)).requires_grad_())

    objective = Simsiam()
    invariant, equivariant = heads_output("ir"), heads_output("ef")
    contrastive = objective.invariance(invariant, 0.0)
    orthogonality = objective.orthogonality(equivariant, 0.0)
    total = contrastive + orthogonality
    assert contrastive.item() == pytest.approx(float(golden["loss_contrastive"]), rel=1e-5)
    assert orthogonality.item() == pytest.approx(float(golden["loss_orthogonality"]), rel=1e-5)
    assert total.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    torch.autograd.backward(total)
    for part in (invariant, equivariant):
        assert part.student.grad is not None
        gradient_z, gradient_p = part.student.grad.chunk(2, dim=-1)
        assert not gradient_z.any()  # stopped
        assert gradient_p.any()


@pytest.fixture
def heads(golden_dir: Path) -> tuple[Any, dict[str, DinoHead]]:
    """The published heads' weights in ours."""
    golden = np.load(golden_dir / "dino_head.npz")
    heads = {}
    for part in ("ir", "ef"):
        prefix = f"{part}/state/"
        state = {
            key.removeprefix(prefix): torch.from_numpy(golden[key])
            for key in golden
            if key.startswith(prefix)
        }
        hidden, in_dim = state["mlp.0.weight"].shape
        out_dim, bottleneck = state["last_layer.weight_v"].shape
        heads[part] = DinoHead(in_dim, out_dim, hidden, bottleneck)
        heads[part].load_state_dict(state, strict=True)
    return golden, heads


def test_heads_load_published_weights_and_give_the_same_logits(heads: Any) -> None:
    golden, ours = heads
    for part, head in ours.items():
        with torch.no_grad():
            found = head(torch.from_numpy(golden[f"{part}/input"]))
        torch.testing.assert_close(
            found, torch.from_numpy(golden[f"{part}/output"]), rtol=1e-5, atol=1e-6
        )


def test_projector_regularization_counts_the_frozen_gains_too(heads: Any) -> None:
    golden, ours = heads
    for part, head in ours.items():
        expected = float(golden[f"{part}/sum_of_squared_parameters"])
        assert squared_norm(head).item() == pytest.approx(expected, rel=1e-5)
    found = projector_regularization(ours["ir"], ours["ef"]).item()
    assert found == pytest.approx(float(golden["projector_regularization"]), rel=1e-4)
