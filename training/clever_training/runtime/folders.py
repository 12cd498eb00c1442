"""The folder of a run: one process at a time writes to it, beside a log that is there before."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import IO

from clever_hub.errors import TrainingError


def hold(file: IO[str], folder: Path) -> bool:
    """Lock a run's folder until the file is closed, at the latest by the end of the process.

    Args:
        file: An open file in the folder.
        folder: The folder, for the message.

    Returns:
        Whether it is locked. Windows has no such locks: nothing keeps two runs apart there.

    Raises:
        TrainingError: When another process has locked it.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows, which does not fork either
        return False
    _forget_in_children(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise TrainingError(
            f"{folder}: another process trains in this run folder. Stop it, or give another "
            "--output"
        ) from error
    return True


def is_log(path: Path) -> bool:
    """Whether a file of a run's folder may have been there before the run.

    A log to which a shell or a cluster writes what the run says (``clever-hub pretrain … -o
    runs/mine > runs/mine/run.log``), and what systems keep in folders, such as ``.DS_Store``.
    """
    ours = path.suffix in (".log", ".out", ".err", ".txt") or path.name == "lost+found"
    return ours or path.name in (".lock", ".DS_Store", ".gitkeep") or path.name.startswith(".nfs")


def _forget_in_children(file: IO[str]) -> None:
    """Close a lock's file in forked processes.

    The workers of a killed run live on for some seconds and would keep its lock.
    """
    reference = weakref.ref(file)

    def forget() -> None:
        if (held := reference()) is not None:
            held.close()

    os.register_at_fork(after_in_child=forget)
