"""A batch in parts is the whole batch: same terms, same gradients, less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clever_hub.errors import ConfigError
from clever_training.data.loader import Views, make_loader
from clever_training.data.orders import Order
from clever_training.data.photos import load_photos
from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.schedule import settings_at

VIT = {
    "backbone__architecture": "test_vit",
    "backbone__model_args": {"img_size": 32, "patch_size": 8, "dynamic_img_size": True},
}


@pytest.mark.parametrize("parts", [2, 3])
def test_terms_and_weights_are_those_of_the_whole_batch(
    parts: int, photo_folder: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    photos, terms, learners = load_photos(str(photo_folder)), [], []
    for count in (1, parts):
        recipe = tiny_recipe(
            "dino", run__accumulation=count, run__precision="fp32", optimizer__name="sgd", **VIT
        )
        learner = Learner(recipe, make_accelerator(recipe))
        learner.prepare()
        seen: list[int] = []
        block = learner.clever.student.backbone.get_submodule("patch_embed")
        block.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(len(inputs[0])))
        batch = next(iter(make_loader(Views(photos, recipe), Order(recipe, 48, 0, 1), 0)))
        terms.append(learner.step(0, 0.0, batch, settings_at(recipe, 0, 6)))
        learners.append((learner, max(seen)))
    (whole, most), (in_parts, fewer) = learners
    assert fewer <= -(-most // parts), "no more than a part of the batch passes at once"
    for name, value in terms[0].items():
        torch.testing.assert_close(terms[1][name], value, rtol=1e-4, atol=1e-5)
    others = dict(in_parts.clever.named_parameters())
    for name, value in whole.clever.named_parameters():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-5)


def test_batch_norm_whose_statistics_would_change_is_refused(
    tiny_recipe: Callable[..., Recipe],
) -> None:
    recipe = tiny_recipe(run__accumulation=2)
    with pytest.raises(ConfigError, match=r"run\.accumulation: 2, but the backbone has BatchNorm"):
        Learner(recipe, make_accelerator(recipe))
