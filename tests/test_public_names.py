"""The public names of the packages, and the checks of shapes that the test suite switches on."""

from __future__ import annotations

import importlib

import pytest
import torch
from jaxtyping import TypeCheckError

from clever_hub import ModelConfig, PreprocessingConfig
from clever_hub.backends.torch import CleverModel
from clever_training.objectives.equivariance import cosine_matrix
from clever_training.views.parameters import ViewParameters


@pytest.mark.parametrize("package", ["clever_hub", "clever_training", "clever_export"])
def test_every_public_name_can_be_imported_and_is_listed(package: str) -> None:
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        module.no_such_name  # noqa: B018 -- looked up for its error


def test_shapes_are_checked_in_training() -> None:
    with pytest.raises(TypeCheckError):
        cosine_matrix(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5))


def test_shapes_are_checked_in_the_torch_backend() -> None:
    config = ModelConfig("tiny", "resnet10t", 512, 409, PreprocessingConfig(32, 32))
    with pytest.raises(TypeCheckError):
        CleverModel(config)(torch.zeros(3, 8, 8))


def test_types_are_checked_in_folders_of_training() -> None:
    with pytest.raises(TypeCheckError):
        ViewParameters(angle="upright")  # type: ignore[arg-type]
