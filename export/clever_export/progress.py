"""The progress bar of long steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from clever_hub.images.progress import LogLines

# Arguments: the step, how much of it is done, and the total, which is 0 where it is not known.
Report: TypeAlias = Callable[[str, int, int], None]


def silent(step: str, done: int, total: int) -> None:
    """A report that shows nothing."""


@contextmanager
def bar() -> Iterator[Report]:
    """Show a bar on stderr for the current step; it disappears at the end.

    Where stderr is no terminal, there are lines in its place.

    Yields:
        The function to report progress to.

    Example:
        >>> with bar() as report:
        ...     report("calibrating", 8, 192)
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    lines = LogLines(console)
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")

        def report(step: str, done: int, total: int) -> None:
            count = f" {done}/{total}" if total else ""
            progress.update(task, description=step + count, completed=done, total=total or None)
            lines.say(step, done, total)

        yield report
