"""A model folder with heads of random weights, and a calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from clever_hub.config import CONFIG_NAME
from clever_hub.jobs.calibration import PARTS
from clever_hub.jobs.heads import HEADS_NAME, expected_shapes
from clever_hub.weights import sha256_of

CALIBRATION: dict[str, Any] = {
    "photos": 800,
    "data": "photos of the test",
    "cosine": {
        part: {
            "1e-3": {"threshold": 0.5, "low": 0.48, "high": 0.52, "extrapolated": False},
            "1e-5": {"threshold": 0.7, "low": 0.6, "high": 0.8, "extrapolated": True},
        }
        for part in PARTS
    },
    "same": {"features": ["cosine_full"], "weights": [10.0], "bias": -5.0, "prior": 0.5},
    "orientation": {"temperature": 0.3, "confidence_at": {"0.01": 0.9}},
    "angle": {"lengths": [0.0, 0.5, 1.0], "degrees": [90.0, 20.0, 4.0], "unknown_below": 0.3},
    "mirrored": [1.0, 0.0],
    "values": {
        "zoom": {"error": 0.2, "r2": 0.8},
        "shift": {"error": 0.1, "r2": 0.7},
        "brightness": {"error": 0.1, "r2": 0.9},
        "contrast": {"error": 0.1, "r2": 0.9},
        "saturation": {"error": 0.2, "r2": 0.6},
        "hue": {"error": 0.05, "r2": 0.01},
    },
    "measured": {"angle_median": 5.5, "mirrored": 0.9, "quarter": 0.8, "quarter_from_four": 0.85},
}


def write_heads(folder: Path, calibration: dict[str, Any] | None = None) -> Path:
    """Random heads into a model folder, always the same."""
    config = json.loads((folder / CONFIG_NAME).read_text())
    features, in_dim, hidden = config["num_features"], 0, 16
    in_dim = features - config["invariant_dim"]
    random = np.random.default_rng(0)
    tensors = {
        name: random.normal(0, 0.5, shape).astype(np.float32)
        for name, shape in expected_shapes(in_dim, hidden, features).items()
    }
    save_file(tensors, folder / HEADS_NAME)
    entry: dict[str, Any] = {
        "file": HEADS_NAME,
        "sha256": sha256_of(folder / HEADS_NAME),
        "in_dim": in_dim,
        "hidden_dim": hidden,
        "rotation": 180.0,
        "data": "photos of the test",
        "photos": 100,
    }
    config["heads"] = entry | ({"calibration": calibration} if calibration else {})
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    return folder


@pytest.fixture
def headed_folder(model_folder: Path) -> Path:
    """The small model's folder, with calibrated heads."""
    return write_heads(model_folder, CALIBRATION)
