"""Model folders with a graph, exported once for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clever_export.onnx import export_onnx
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from tests.hub_server.client import Client
from tests.hub_server.server import HubServer
from tests.hub_server.state import User

BACKBONES: dict[str, tuple[dict[str, Any], int]] = {
    "test_resnet": ({}, 96),
    "test_vit": ({"img_size": 32, "patch_size": 8}, 64),
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Gives the folder of a backbone, matrices in float16 or not; not to be written to."""
    made: dict[tuple[str, bool], Path] = {}

    def folder(architecture: str, half: bool = True) -> Path:
        key = (architecture, half)
        if key not in made:
            torch.manual_seed(0)
            arguments, features = BACKBONES[architecture]
            config = ModelConfig(
                name=f"clever-{architecture.replace('_', '-')}",
                architecture=architecture,
                model_args=arguments,
                num_features=features,
                invariant_dim=features * 4 // 5,
                preprocessing=PreprocessingConfig(36, 32),
            )
            model = CleverModel(config)
            with torch.no_grad():  # running statistics and gains of a trained model are not 0 and 1
                for name, value in model.backbone.state_dict().items():
                    if value.ndim == 1 and value.is_floating_point():
                        value.add_(0.1 * torch.rand_like(value) * (2 if "var" in name else 1))
            made[key] = model.save_pretrained(tmp_path_factory.mktemp("model"), half_matrices=half)
            export_onnx(made[key])
        return made[key]

    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[HubServer, Client]]:
    """A Hub, and a machine whose user may write to it."""
    with (
        HubServer(tmp_path / "hub", {"hf_alice": User("alice")}) as server,
        Client(tmp_path / "home", server.url, "hf_alice", xet=False) as client,
    ):
        yield server, client
