"""How many threads: those that a user asks for, and the cores that this process may use."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import SupportsIndex

from clever_hub.errors import ConfigError

_CGROUP = Path("/sys/fs/cgroup/cpu.max")
_MOST = 4096  # the libraries would try to start any number


def check_threads(threads: SupportsIndex | None) -> int | None:
    """A number of threads that a user gives; None leaves it to the backend.

    Raises:
        ConfigError: When it is no whole number from 1 to 4096.

    Example:
        >>> check_threads(2), check_threads(None)
        (2, None)
    """
    if threads is None:
        return None
    try:
        count = operator.index(threads)
    except TypeError:
        count = 0
    if not 1 <= count <= _MOST or isinstance(threads, bool):
        raise ConfigError(f"threads: expected 1 to {_MOST}, got {threads!r}")
    return count


def available_cores() -> int:
    """The cores that this process may use: its affinity, and the quota of its container.

    ONNX Runtime and torch count the machine's cores, and are slow in a container that has few.

    Example:
        >>> available_cores() >= 1
        True
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _CGROUP.read_text().split()
        allowed = cores if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        allowed = cores
    return max(1, min(cores, allowed))


def decode_threads() -> int:
    """Threads that decode images where the caller names no number: one for each core, at most 32.

    Example:
        >>> 1 <= decode_threads() <= 32
        True
    """
    return min(32, available_cores())
