"""Make a model folder complete: every reader's files around the one weights file."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from clever_export.card import write_card
from clever_export.onnx import export_onnx
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.files import write_json, write_text

PROCESSOR_NAME = "preprocessor_config.json"
REMOTE_CODE = ("configuration_clever.py", "modeling_clever.py", "image_processing_clever.py")
AUTO_MAP = {
    "AutoConfig": "configuration_clever.CleverConfig",
    "AutoModel": "modeling_clever.CleverModel",
    "AutoModelForImageClassification": "modeling_clever.CleverForImageClassification",
    "AutoImageProcessor": "image_processing_clever.CleverImageProcessor",
}


def package(folder: str | Path) -> Path:
    """Add what transformers, ONNX Runtime and people need to a model folder.

    Writes model.onnx, preprocessor_config.json, the remote code for transformers, ``auto_map`` into
    config.json, and the card. The weights are not touched; a second call changes nothing.

    Args:
        folder: A model folder: config.json, model.safetensors and, if measured, evaluation.json.

    Returns:
        The folder.

    Raises:
        ModelFormatError: When the folder is damaged, or the graph cannot share its weights.

    Example:
        >>> package("runs/mine/model")  # doctest: +SKIP
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    config = replace(config, extra={**config.extra, "auto_map": AUTO_MAP})
    write_json(folder / CONFIG_NAME, config.to_dict())
    write_json(
        folder / PROCESSOR_NAME,
        {
            "image_processor_type": "CleverImageProcessor",
            "auto_map": {"AutoImageProcessor": AUTO_MAP["AutoImageProcessor"]},
            **config.preprocessing.to_dict(),
        },
    )
    for name in REMOTE_CODE:
        # Not through the package clever_hub.transformers: importing it needs transformers.
        source = files("clever_hub") / "transformers" / name
        write_text(folder / name, source.read_text(encoding="utf-8"))
    export_onnx(folder)
    write_card(folder)
    return folder
