"""The term that makes the equivariant part predictable: its geometry, scale and indicators."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from clever_hub.errors import ConfigError
from clever_training.model.clever import Clever, LossWeights
from clever_training.objectives import make_objective
from clever_training.objectives.transformation import (
    REGRESSED,
    TransformationHead,
    relative_transformation,
    transformation_loss,
    view_pairs,
)
from clever_training.recipe.schema import Recipe, ViewsRecipe
from clever_training.run.pretrain import pretrain
from clever_training.views.parameters import ViewParameters
from clever_training.views.render import render_fast
from clever_training.views.sample import sample

SIDE = 96


def _array(view: ViewParameters) -> torch.Tensor:
    return torch.from_numpy(view.as_array())


def _parameters(photos: int, views: int, **recipe: object) -> torch.Tensor:
    """Parameters of real draws, (photos, views, columns)."""
    settings = ViewsRecipe.model_validate(
        {"strategy": "caug", "global_scale": (0.3, 1.0), **recipe}
    )
    rng = np.random.default_rng(0)
    drawn = [[sample(settings, v, 1.0, 48, rng) for v in range(views)] for _ in range(photos)]
    return torch.from_numpy(np.stack([[view.as_array() for view in row] for row in drawn]))


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_the_relative_transformation_lays_one_rendered_view_over_the_other(
    flips: tuple[bool, bool], photos: dict[str, Path]
) -> None:
    """View b, moved as the values say, shows what view a shows; moved otherwise, it does not."""
    photo = np.asarray(Image.open(photos["astronaut"]).convert("RGB"))[:400, :400]
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), 4), dtype=np.uint8)
    a = ViewParameters(box=(0.2, 0.1, 0.6, 0.6), angle=25.0, flip=flips[0])
    b = ViewParameters(box=(0.35, 0.3, 0.4, 0.4), angle=-40.0, flip=flips[1])
    relative = relative_transformation(_array(a), _array(b))
    sine, cosine, x, y, *zoom = relative.values[:6].tolist()
    assert zoom == pytest.approx([math.log(0.4 / 0.6)] * 2)
    assert bool(relative.mirrored) == (flips[0] != flips[1])

    def difference(sine: float, x: float) -> float:
        scale = math.exp(zoom[0])
        turn = scale * np.array([[cosine, sine], [-sine, cosine]])
        turn = turn @ np.diag([-1.0 if relative.mirrored else 1.0, 1.0])
        middle = (SIDE - 1) / 2
        place = np.array([x, y]) * SIDE / 2 + middle - turn @ [middle, middle]
        matrix = np.column_stack([turn, place])
        views = [render_fast(photo, view, SIDE) for view in (a, b)]
        moved = cv2.warpAffine(views[1], matrix, (SIDE, SIDE))
        inside = cv2.warpAffine(np.ones((SIDE, SIDE), np.float32), matrix, (SIDE, SIDE)) == 1
        for view in (views[0], moved):
            inside &= view.min(axis=2) > 3
        assert inside.sum() > 500
        return float(np.abs(views[0].astype(float) - moved)[inside].mean())

    assert difference(sine, x) < 3
    assert difference(-sine, x) > 10
    assert difference(sine, -x) > 10 or abs(x) < 0.05


def test_colour_is_relative_and_unknown_where_a_view_is_grey() -> None:
    a = ViewParameters(brightness=0.8, saturation=1.0, hue=0.05)
    b = ViewParameters(brightness=1.2, saturation=0.5, hue=-0.05)
    relative = relative_transformation(_array(a), _array(b))
    expected = [math.log(1.5), 0.0, math.log(0.5), -0.1]
    assert relative.values[6:10].tolist() == pytest.approx(expected, abs=1e-6)
    assert relative.known.tolist() == [1.0] * 12
    grey = relative_transformation(_array(a), _array(ViewParameters(grayscale=True)))
    assert grey.known.tolist() == [1.0] * 8 + [0.0] * 2 + [1.0] * 2


def test_blind_guesses_cost_one_and_perfect_ones_nothing() -> None:
    parameters, pairs = _parameters(64, 3), view_pairs(3, 2)
    head = TransformationHead(5)
    blind = head(torch.randn(3, 64, 5), pairs)
    loss, indicators = transformation_loss(blind, parameters, pairs)
    assert loss.item() == pytest.approx(1.0, abs=1e-4)
    assert {k: round(v.item(), 3) for k, v in indicators.items() if k != "accuracy_flip"} == {
        "r2_rotation": 0.0,
        "r2_crop": 0.0,
        "r2_color": 0.0,
        "r2_turn": 0.0,
    }
    perfect = _perfect(parameters, pairs)
    loss, indicators = transformation_loss(perfect, parameters, pairs)
    assert loss.item() < 1e-3
    assert all(value.item() == pytest.approx(1.0, abs=1e-4) for value in indicators.values())


def _perfect(parameters: torch.Tensor, pairs: list[tuple[int, int]]) -> torch.Tensor:
    a, b = (parameters[:, list(v)].transpose(0, 1) for v in zip(*pairs, strict=True))
    relative = relative_transformation(a, b)
    known = relative.known.flatten(0, 1)
    values = relative.values.flatten(0, 1)
    mean = (known * values).sum(0) / known.sum(0)
    variance = (known * (values - mean) ** 2).sum(0) / known.sum(0)
    variance[:2], variance[10:] = variance[:2].mean(), variance[10:].mean()
    scaled = (relative.values - mean) / variance.sqrt()
    logit = relative.mirrored.float().mul(40).sub(20).unsqueeze(-1)
    return torch.cat([scaled, logit], dim=-1)


def test_a_views_own_turn_is_told_by_its_own_part_alone() -> None:
    a, b = ViewParameters(angle=25.0), ViewParameters(angle=-40.0, flip=True)
    angle = math.radians(-40.0)
    turn = relative_transformation(_array(a), _array(b)).values[10:]
    assert turn.tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)
    head, parts = TransformationHead(5), torch.randn(2, 4, 5)
    torch.nn.init.normal_(head.last.weight)
    torch.nn.init.normal_(head.last_turn.weight)
    before = head(parts, [(0, 1)])
    parts[0] += 1
    after = head(parts, [(0, 1)])
    assert torch.equal(before[..., 10:12], after[..., 10:12])
    assert not torch.isclose(before[..., :10], after[..., :10]).all()


def test_what_does_not_vary_is_left_out() -> None:
    parameters = _parameters(16, 2, strategy="baug", flip=0.0, jitter_probability=0.0)
    predictions = torch.zeros(2, 16, REGRESSED + 1, requires_grad=True)
    loss, indicators = transformation_loss(predictions, parameters, view_pairs(2, 2))
    assert set(indicators) == {"r2_crop"}
    assert loss.item() == pytest.approx(1.0, abs=1e-4)
    still = parameters[:1, :1].expand(4, 2, -1)
    loss, indicators = transformation_loss(predictions[:, :4], still, view_pairs(2, 2))
    assert (loss.item(), indicators) == (0.0, {})
    torch.autograd.backward(loss)  # every process still has a gradient to average


def test_unknown_parameters_are_refused() -> None:
    parameters = torch.full((4, 2, 14), torch.nan)
    with pytest.raises(ConfigError, match=r"transformation_weight: .*not known.*views\.aug"):
        transformation_loss(torch.zeros(2, 4, REGRESSED + 1), parameters, view_pairs(2, 2))


def test_weight_zero_is_the_papers_method_to_the_bit() -> None:
    def build(weight: float) -> Clever:
        torch.manual_seed(0)
        backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16, 10))
        objective = make_objective("vicreg", {"dim": 8})
        return Clever(backbone, 10, 8, objective, LossWeights(transformation=weight))

    crops, parameters = [torch.rand(8, 3, 4, 4)], _parameters(4, 2)
    plain, plus = build(0.0), build(0.5)
    assert plain.student.transformation is None
    without, with_term = plain(crops, 4), plus(crops, 4, parameters=parameters)
    assert set(with_term) - set(without) >= {"transformation", "r2_crop", "accuracy_flip"}
    assert torch.equal(without["invariance"], with_term["invariance"])
    expected = without["loss"] + 0.5 * with_term["transformation"]
    torch.testing.assert_close(with_term["loss"], expected)
    with pytest.raises(ValueError, match="needs the views' parameters"):
        plus(crops, 4)


def test_bfloat16_changes_the_loss_by_rounding_alone() -> None:
    torch.manual_seed(0)
    head, parameters, pairs = TransformationHead(20), _parameters(32, 2), view_pairs(2, 2)
    torch.nn.init.normal_(head.last.weight, std=0.05)
    parts = torch.randn(2, 32, 20)
    exact, _ = transformation_loss(head(parts, pairs), parameters, pairs)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head(parts, pairs)
        assert predictions.dtype == torch.float32
        rounded, _ = transformation_loss(predictions, parameters, pairs)
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)


def test_training_with_it_is_reported(
    photo_folder: Path, tiny_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    method = {"name": "clever-plus-dino", "objective_args": {"prototypes": 64, "hidden_dim": 64}}
    recipe = tiny_recipe(method=method, run__max_steps=3)
    pretrain(recipe, str(photo_folder), tmp_path, progress=False)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["transformation"] < 2
    assert last["r2_crop"] <= 1
    assert 0 <= last["accuracy_flip"] <= 1
