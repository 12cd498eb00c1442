"""Reading ``evaluation.json``: what was measured of a model. ``clever-hub evaluate`` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clever_hub.errors import ModelFormatError

EVALUATION_NAME = "evaluation.json"
SCHEMA_VERSION = 1


def read_evaluation(place: str | Path) -> dict[str, Any] | None:
    """Read the evaluation of a model.

    Args:
        place: The file, or the folder that has it.

    Returns:
        Its content, as ``clever_training.evaluation`` describes it; None when there is no such
        file. Anyone may have written it: ``check_evaluation`` checks what is in it.

    Raises:
        ModelFormatError: When the file is damaged.

    Example:
        >>> content = read_evaluation("clever-resnet18")  # doctest: +SKIP
        >>> content["figures"]["knn"]["upright"]["full"]["top1"]["mean"]  # doctest: +SKIP
        22.5
    """
    path = evaluation_path(place)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFormatError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def evaluation_path(place: str | Path) -> Path:
    """The path of the evaluation: the file itself, or the file in a folder."""
    path = Path(place)
    return path / EVALUATION_NAME if path.is_dir() else path


def check_evaluation(content: Mapping[str, Any], place: str | Path) -> None:
    """Check that an evaluation has the schema that ``clever-hub evaluate`` writes.

    Args:
        content: What ``read_evaluation`` returned.
        place: Where it was read, for the message.

    Raises:
        ModelFormatError: When it has another schema version, or lacks the model, the figures or the
            protocols.
    """
    path = evaluation_path(place)
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ModelFormatError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}")
    keys = ("figures", "model", "protocols")
    if wrong := [key for key in keys if not isinstance(content.get(key), Mapping)]:
        raise ModelFormatError(
            f"{path}: expected the objects {', '.join(keys)}, {', '.join(wrong)} is missing or no "
            "object. Measure again with clever-hub evaluate"
        )
