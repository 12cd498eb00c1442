"""A model folder's evaluation.json, checked to be of the model and whole enough for a card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clever_export.card_tables import SHOWN
from clever_hub.config import ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.hub.evaluation import EVALUATION_NAME, check_evaluation, read_evaluation
from clever_hub.weights import WEIGHTS_NAME, sha256_of


def own_evaluation(folder: Path) -> dict[str, Any] | None:
    """The folder's evaluation.json, checked to be about this model; None where there is none.

    Args:
        folder: A model folder.

    Returns:
        Its content.

    Raises:
        ModelFormatError: When it is no JSON of the schema that ``clever-hub evaluate`` writes,
            about other weights than the folder's, or about another embedding: made with
            ``--image-size`` or ``--last-blocks``, or cut elsewhere.
    """
    path = folder / EVALUATION_NAME
    content = read_evaluation(path)
    if content is None:
        return None
    check_evaluation(content, path)
    if wrong := _misshapen(content):
        raise ModelFormatError(
            f"{path}: {wrong} is not as `clever-hub evaluate` writes it. Measure again"
        )
    weights = content["model"].get("weights_sha256")
    if weights and (folder / WEIGHTS_NAME).is_file():
        _check_weights(path, weights, sha256_of(folder / WEIGHTS_NAME))
    _check_embedding(path, content["model"], ModelConfig.load(folder))
    return content


def _check_weights(path: Path, measured: str, found: str) -> None:
    if measured != found:
        raise ModelFormatError(
            f"{path}: figures of other weights (SHA-256 {measured}, the folder's has {found}). "
            "Remove it, or measure again with clever-hub evaluate"
        )


def _check_embedding(path: Path, measured: Mapping[str, Any], config: ModelConfig) -> None:
    """The figures must be of the embedding that readers get: its input, its length and its cut."""
    size, own = measured.get("input_size"), config.preprocessing.crop_size
    if size not in (None, own):
        raise ModelFormatError(
            f"{path}: figures of photos of {size} pixels, the model's own size is {own}. "
            "Remove it, or measure again without --image-size"
        )
    if (blocks := measured.get("last_blocks")) not in (None, 1):
        raise ModelFormatError(
            f"{path}: figures of the last {blocks} blocks, readers get the last one alone. "
            "Remove it, or measure again without --last-blocks"
        )
    lengths = {
        "full": config.num_features,
        "invariant": config.invariant_dim,
        "equivariant": config.equivariant_dim,
    }
    for part, length in _mapping(measured.get("dims")).items():
        if length != lengths.get(part, length):
            raise ModelFormatError(
                f"{path}: figures of {length} {part} dimensions, the model has {lengths[part]}. "
                "Remove it, or measure again with clever-hub evaluate"
            )


def _misshapen(content: Mapping[str, Any]) -> str | None:
    """The dotted path of what a card could not be written from; None where there is nothing."""
    baselines = content.get("baselines", {})
    if not isinstance(baselines, Mapping):
        return "baselines"
    for name, entry in content["protocols"].items():
        seeds = _mapping(entry).get("seeds", [])
        if not isinstance(seeds, list) or not _is_protocol(entry, shown=name in SHOWN):
            return f"protocols.{name}"
    if wrong := _misshapen_figure(content["figures"]):
        return f"figures.{wrong}"
    for name, other in baselines.items():
        keys = (_mapping(other).get("figures"), _mapping(other).get("model", {}))
        if not all(isinstance(value, Mapping) for value in keys):
            return f"baselines.{name}"
        if wrong := _misshapen_figure(other["figures"]):
            return f"baselines.{name}.figures.{wrong}"
    return None


def _is_protocol(entry: Any, *, shown: bool) -> bool:
    """Whether one that is shown names its command, and how many photos or frames it is of."""
    if not shown:
        return isinstance(entry, Mapping)
    data = _mapping(_mapping(entry).get("data"))
    photos = [_mapping(data.get(key)).get("photos") for key in ("train", "validation")]
    videos = _mapping(data.get("videos"))
    counts = [videos.get("frames"), videos.get("videos")] if videos else photos
    return all(isinstance(n, int) for n in counts) and isinstance(entry.get("command"), str)


def _misshapen_figure(figures: Mapping[str, Any]) -> str | None:
    """The first of the card's figures whose mean or deviation is no number."""
    for protocol in sorted(SHOWN & figures.keys()):
        for condition, parts in _mapping(figures[protocol]).items():
            for part, metrics in _mapping(parts).items():
                for metric, value in _mapping(metrics).items():
                    if not _is_figure(value):
                        return f"{protocol}.{condition}.{part}.{metric}"
    return None


def _is_figure(value: Any) -> bool:
    found = _mapping(value)
    return _is_number(found.get("mean")) and (
        found.get("std") is None or _is_number(found.get("std"))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
