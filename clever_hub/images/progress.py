"""The progress bar of ``encode`` and of the command line: images per second and time left.

A log file gets lines in its place: a bar shows there only when all is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

if TYPE_CHECKING:
    from clever_hub.embeddings import EncodedBatch


class LogLines:
    """A line every half minute, where a bar does not show: in a log file, in a pipe.

    Args:
        console: Where the lines go. On a terminal and in a notebook there are none.
        unit: What is counted, in the plural; without it no speed is named.
        show: Print nothing when False.
        every: Seconds between two lines.

    Example:
        >>> from rich.console import Console
        >>> lines = LogLines(Console(), "images", every=0)
        >>> lines.say("embedding", 300, None)
        embedding: 300
    """

    def __init__(
        self, console: Console, unit: str = "", *, show: bool = True, every: float = 30
    ) -> None:
        self._console, self._unit, self._every = console, unit, every
        self._on = show and not (console.is_terminal or console.is_jupyter)
        self._said = time.monotonic()
        self._begun: dict[str, tuple[float, int]] = {}

    def say(self, what: str, done: int, total: int | None) -> None:
        """Print a line if it is time for one.

        Args:
            what: The work, in a word.
            done: How much of it is done.
            total: Of how much; None or 0 when it is not known.
        """
        now = time.monotonic()
        begun, at_first = self._begun.setdefault(what, (now, done))
        if not self._on or now - self._said < self._every:
            return
        self._said = now
        line = f"{what}: {done:,}"
        if total:
            line += f" of {total:,} ({done / total:.0%})"
        if done > at_first and now > begun:
            speed = (done - at_first) / (now - begun)
            line += f", {speed:,.0f} {self._unit}/s" if self._unit else ""
            line += f", {_in_words((total - done) / speed)} left" if total else ""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _in_words(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


class _ImagesPerSecond(ProgressColumn):
    """The speed over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s")


@contextmanager
def counting(what: str, total: int | None, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr while images are counted; lines where it is no terminal.

    Args:
        what: The work, in a word.
        total: Number of images; None when it is not known.
        show: Show nothing when False.

    Yields:
        A function to call with how many more images are done.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    lines, done = LogLines(console, "images", show=show), 0
    lines.say(what, done, total)
    with Progress(*columns, console=console, disable=not show) as progress:
        task = progress.add_task(what, total=total)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress.advance(task, count)
            lines.say(what, done, total)

        yield advance


def track(batches: Iterable[EncodedBatch], total: int | None) -> Iterator[EncodedBatch]:
    """Show a progress bar on stderr while batches go through.

    Args:
        batches: Batches of ``encode_batches``.
        total: Number of images; None when it is not known.

    Yields:
        The batches, unchanged.
    """
    with counting("embedding", total) as advance:
        for batch in batches:
            advance(len(batch.embeddings) + len(batch.embeddings.skipped))
            yield batch
