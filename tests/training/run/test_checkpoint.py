"""A state is whole or it is the one before, wherever the process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD

from clever_hub.errors import TrainingError
from clever_training.run.checkpoint import load_state, save_state
from clever_training.run.run_folder import RunFolder

# Dies with half a state on the disk, or with a whole one that is not in its place yet.
DYING = """
import os, signal, sys
from pathlib import Path
from torch import nn
from torch.optim import SGD
from clever_training.run import checkpoint
import clever_hub.files

def die(path):
    os.kill(os.getpid(), signal.SIGKILL)

def half(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    die(path)

if sys.argv[2] == "half":
    checkpoint.save_file = half
else:
    clever_hub.files._flush = die
layer = nn.Linear(3, 2)
checkpoint.save_state(Path(sys.argv[1]), layer, SGD(layer.parameters()), {"step": 2})
"""


@pytest.mark.parametrize("moment", ["half", "whole"])
def test_killed_while_it_is_written_the_previous_state_is_whole(
    moment: str, tmp_path: Path
) -> None:
    layer, path = nn.Linear(3, 2), RunFolder(tmp_path).state
    save_state(path, layer, SGD(layer.parameters()), {"step": 1})
    before = path.read_bytes()
    command = [sys.executable, "-c", DYING, str(path), moment]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert path.read_bytes() == before
    assert len(list(tmp_path.glob(".*.tmp*"))) == 1, "what the dead process was writing"
    with RunFolder(tmp_path).locked():
        assert not list(tmp_path.glob(".*.tmp*"))
        other = nn.Linear(3, 2)
        assert load_state(path, other, SGD(other.parameters()))["step"] == 1
        assert torch.equal(other.weight, layer.weight)


def test_a_state_with_the_earlier_transformation_head_is_refused(tmp_path: Path) -> None:
    path, layer = tmp_path / "state.safetensors", nn.Linear(3, 2)
    parts = {"student": nn.ModuleDict({"transformation": nn.ModuleDict({"mlp": nn.ModuleList()})})}
    earlier = nn.ModuleDict(parts)
    earlier["student"]["transformation"]["mlp"].append(layer)  # type: ignore[index]
    save_state(path, earlier, SGD(layer.parameters()), {"step": 1})
    with pytest.raises(
        TrainingError, match=r"earlier version's transformation head.*backbone\.init="
    ):
        load_state(path, earlier, SGD(layer.parameters()))
