"""Names known to the command line before anything heavy is imported are those that there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clever_hub.errors import ConfigError
from clever_training.evaluation.choices import (
    DENSE_PROTOCOL_NAMES,
    PROFILE_NAMES,
    PROTOCOL_NAMES,
    check_choice,
    chosen,
)
from clever_training.evaluation.context import PROFILES
from clever_training.evaluation.dense_run import DENSE_PROTOCOLS
from clever_training.evaluation.protocols import PROTOCOLS


def test_names_are_those_that_there_are() -> None:
    assert tuple(PROTOCOLS) == PROTOCOL_NAMES
    assert tuple(DENSE_PROTOCOLS) == DENSE_PROTOCOL_NAMES
    assert tuple(PROFILES) == PROFILE_NAMES


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--protocols: unknown 'kmn'\. Did you mean 'knn'"):
        chosen("kmn")
    with pytest.raises(ConfigError, match="--profile: expected quick or full, got 'ful'"):
        check_choice("--profile", "ful", PROFILE_NAMES)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "clever-resnet18", "--data", "x", "--profile", "ful", "-o", "out"],
        ["finetune", "clever-resnet18", "--data", "x", "--epochs", "0", "-o", "out"],
    ],
)
def test_options_are_checked_before_torch_is_imported(arguments: list[str]) -> None:
    program = (
        "import sys; from clever_hub.cli.app import app\n"
        f"try: app({arguments!r}, standalone_mode=False)\n"
        "except BaseException: pass\n"
        "sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Error:" in done.stderr
