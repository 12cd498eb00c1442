"""End a verb cleanly on Ctrl-C and SIGTERM: what is open is closed, one line says what is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from clever_hub.cli.console import say

_CACHED = "Photos embedded so far, if any, are in the cache"
# What is kept of a verb that was stopped; the others begin again.
_KEPT = {
    "embed": "The same command goes on with the shards that are finished.",
    "index": "The same command goes on: the photos written so far are in the index.",
    "duplicates": f"{_CACHED}; moves are in the log, for --undo.",
    "leaks": f"{_CACHED}.",
    "orient": "Photos turned so far, if any, are in the log, for --undo.",
    "evaluate": "The same command goes on from the figures that are finished.",
    "finetune": "The same command goes on from the last whole epoch.",
}


class _Terminated(BaseException):
    """SIGTERM, raised where the program is: no handler of errors takes it for one."""


@contextmanager
def clean_stop(verb: Callable[[], str | None]) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a clean end; one line on stderr says what is kept.

    A verb that handles these signals in its own way, as ``pretrain`` and ``serve`` do, sees them
    first.

    Args:
        verb: Gives the name of the verb, which is known only once it runs.

    Raises:
        typer.Exit: With 130 after Ctrl-C, 143 after SIGTERM, as shells count.
    """
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except (KeyboardInterrupt, _Terminated) as stop:
        say(f"Stopped. {_KEPT.get(verb() or '', '')}".rstrip())
        raise typer.Exit(143 if isinstance(stop, _Terminated) else 130) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise _Terminated
