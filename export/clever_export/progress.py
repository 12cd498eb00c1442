"""Work that takes more than a moment shows how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

# The step, how much of it is done, and how much there is: 0 where nobody knows.
Report: TypeAlias = Callable[[str, int, int], None]


def silent(step: str, done: int, total: int) -> None:
    """A report that nobody reads."""


@contextmanager
def bar() -> Iterator[Report]:
    """Show one bar on stderr, of the step that runs now; it goes when the work is done.

    Yields:
        What to report to.

    Example:
        >>> with bar() as report:
        ...     report("calibrating", 8, 192)
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("")

        def report(step: str, done: int, total: int) -> None:
            count = f" {done}/{total}" if total else ""
            progress.update(task, description=step + count, completed=done, total=total or None)

        yield report
