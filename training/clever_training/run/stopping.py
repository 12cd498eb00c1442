"""Ctrl-C and a service manager's stop: finish the step, save, end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals() -> Iterator[dict[str, bool]]:
    """Let SIGINT and SIGTERM ask to stop after the step; a second one stops at once.

    Yields:
        A mapping whose ``asked`` becomes True.
    """
    stopping = {"asked": False}

    def ask(number: int, _: FrameType | None) -> None:
        if stopping["asked"]:
            raise KeyboardInterrupt
        stopping["asked"] = True
        sys.stderr.write(f"\n{signal.Signals(number).name}: saving after this step …\n")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
