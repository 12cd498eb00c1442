"""Learning rates fall from the head on, by the decay of the backbone's kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import clever_hub
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_training.finetune.rates import describe_rates, is_transformer, parameter_groups
from clever_training.finetune.run import build_network
from clever_training.finetune.settings import FinetuneSettings


def model_folder(folder: Path, architecture: str) -> Path:
    backbone: Any = timm.create_model(architecture, num_classes=0)
    features = backbone.num_features
    config = ModelConfig(
        name="clever-tiny",
        architecture=architecture,
        num_features=features,
        invariant_dim=features // 2,
        preprocessing=PreprocessingConfig(160, 160),
        license="cc0-1.0",
    )
    return CleverModel(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("deit_tiny_patch16_224", True),
        ("swin_tiny_patch4_window7_224", True),
        ("swinv2_tiny_window8_256", True),
        ("davit_tiny", True),
        ("mvitv2_tiny", True),
        ("pvt_v2_b0", True),
        ("levit_128s", True),
        ("maxvit_tiny_rw_224", True),
        ("coatnet_0_rw_224", True),
        ("xcit_nano_12_p8_224", True),
        ("convit_tiny", True),
        ("efficientnet_lite0", False),
        ("mobilenetv3_small_100", False),
        ("mobilenetv4_hybrid_medium", False),
        ("convnext_atto", False),
        ("resnet18", False),
        ("resnet50_clip", False),
        ("resnest14d", False),
        ("skresnet18", False),
        ("botnet26t_256", False),
        ("mixer_s32_224", False),
    ],
)
def test_transformers_are_those_of_which_most_layers_attend(
    architecture: str, expected: bool
) -> None:
    with torch.device("meta"):
        backbone = timm.create_model(architecture, num_classes=0)
    assert is_transformer(backbone) is expected


@pytest.mark.parametrize(
    ("architecture", "decay", "top", "first"),
    [
        ("test_vit", 0.75, 1, 7),
        ("test_efficientnet", 0.9, 1, 6),
        ("test_resnet", 0.9, 1, 5),
    ],
)
def test_the_last_block_is_one_decay_below_the_head(
    tmp_path: Path, architecture: str, decay: float, top: int, first: int
) -> None:
    model = clever_hub.from_pretrained(model_folder(tmp_path, architecture))
    settings = FinetuneSettings(lr=1.0)
    groups = parameter_groups(build_network(model, ("a", "b"), settings), settings)
    rates = [group["lr"] for group in groups]
    assert rates[:2] == [1.0, 1.0], "the head"
    assert max(rates[2:]) == pytest.approx(decay**top)
    assert min(rates) == pytest.approx(decay**first)


def test_learning_rates_fall_from_the_head_to_the_stem(tmp_path: Path) -> None:
    model = clever_hub.from_pretrained(model_folder(tmp_path, "test_resnet"))
    settings = FinetuneSettings(lr=1.0, layer_decay=0.5)
    network = build_network(model, ("a", "b"), settings)
    groups = parameter_groups(network, settings)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert set(rate) == {id(parameter) for parameter in named.values()}
    by_layer = [
        max(rate[id(p)] for name, p in named.items() if name.startswith(f"{layer}."))
        for layer in ("clever_head", "backbone.layer4", "backbone.layer2", "backbone.layer1")
    ]
    assert by_layer == [1.0, 0.5, 0.125, 0.0625]
    assert describe_rates(groups) == (
        "learning rate 1 at the head, falling to 0.0312 at the first layer"
    )
    assert all(decay[id(p)] == 0 for p in named.values() if p.ndim == 1)
    frozen = FinetuneSettings(freeze=True)
    assert len(parameter_groups(build_network(model, ("a", "b"), frozen), frozen)) == 2
