"""Printing, the same way in every verb."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from clever_hub.embeddings import Skipped

_WIDE = 160


def output() -> Console:
    """Standard output; wide when it is a file or a pipe, so that tables are not squeezed."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)


def fail(message: str) -> NoReturn:
    """Print an error in red on stderr, and end with exit code 1.

    Args:
        message: What is wrong and what to do.

    Raises:
        typer.Exit: Always.
    """
    # Never wrapped: a path that is cut in two cannot be copied.
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[bold red]Error:[/] [red]{escape(message)}[/]"
    )
    raise typer.Exit(1)


def report_skipped(skipped: Iterable[Skipped]) -> None:
    """List the images that could not be read, on stderr."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for image in skipped:
        console.print(f"[yellow]skipped[/] {escape(image.source)}: {escape(image.reason)}")


def megabytes(size: int) -> str:
    """A file size for people: 1 MB is a million bytes, as drives and the Hub count."""
    return f"{size / 1e6:.1f} MB"
