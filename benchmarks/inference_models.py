"""Model folders for ``inference.py``: shipped weights where there are any, else random ones."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from clever_export.package import package
from clever_export.variants import export_variant
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.hub import shipped as zoo

WIDTHS = {"resnet18": 512, "resnet50": 2048}


class Model(NamedTuple):
    """A folder to measure.

    Attributes:
        folder: A complete model folder; its int8 variant lies beside it, ``-int8`` after its name.
        weights: Where the weights came from.
        int8: How near the int8 variant is.
    """

    folder: Path
    weights: str
    int8: str


def make_folders(
    root: Path, kinds: Sequence[tuple[str, int]], photos: Sequence[Path]
) -> dict[tuple[str, int], Model]:
    """Export each architecture at each size.

    Args:
        root: An empty folder.
        kinds: Architectures and sizes in pixels.
        photos: To calibrate int8 with.
    """
    made = {}
    for architecture, size in kinds:
        model, weights = _model(architecture, size)
        folder = root / f"{architecture}-{size}"
        with contextlib.redirect_stdout(io.StringIO()):
            package(model.save_pretrained(folder, half_matrices=True))
            # Random weights quantise badly; that makes them no slower or faster.
            int8 = export_variant(
                folder,
                folder.with_name(f"{folder.name}-int8"),
                precision="int8",
                images=photos[:64],
                force=True,
            )
        assert int8 is not None
        made[architecture, size] = Model(folder, weights, int8.describe())
    return made


def _model(architecture: str, size: int) -> tuple[CleverModel, str]:
    name = f"clever-{architecture}"
    other = PreprocessingConfig(256, 224) if size == 224 else PreprocessingConfig(size, size)
    if name in zoo.model_names():
        shipped = CleverModel.from_folder(zoo.ZOO / name)
        if shipped.config.preprocessing.crop_size != size:
            shipped.config = replace(shipped.config, preprocessing=other)
        return shipped, f"{name}'s"
    width = WIDTHS[architecture]
    torch.manual_seed(0)
    model = CleverModel(
        ModelConfig(
            name=name,
            architecture=architecture,
            num_features=width,
            invariant_dim=width * 4 // 5,
            preprocessing=other,
        )
    )
    with torch.no_grad():  # gains and statistics of a trained model are neither 0 nor 1
        for key, value in model.backbone.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                value.uniform_(*((-0.2, 0.2) if "bias" in key or "mean" in key else (0.6, 1.4)))
    return model, "random"
