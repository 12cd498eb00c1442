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
    OF_PAIRS,
    REGRESSED,
    Relative,
    TargetUnits,
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
    b = ViewParameters(box=(0.4, 0.3, 0.4, 0.4), angle=-40.0, flip=flips[1])
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
    assert abs(x) > 0.1, "the other sign would make no difference"
    assert difference(sine, -x) > 10


def test_colour_is_relative_and_unknown_where_a_view_is_grey() -> None:
    a = ViewParameters(brightness=0.8, saturation=1.0, hue=0.05)
    b = ViewParameters(brightness=1.2, saturation=0.5, hue=-0.05)
    relative = relative_transformation(_array(a), _array(b))
    expected = [math.log(1.5), 0.0, math.log(0.5), -0.1]
    assert relative.values[6:10].tolist() == pytest.approx(expected, abs=1e-6)
    assert relative.known.tolist() == [1.0] * 12
    grey = relative_transformation(_array(a), _array(ViewParameters(grayscale=True)))
    assert grey.known.tolist() == [1.0] * 8 + [0.0] * 2 + [1.0] * 2


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(0.45, -0.45, 0.1), (-0.4, 0.3, -0.3), (0.2, -0.1, -0.3)]
)
def test_hue_is_a_circle(a: float, b: float, expected: float) -> None:
    views = [_array(ViewParameters(hue=hue)) for hue in (a, b)]
    assert relative_transformation(*views).values[9].item() == pytest.approx(expected, abs=1e-6)


def test_blind_guesses_cost_one_and_perfect_ones_nothing() -> None:
    parameters, pairs = _parameters(64, 3), view_pairs(3, 2)
    head = TransformationHead(5)
    blind = head(torch.randn(3, 64, 5), pairs)
    loss, indicators = transformation_loss(blind, parameters, pairs, head.unit)
    # The rotation of either branch has a deviation of its own, its mean over the pairs is near 1.
    assert loss.item() == pytest.approx(1.0, abs=0.01)
    assert {k: round(v.item(), 1) + 0.0 for k, v in indicators.items() if k != "accuracy_flip"} == {
        "r2_rotation": 0.0,
        "r2_crop": 0.0,
        "r2_color": 0.0,
        "r2_turn": 0.0,
    }
    perfect = _perfect(parameters, pairs, head.unit)
    loss, indicators = transformation_loss(perfect, parameters, pairs, head.unit)
    assert loss.item() < 1e-3
    assert all(value.item() == pytest.approx(1.0, abs=1e-4) for value in indicators.values())


def _relative(parameters: torch.Tensor, pairs: list[tuple[int, int]]) -> Relative:
    a, b = (parameters[:, list(v)].transpose(0, 1) for v in zip(*pairs, strict=True))
    return relative_transformation(a, b)


def _perfect(
    parameters: torch.Tensor, pairs: list[tuple[int, int]], unit: TargetUnits
) -> torch.Tensor:
    """What is true of each pair; the rotation of the wrong mirroring is nonsense."""
    relative = _relative(parameters, pairs)
    rotation, rest = relative.values[..., :2], relative.values[..., 2:]
    mirrored = relative.mirrored.unsqueeze(-1)
    nonsense = torch.full_like(rotation, 7.0)
    branches = [
        torch.where(mirrored, *pair) for pair in ((nonsense, rotation), (rotation, nonsense))
    ]
    scaled = (torch.cat([*branches, rest], dim=-1) - unit.center) / unit.scale
    logit = relative.mirrored.float().mul(40).sub(20).unsqueeze(-1)
    return torch.cat([scaled, logit], dim=-1)


def test_units_are_those_of_all_pairs_so_far_whatever_the_batches_were() -> None:
    """Also where a value is not known of some pairs, or of any of a batch."""
    parameters, pairs = _parameters(48, 3, grayscale=0.5), view_pairs(3, 2)
    parameters[:4, :, 10] = 1  # grey views: a batch without hue and saturation
    whole, parts = TargetUnits(), TargetUnits()
    whole.observe(_relative(parameters, pairs))
    for batch in torch.split(parameters, [4, 20, 24]):
        parts.observe(_relative(batch, pairs))
    torch.testing.assert_close(parts.center, whole.center)
    torch.testing.assert_close(parts.scale, whole.scale)
    relative = _relative(parameters, pairs)
    straight = relative.values[~relative.mirrored]
    torch.testing.assert_close(whole.center[:2], straight[:, :2].mean(dim=0))
    mirrored = relative.values[relative.mirrored]
    torch.testing.assert_close(whole.center[2:4], mirrored[:, :2].mean(dim=0))
    hues = relative.values[..., 9][relative.known[..., 9] > 0]
    torch.testing.assert_close(whole.center[11], hues.mean())
    torch.testing.assert_close(whole.scale[11], hues.std(correction=0))
    spread = straight[:, :2].var(dim=0, correction=0).mean().sqrt()
    torch.testing.assert_close(whole.scale[:2], spread.expand(2))


def test_units_stay_in_evaluation() -> None:
    head, parameters, pairs = TransformationHead(5), _parameters(8, 2), view_pairs(2, 2)
    transformation_loss(head(torch.zeros(2, 8, 5), pairs), parameters, pairs, head.unit)
    before = head.unit.count.clone()
    assert before.max() == 16
    head.eval()
    transformation_loss(head(torch.zeros(2, 8, 5), pairs), parameters, pairs, head.unit)
    assert torch.equal(head.unit.count, before)


def test_the_rotation_is_asked_of_the_branch_that_is_true() -> None:
    parameters, pairs, unit = _parameters(32, 2), view_pairs(2, 2), TargetUnits()
    predictions = torch.zeros(2, 32, REGRESSED + 1, requires_grad=True)
    loss, _ = transformation_loss(predictions, parameters, pairs, unit)
    (gradient,) = torch.autograd.grad(loss, predictions)
    mirrored = _relative(parameters, pairs).mirrored
    assert mirrored.any()
    assert (~mirrored).any()
    assert gradient[mirrored][:, :2].abs().max() == 0
    assert gradient[~mirrored][:, 2:4].abs().max() == 0
    assert (gradient[mirrored][:, 2:4].abs().sum(dim=1) > 0).all()
    assert (gradient[~mirrored][:, :2].abs().sum(dim=1) > 0).all()


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
    turns = slice(OF_PAIRS, REGRESSED)
    assert torch.equal(before[..., turns], after[..., turns])
    assert not torch.isclose(before[..., :OF_PAIRS], after[..., :OF_PAIRS]).all()


def test_what_does_not_vary_is_left_out() -> None:
    parameters = _parameters(16, 2, strategy="baug", flip=0.0, jitter_probability=0.0)
    predictions = torch.zeros(2, 16, REGRESSED + 1, requires_grad=True)
    loss, indicators = transformation_loss(predictions, parameters, view_pairs(2, 2), TargetUnits())
    assert set(indicators) == {"r2_crop"}
    assert loss.item() == pytest.approx(1.0, abs=1e-4)
    still = parameters[:1, :1].expand(4, 2, -1)
    pairs, unit = view_pairs(2, 2), TargetUnits()
    loss, indicators = transformation_loss(predictions[:, :4], still, pairs, unit)
    assert (loss.item(), indicators) == (0.0, {})
    torch.autograd.backward(loss)  # every process still has a gradient to average


def test_unknown_parameters_are_refused() -> None:
    parameters = torch.full((4, 2, 14), torch.nan)
    predictions, pairs = torch.zeros(2, 4, REGRESSED + 1), view_pairs(2, 2)
    with pytest.raises(ConfigError, match=r"transformation_weight: .*not known.*views\.aug"):
        transformation_loss(predictions, parameters, pairs, TargetUnits())


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
    exact, _ = transformation_loss(head(parts, pairs), parameters, pairs, head.unit)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head(parts, pairs)
        assert predictions.dtype == torch.float32
        rounded, _ = transformation_loss(predictions, parameters, pairs, head.eval().unit)
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


def test_groups_count_by_their_shares() -> None:
    torch.manual_seed(0)
    parameters, pairs = _parameters(32, 2), view_pairs(2, 2)
    predictions = torch.randn(2, 32, REGRESSED + 1)
    every = ("rotation", "crop", "color", "turn", "mirroring")

    def loss(**shares: float) -> torch.Tensor:
        return transformation_loss(predictions, parameters, pairs, TargetUnits(), shares)[0]

    alone = {name: loss(**{**dict.fromkeys(every, 0.0), name: 3.0}) for name in every}
    torch.testing.assert_close(loss(), torch.stack(list(alone.values())).mean())
    expected = (2 * alone["rotation"] + 0.5 * alone["crop"]) / 2.5
    found = loss(rotation=2.0, crop=0.5, color=0.0, turn=0.0, mirroring=0.0)
    torch.testing.assert_close(found, expected)
    assert loss(**dict.fromkeys(every, 0.0)) == 0
