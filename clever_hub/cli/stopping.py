"""End a verb cleanly on Ctrl-C and SIGTERM: what is open is closed, one line says what is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from clever_hub.cli.console import say


class _Terminated(BaseException):
    """SIGTERM, raised where the program is: no handler of errors takes it for one."""


@contextmanager
def clean_stop(message: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a clean end.

    Args:
        message: What is kept and what to do; printed as one line.

    Raises:
        typer.Exit: With 130 after Ctrl-C, 143 after SIGTERM, as shells count.
    """
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as stop:
        say(f"Stopped. {message}")
        raise typer.Exit(143 if isinstance(stop, _Terminated) else 130) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise _Terminated
