"""Progress bars for the work of a verb that has several parts.

The bar of a single run over images is ``clever_hub.images.progress.counting``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from clever_hub.images.progress import LogLines


@contextmanager
def working_on(width: int = 0) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr for each thing that is done; it appears with its first report.

    Where stderr is no terminal, there are lines in its place.

    Args:
        width: Characters that the names of the things are aligned to.

    Yields:
        A function to be called with what is done, how much of it, and of how much (0: not known).
    """
    columns = (
        TextColumn("{task.description:>%d}" % width),  # noqa: UP031 -- braces are rich's own
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    lines = LogLines(console)
    with Progress(*columns, console=console) as bars:

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)
            lines.say(what, done, total)

        yield progress
