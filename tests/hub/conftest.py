"""A model small enough to build in every test: a ViT of 17 thousand parameters, 32 px."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clever_hub.config import ModelConfig, PreprocessingConfig

if TYPE_CHECKING:
    from clever_hub.backends.torch import CleverModel


@pytest.fixture
def config() -> ModelConfig:
    """24 features, 19 of them invariant: ⌊0.8 · 24⌋."""
    return ModelConfig(
        name="clever-tiny",
        architecture="vit_tiny_patch16_224",
        model_args={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
        num_features=24,
        invariant_dim=19,
        preprocessing=PreprocessingConfig(resize_size=36, crop_size=32),
        provenance={"data": "none, random weights", "epochs": 0},
        data_terms="no data",
    )


@pytest.fixture
def model(config: ModelConfig) -> CleverModel:
    """Random weights, always the same; eval mode."""
    import torch

    from clever_hub.backends.torch import CleverModel

    torch.manual_seed(0)
    model = CleverModel(config)
    # timm draws weights so small that different photos give nearly the same embedding.
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.2)
    return model.eval()


@pytest.fixture
def model_folder(model: CleverModel, tmp_path: Path) -> Path:
    """The same model as a folder."""
    return model.save_pretrained(tmp_path / "clever-tiny")


@pytest.fixture
def resnet_config(config: ModelConfig) -> ModelConfig:
    """A backbone with batch norm, whose counters are whole numbers."""
    return replace(
        config,
        name="clever-resnet18",
        architecture="resnet18",
        model_args={},
        num_features=512,
        invariant_dim=409,
    )
