"""The display during training: a progress bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SHORT = {"invariance": "inv", "orthogonality": "orth", "regularization": "reg"}


class TrainingProgress:
    """Shows loss terms, images per second, the share of time spent waiting for data, time left.

    Args:
        enabled: Whether to show anything.
    """

    def __init__(self, enabled: bool) -> None:
        console = Console(stderr=True)
        self.enabled = enabled
        self.terminal = console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[terms]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not (enabled and self.terminal),
        )
        self._recent: deque[tuple[float, float]] = deque(maxlen=50)
        self._batch = self._left = 0
        self._last = 0.0
        self._figures = ""

    @contextmanager
    def running(self, name: str, start: int, stop: int, batch: int) -> Iterator[None]:
        """Show the bar.

        Args:
            name: The run's name.
            start: Steps that are done already.
            stop: Steps of the whole run.
            batch: Photos in a step.
        """
        self._batch, self._last, self._left = batch, time.monotonic(), stop - start
        with self._bar:
            self._task = self._bar.add_task(name, total=stop, completed=start, terms="")
            yield

    def advance(self, terms: dict[str, float], waiting: float) -> None:
        """Count a step.

        Args:
            terms: Loss terms.
            waiting: Share of the step spent waiting for data.
        """
        now = time.monotonic()
        self._recent.append((now - self._last, waiting))
        self._last, self._left = now, self._left - 1
        text = " ".join(f"{_SHORT.get(key, key)} {value:.3f}" for key, value in terms.items())
        speed = f"{self.photos_per_second:.0f} img/s, data {self.waiting:.0%}"
        self._bar.update(self._task, advance=1, terms=f"{text} | {speed}{self._figures}")

    def show(self, figures: dict[str, float]) -> None:
        """Show online measurements until the next ones.

        Args:
            figures: By name, such as ``knn``.
        """
        text = " ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in figures.items())
        self._figures = f" | {text}"
        if self.enabled and not self.terminal:
            sys.stderr.write(f"{text}\n")

    @property
    def photos_per_second(self) -> float:
        """Photos per second over the last steps."""
        elapsed = sum(seconds for seconds, _ in self._recent)
        return round(len(self._recent) * self._batch / elapsed, 2) if elapsed else 0.0

    @property
    def waiting(self) -> float:
        """Share of time spent waiting for data over the last steps."""
        elapsed = sum(seconds for seconds, _ in self._recent)
        waited = sum(seconds * share for seconds, share in self._recent)
        return round(waited / elapsed, 4) if elapsed else 0.0

    def line(self, values: dict[str, Any]) -> None:
        """Print one line when there is no terminal for a progress bar.

        Args:
            values: The line of metrics.jsonl.
        """
        if not self.enabled or self.terminal:
            return
        speed = self.photos_per_second
        hours = self._left * self._batch / speed / 3600 if speed else 0.0
        keys = ("loss", *(key for key in _SHORT if key in values))
        terms = " ".join(f"{_SHORT.get(key, key)} {values[key]:.3f}" for key in keys)
        sys.stderr.write(
            f"step {values['step']} epoch {values['epoch']:.2f} {terms} | {speed:.0f} img/s "
            f"data {values['waiting']:.0%} left {hours:.2f} h\n"
        )
        sys.stderr.flush()
