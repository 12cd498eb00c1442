"""Reading a checkpoint without running anything that is in it."""

from __future__ import annotations

import argparse
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from clever_hub.errors import ConfigError, ModelFormatError

# Entries that published checkpoints keep their weights under; the first that is there is taken.
# DINO evaluates its teacher, hence before the student.
_ENTRIES = ("teacher", "state_dict", "model_state_dict", "model", "student", "network", "net")

# What reading raises of a file that is something else: its bytes are taken for instructions.
_OF_NO_PICKLE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError),
    struct.error,
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one entry of a file.

    Attributes:
        path: The file.
        entry: Which entry they were under; empty for a file that has nothing else.
        others: Names of the other entries that hold weights.
        tensors: By name, on the CPU.
    """

    path: Path
    entry: str
    others: tuple[str, ...]
    tensors: dict[str, Tensor]


def read_checkpoint(path: str | Path, entry: str | None = None) -> Checkpoint:
    """Read a ``.safetensors`` file, or one that ``torch.save`` has written.

    The latter is unpickled with ``weights_only=True``: tensors and plain containers, and the
    ``argparse.Namespace`` that DINO's and CLeVER's files have beside them, and no other code.

    Args:
        path: The file.
        entry: Such as ``"student"``; None takes the first of the usual ones.

    Returns:
        The checkpoint.

    Raises:
        ModelFormatError: When the file is missing, cannot be read, or holds anything but data.
        ConfigError: When it has no such entry.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFormatError(f"{path}: expected a checkpoint, found no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    weights = {key: value for key, value in content.items() if _is_state(value)}
    if entry is None and content and all(isinstance(v, Tensor) for v in content.values()):
        return Checkpoint(path, "", (), _tensors(path, content))
    found = entry or next((name for name in _ENTRIES if name in weights), None)
    if found is None or found not in weights:
        raise ConfigError(
            f"{path}: expected {f'weights under {entry!r}' if entry else 'named tensors'}; the "
            f"file's entries are {', '.join(map(repr, content)) or 'none'}, of which "
            f"{', '.join(map(repr, weights)) or 'none'} hold tensors. Name one with --entry"
        )
    others = tuple(name for name in weights if name not in {found, "optimizer"})
    return Checkpoint(path, found, others, _tensors(path, weights[found]))


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"{path}: expected a safetensors file: {error}") from error


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        said = str(error).splitlines()
        reason = next((line.strip() for line in said if "Unsupported" in line), said[0])
        if "operand" in reason:  # no code, but no pickle either
            raise ModelFormatError(
                f"{path}: expected a file of torch.save or a .safetensors file: {reason}"
            ) from error
        raise ModelFormatError(
            f"{path}: expected only tensors, but loading this file would run code ({reason}). "
            "If you trust the file, save its weights again and import the new file:\n"
            f'  python -c "import torch; c = torch.load({str(path)!r}, weights_only=False); '
            "torch.save(c['model'], 'weights.pth')\"\n"
            "'model' is the entry with the weights; of a whole module it is c.state_dict()"
        ) from error
    except _OF_NO_PICKLE as error:
        raise ModelFormatError(
            f"{path}: expected a file of torch.save or a .safetensors file: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not isinstance(content, Mapping):
        raise ModelFormatError(
            f"{path}: expected named tensors, got {type(content).__name__}. Save a state dict"
        )
    return dict(content)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(x, Tensor) for x in value.values())


def _tensors(path: Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    other = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise ModelFormatError(
            f"{path}: expected tensors, but these are none: {', '.join(other[:20])}"
        )
    return {str(name): value.detach() for name, value in state.items()}
