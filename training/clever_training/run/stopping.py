"""Ctrl-C and a service manager's stop: finish the step, save the state, end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        asked: Set by the first SIGINT or SIGTERM.
    """

    asked: bool = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop after the step; a second one stops at once.

    Yields:
        The request; ``asked`` becomes True at the first signal.
    """
    request = StopRequest()

    def ask(number: int, _: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True
        sys.stderr.write(f"\n{signal.Signals(number).name}: saving after this step …\n")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
