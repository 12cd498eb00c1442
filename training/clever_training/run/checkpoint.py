"""The resumable state of a run: one safetensors file, its counters as JSON in the header.

The file is written under another name and then renamed, so there is always one complete state,
even if the process dies or the disk is full. Nothing is pickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from clever_hub.errors import TrainingError
from clever_hub.files import atomic_path

STATE_NAME = "state.safetensors"
_VERSION = 1
# A tensor that only states of the transformation head of 13 columns have.
_EARLIER_HEAD = "student.transformation.mlp.0.weight"


def save_state(
    path: Path, module: nn.Module, optimizer: Optimizer, counters: dict[str, Any]
) -> None:
    """Write a state atomically.

    Args:
        path: The file.
        module: Everything that is trained, with its teacher and its buffers.
        optimizer: Its optimiser.
        counters: Plain JSON, as ``RunState.to_json`` gives it.

    Raises:
        TrainingError: When it cannot be written; the previous state is kept.
    """
    tensors = {f"module.{key}": value for key, value in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    content = {"version": _VERSION, "counters": counters, "optimizer": plain}
    try:
        with atomic_path(path) as temporary:
            save_file(
                {key: value.detach().contiguous().cpu() for key, value in tensors.items()},
                temporary,
                metadata={"clever_state": json.dumps(content)},
            )
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: the state could not be written ({error}). The previous state is whole; "
            "free disk space and run the same command again"
        ) from error


def read_counters(path: Path) -> dict[str, Any]:
    """The counters of a state, without its tensors.

    Args:
        path: The file.

    Returns:
        As ``load_state``.

    Raises:
        TrainingError: When the file is not a state.
    """
    try:
        with safe_open(path, framework="pt") as file:
            counters: dict[str, Any] = json.loads((file.metadata() or {})["clever_state"])[
                "counters"
            ]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _no_state(path, error) from error
    return counters


def load_state(path: Path, module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Read a state back, strictly.

    Args:
        path: The file.
        module: Built from the same recipe; its parameters and buffers are overwritten.
        optimizer: Over the same parameters; its state is overwritten.

    Returns:
        The counters.

    Raises:
        TrainingError: When the file is not a state, or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["clever_state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- no dict
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _no_state(path, error) from error
    weights = {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
    if _EARLIER_HEAD in weights:
        raise TrainingError(
            f"{path}: the state has an earlier version's transformation head, whose "
            "units were each batch's own. Finish the run with the version that started it, or "
            "start a new run from its weights: another --output, "
            f"--set backbone.init={path.parent / 'model'}"
        )
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: the state belongs to another model: {error}. Give another --output, or the "
            "recipe that the run was started with"
        ) from error
    _load_optimizer(optimizer, tensors, content["optimizer"])
    counters: dict[str, Any] = content["counters"]
    return counters


def _load_optimizer(
    optimizer: Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    states: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            states.setdefault(int(index), {})[name] = value
    for key, value in plain.items():
        index, name = key.split(".")
        states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    _match_layout(optimizer)


def _match_layout(optimizer: Optimizer) -> None:
    """Restore the memory format of the optimiser's moments: that of their parameters."""
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                entries[name] = torch.empty_like(parameter).copy_(value)


def _no_state(path: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"{path}: not a state of a run ({error}). Remove it to start the run again"
    )
