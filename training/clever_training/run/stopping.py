"""Ctrl-C and a service manager's stop: finish the step, save the state, end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from clever_training.runtime.processes import is_rank_zero


class Terminated(KeyboardInterrupt):
    """A stop by SIGTERM instead of Ctrl-C; whoever saves on either need not tell them apart."""


@dataclass
class StopRequest:
    """Whether this process was asked to stop.

    Attributes:
        asked: Set by the first SIGINT or SIGTERM.
        terminated: Whether that was SIGTERM.
    """

    asked: bool = False
    terminated: bool = False


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request to stop after the step; a second one stops at once.

    Outside the main thread signals are left to the caller.

    Yields:
        The request; ``asked`` becomes True at the first signal.

    Raises:
        KeyboardInterrupt: At the second signal; ``Terminated`` if that is SIGTERM.
    """
    request = StopRequest()

    def ask(number: int, _: FrameType | None) -> None:
        if request.asked:
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        request.asked, request.terminated = True, number == signal.SIGTERM
        # Whoever waits at a terminal is told at once; a log needs only the line at the end.
        if sys.stderr.isatty() and is_rank_zero():
            sys.stderr.write(f"\n{signal.Signals(number).name}: saving after this step …\n")

    if threading.current_thread() is not threading.main_thread():
        yield request  # Python lets no other thread handle signals; the caller stops the run
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
