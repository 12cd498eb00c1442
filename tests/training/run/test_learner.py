"""What a step is made of: the backbone's input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from clever_training.recipe.schema import Recipe
from clever_training.run.learner import Learner, make_accelerator


@pytest.mark.parametrize("channels_last", [False, True])
def test_crops_are_normalised_by_numbers_that_are_made_once(
    channels_last: bool, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    recipe = tiny_recipe(backbone__mean=mean, backbone__std=std, run__channels_last=channels_last)
    learner = Learner(recipe, make_accelerator(recipe))
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, generator=generator)
    expected = (crops.float() - torch.tensor(mean) * 255) / (torch.tensor(std) * 255)
    # On a GPU a new tensor is a copy from the host, for each size of views in each step.
    monkeypatch.delattr(torch, "tensor")
    pixels = learner.normalize(crops)
    assert torch.equal(pixels, expected.permute(0, 3, 1, 2)), "bit for bit"
    assert pixels.is_contiguous() is not channels_last
