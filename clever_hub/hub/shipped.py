"""The models that ship in the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.hub.evaluation import read_evaluation
from clever_hub.hub.origin import origin
from clever_hub.weights import WEIGHTS_NAME

ZOO = Path(__file__).parents[1] / "zoo"


def model_names() -> list[str]:
    """The names of the shipped models, sorted."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{CONFIG_NAME}"))


@dataclass(frozen=True)
class ModelInfo:
    """Summary of a model.

    Attributes:
        name: The name for ``from_pretrained``.
        backbone: The backbone's name in timm.
        invariant_dim: Length of the invariant part.
        equivariant_dim: Length of the equivariant part.
        image_size: Side of the input, in pixels.
        data: The data set that it was pre-trained on.
        figures: Measured figures, protocol → condition → part → metric → mean, std, values, such
            as ``figures["knn"]["upright"]["full"]["top1"]["mean"]``; empty when there are none.
        license: SPDX identifier of the licence of the weights.
        size_bytes: Size of the weights file.
        origin: How the weights were made, in one line, such as ``"distilled from
            EfficientNet-Lite2, which was trained with ImageNet's labels; 2 epochs, 0.5 hours"``.
    """

    name: str
    backbone: str
    invariant_dim: int
    equivariant_dim: int
    image_size: int
    data: str
    figures: dict[str, Any]
    license: str
    size_bytes: int
    origin: str = "not recorded"


def model_info(
    folder: Path, *, name: str | None = None, size_bytes: int | None = None
) -> ModelInfo:
    """Describe a model folder without loading its weights.

    Args:
        folder: The model folder.
        name: The name for ``from_pretrained``; the config's name when None.
        size_bytes: Size of the weights; None when they are in the folder.

    Returns:
        The summary, from config.json and, if present, evaluation.json.

    Raises:
        ModelFormatError: When one of these files is damaged, or the weights are missing.
    """
    config = ModelConfig.load(folder)
    return ModelInfo(
        name=name or config.name,
        backbone=config.architecture,
        invariant_dim=config.invariant_dim,
        equivariant_dim=config.equivariant_dim,
        image_size=config.preprocessing.crop_size,
        data=str(config.provenance.get("data", "")),
        figures=_entry(read_evaluation(folder) or {}, "figures"),
        license=config.license,
        size_bytes=_weights_size(folder) if size_bytes is None else size_bytes,
        origin=origin(config),
    )


def _weights_size(folder: Path) -> int:
    try:
        return (folder / WEIGHTS_NAME).stat().st_size
    except OSError as error:
        raise ModelFormatError(f"{folder}: {WEIGHTS_NAME} is missing") from error


def means(figures: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """The mean of every figure, by its path.

    Args:
        figures: As in ``ModelInfo.figures``. Entries without a mean are left out.

    Returns:
        For example ``{("knn", "upright", "full", "top1"): 15.2}``.

    Example:
        >>> means({"knn": {"upright": {"full": {"top1": {"mean": 15.2, "std": None}}}}})
        {('knn', 'upright', 'full', 'top1'): 15.2}
    """
    found: dict[tuple[str, ...], float] = {}
    for name, value in figures.items():
        if not isinstance(value, Mapping):
            continue
        if isinstance(value.get("mean"), (int, float)):
            found[(name,)] = float(value["mean"])
        else:
            found |= {(name, *path): mean for path, mean in means(value).items()}
    return found


def _entry(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key)
    return value if isinstance(value, dict) else {}
