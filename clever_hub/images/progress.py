"""The progress bar of ``encode`` and of the command line: images per second and time left."""

from __future__ import annotations

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


class _ImagesPerSecond(ProgressColumn):
    """The speed over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} images/s")


@contextmanager
def counting(what: str, total: int | None, show: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr while images are counted.

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
    with Progress(*columns, console=Console(stderr=True), disable=not show) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


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
