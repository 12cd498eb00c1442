"""Files that may be in a run's folder before the run."""

from __future__ import annotations

from pathlib import Path


def is_log(path: Path) -> bool:
    """Whether a file may be the log to which a shell or a cluster writes, or a lock.

    It is there before the run begins: ``clever-hub pretrain … -o runs/mine > runs/mine/run.log``.
    """
    return path.suffix in (".log", ".out", ".err") or path.name == ".lock"
