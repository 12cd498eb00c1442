"""timm adapts a model folder to other classes and channels, as it does its own models."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from clever_hub.backends.torch import CleverModel
from clever_hub.config import CONFIG_NAME, ModelConfig


@pytest.fixture(params=["vit", "resnet"])
def folder(
    request: pytest.FixtureRequest,
    model: CleverModel,
    resnet_config: ModelConfig,
    tmp_path: Path,
) -> Path:
    torch.manual_seed(0)
    made = model if request.param == "vit" else CleverModel(resnet_config)
    return made.save_pretrained(tmp_path / request.param)


def test_other_classes_and_channels_load(folder: Path) -> None:
    config = ModelConfig.load(folder)
    source: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    adapted: Any = timm.create_model(
        f"local-dir:{folder}", pretrained=True, num_classes=10, in_chans=1
    ).eval()
    size = config.preprocessing.crop_size
    gray = torch.rand(2, 1, size, size)
    assert adapted(gray).shape == (2, 10)
    # The first filters are summed over the channels: gray pixels give what three equal ones do.
    expected = source.forward_features(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(adapted.forward_features(gray), expected, atol=1e-4, rtol=1e-4)


def test_names_are_kept_when_a_folder_is_saved_again(folder: Path, tmp_path: Path) -> None:
    again = CleverModel.from_folder(folder).save_pretrained(tmp_path / "again")
    first, second = (json.loads((place / CONFIG_NAME).read_text()) for place in (folder, again))
    assert first["pretrained_cfg"]["classifier"] in ("fc", "head")
    assert first == second


def test_onnxruntime_releases_that_refuse_linked_weights_are_excluded(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for name, package in (("onnx", "onnxruntime"), ("onnx-gpu", "onnxruntime-gpu")):
        (constraint,) = [entry for entry in extras[name] if entry.startswith(f"{package}>")]
        assert {"!=1.24.0", "!=1.24.1"} <= set(constraint.removeprefix(package).split(","))
