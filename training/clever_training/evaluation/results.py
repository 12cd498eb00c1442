"""evaluation.json: the figures of a model and its baselines, and how they were made.

The schema is described in ``clever_training.evaluation``.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import timm
import torch

import clever_hub
from clever_hub.errors import DataError, ModelFormatError
from clever_hub.files import write_json
from clever_hub.hub.evaluation import (
    EVALUATION_NAME,
    check_evaluation,
    evaluation_path,
    read_evaluation,
)

# condition → part → metric → value, for one seed.
Figures: TypeAlias = dict[str, dict[str, dict[str, float]]]


def summarize(runs: Sequence[Figures]) -> dict[str, Any]:
    """Mean and standard deviation of every figure over the seeds.

    Args:
        runs: The figures of each seed; all have the same conditions, parts and metrics.

    Returns:
        condition → part → metric → ``mean``, ``std`` and ``values``; ``std`` is the sample standard
        deviation, None for one seed.

    Example:
        >>> figures = [{"upright": {"full": {"top1": value}}} for value in (10.0, 12.0)]
        >>> summarize(figures)["upright"]["full"]["top1"]["mean"]
        11.0
    """
    return {
        condition: {
            part: {
                metric: _summary([run[condition][part][metric] for run in runs])
                for metric in metrics
            }
            for part, metrics in parts.items()
        }
        for condition, parts in runs[0].items()
    }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    rounded = [round(float(value), 6) for value in values]
    return {
        "mean": round(statistics.fmean(values), 6),
        "std": round(statistics.stdev(values), 6) if len(values) > 1 else None,
        "values": rounded,
    }


def environment() -> dict[str, Any]:
    """Versions of the software that figures may depend on."""
    return {
        "clever_hub": clever_hub.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
    }


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def merge(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """Add new protocols to an earlier evaluation of the same weights.

    Args:
        old: An earlier content of evaluation.json, of the same model; None when there is none.
        new: The new content.

    Returns:
        The new content, with the protocols that only the old content has, for the model and for
        baselines that are the same. When a protocol is measured again without a baseline, the
        baseline's old figures are dropped, since the new record would name photos and a profile
        that are not theirs.
    """
    if old is None:
        return dict(new)
    merged = dict(new)
    for key in ("figures", "protocols"):
        merged[key] = {**old[key], **new[key]}
    merged["baselines"] = {}
    for name in dict.fromkeys([*old["baselines"], *new["baselines"]]):
        before, measured = old["baselines"].get(name), new["baselines"].get(name)
        baseline = measured or before
        figures = dict(measured["figures"]) if measured else {}
        if before and identity_of(before["model"]) == identity_of(baseline["model"]):
            kept = {k: v for k, v in before["figures"].items() if k not in new["protocols"]}
            figures = {**kept, **figures}
        if figures:
            merged["baselines"][name] = {**baseline, "figures": figures}
    return merged


def write(folder: str | Path, content: Mapping[str, Any]) -> Path:
    """Write evaluation.json; it keeps what earlier commands measured on the same weights.

    Args:
        folder: The folder; created when missing.
        content: The new measurements.

    Returns:
        The file.

    Raises:
        DataError: When the folder has figures of another model, which would be lost.
    """
    path = Path(folder) / EVALUATION_NAME
    return write_json(path, merge(earlier(folder, content["model"]), content))


def earlier(
    folder: str | Path,
    model: Mapping[str, Any],
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any] | None:
    """What a folder has of a model so far; to be asked before the work, too.

    Args:
        folder: The folder that figures are to be written to.
        model: The model that they are of, as ``FeatureExtractor.describe`` gives it.
        beside: The models beside it, by the names that they have there.

    Returns:
        The content of its evaluation.json; None when there is none.

    Raises:
        DataError: When it has figures of another model, or of the same with other weights or
            another size, which would be lost; or cannot be read.
    """
    path = Path(folder) / EVALUATION_NAME
    if not path.is_file():
        return None
    content = read(path)
    there = {name: one["model"] for name, one in content.get("baselines", {}).items()}
    pairs = [(content["model"], model)]
    pairs += [(there[name], one) for name, one in (beside or {}).items() if name in there]
    for other, one in pairs:
        if identity_of(other) != identity_of(one):
            raise DataError(
                f"{folder}: expected no figures or those of {_named(one, other)}, found those of "
                f"{_named(other, one)}, which would be lost. Name another folder with -o, or "
                f"remove {path} to measure anew in its place"
            )
    return content


def identity_of(model: Mapping[str, Any]) -> str:
    """What tells a model from others: weights, settings, and where its embedding is split.

    Args:
        model: As ``FeatureExtractor.describe`` gives it, or as a file has it.
    """
    return f"{model.get('identity')} {sorted((model.get('dims') or {}).items())}"


def _named(model: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A model by its name, and by what tells it from another of this name."""
    name = str(model.get("name"))
    if name != other.get("name"):
        return name
    shown = {"architecture": "{}", "weights_sha256": "weights {:.8}", "input_size": "{} px"}
    shown |= {"last_blocks": "{} blocks"}
    told = [
        text.format(str(model.get(key)))
        for key, text in shown.items()
        if model.get(key) != other.get(key)
    ]
    if not told and model.get("identity") == other.get("identity"):
        told = [f"parts {model.get('dims')}"]
    # Random weights have no file; the identity tells all apart.
    return f"{name} ({', '.join(told) or 'identity ' + str(model.get('identity'))[:8]})"


def read(path: str | Path) -> dict[str, Any]:
    """Read an evaluation.json.

    Args:
        path: The file, or the folder that has it.

    Returns:
        Its content.

    Raises:
        DataError: When it is missing, damaged, or of another schema version.
    """
    path = Path(path)
    try:
        content = read_evaluation(path)
        if content is None:
            missing = evaluation_path(path)
            raise DataError(f"{missing}: no such file; make it with clever-hub evaluate")
        check_evaluation(content, path)
    except ModelFormatError as error:
        raise DataError(str(error)) from error
    return content
