"""``heads.safetensors``: from torch modules to the file that numpy reads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import atomic_path, to_json
from clever_hub.jobs.calibration import Calibration
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME, HeadsConfig, expected_shapes
from clever_hub.weights import check_shapes, sha256_of
from clever_training.objectives.transformation import TransformationHead

# What is in the folder besides is about weights and heads as they were.
_STALE = ("verify.json",)


def heads_tensors(
    head: TransformationHead, mean: NDArray[np.float32] | None, num_features: int
) -> dict[str, NDArray[np.float32]]:
    """The tensors of a heads.safetensors.

    Args:
        head: As training leaves it.
        mean: float32 (num_features,), mean of the embeddings of clean photos, for centring; zeros
            when None.
        num_features: Length of the embedding.

    Returns:
        float32 arrays by name.

    Raises:
        ModelFormatError: When the head is of another shape, or a tensor is not finite.
    """
    tensors = {
        name: np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        for name, tensor in head.state_dict().items()
        if not name.startswith("unit.")
    }
    tensors["unit.center"] = head.unit.center.cpu().numpy()
    tensors["unit.scale"] = head.unit.scale.cpu().numpy()
    center = np.zeros(num_features, np.float32) if mean is None else mean.astype(np.float32)
    tensors["calibration.mean"] = center
    hidden, both = tensors["pair.0.weight"].shape
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(HEADS_NAME, shapes, expected_shapes(both // 2, hidden, num_features))
    if bad := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise ModelFormatError(f"{HEADS_NAME}: expected finite numbers in {', '.join(bad)}")
    return tensors


def write_heads(
    folder: str | Path,
    tensors: Mapping[str, NDArray[np.float32]],
    *,
    data: str,
    photos: int,
    rotation: float = 180.0,
    calibration: Calibration | None = None,
) -> Path:
    """Write heads.safetensors into a model folder, and the entry ``"heads"`` into its config.

    The file is put in place before the config names it: a reader finds the old heads, none, or the
    new ones, and a moment in which the hash does not fit is refused.

    Args:
        folder: A model folder.
        tensors: What ``heads_tensors`` gives.
        data: What the heads were trained on.
        photos: On how many.
        rotation: The largest angle that they were trained on, in degrees.
        calibration: How far they can be trusted; None where that was not measured.

    Returns:
        The folder.

    Raises:
        ModelFormatError: When it is no model folder.
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    hidden, both = tensors["pair.0.weight"].shape
    with atomic_path(folder / HEADS_NAME) as path:
        path.write_bytes(save(dict(tensors)))
        digest = sha256_of(path)
    entry = HeadsConfig(digest, both // 2, hidden, rotation, data, photos, calibration)
    config = replace(config, extra={**config.extra, HEADS_KEY: entry.to_dict()})
    with atomic_path(folder / CONFIG_NAME) as path:
        path.write_text(to_json(config.to_dict()), encoding="utf-8")
    for name in _STALE:
        (folder / name).unlink(missing_ok=True)
    return folder


def copy_folder(source: Path, target: Path) -> Path:
    """Copy a model folder's files, to write heads into the copy.

    Args:
        source: A model folder.
        target: A folder that does not exist yet, or is empty.

    Returns:
        The target.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
    return target
