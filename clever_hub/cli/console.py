"""Printing, in the same way for every verb."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from clever_hub.embeddings import Skipped

_WIDE = 160


def output() -> Console:
    """Standard output; wide when it is a file or a pipe, so that tables are not wrapped."""
    return Console(width=None if sys.stdout.isatty() else _WIDE, emoji=False)


def fail(message: str) -> NoReturn:
    """Print an error in red on stderr, and end with exit code 1.

    Args:
        message: Says what is wrong and what to do.

    Raises:
        typer.Exit: Always.
    """
    _messages().print(f"[bold red]Error:[/] [red]{shown(message)}[/]")
    raise typer.Exit(1)


def say(text: str) -> None:
    """Print a line on stderr without markup: brackets in a path are part of its name."""
    _messages().print(shown(text))


def report_skipped(skipped: Iterable[Skipped]) -> None:
    """List the images that could not be read, on stderr."""
    console = _messages()
    for image in skipped:
        console.print(f"[yellow]skipped[/] {shown(image.source)}: {shown(image.reason)}")


class Unread:
    """Counts what could not be read, for the exit code.

    Attributes:
        folders: How many folders were left out.
        photos: How many photos were skipped; the caller counts them.
    """

    def __init__(self) -> None:
        self.folders = 0
        self.photos = 0

    def leave_out(self, error: OSError) -> None:
        """Name a folder that cannot be read, and so is left out, on stderr.

        Args:
            error: With its name and the reason.
        """
        self.folders += 1
        reason = shown(error.strerror or str(error))
        _messages().print(f"[yellow]left out[/] {shown(str(error.filename))}: {reason}")

    def judge(self, accepted: bool) -> None:
        """End with exit code 1 if anything was not read.

        Args:
            accepted: Whether that is allowed.

        Raises:
            typer.Exit: When something was not read, and that is not accepted.
        """
        counts = {"photos": self.photos, "folders": self.folders}
        said = " and ".join(
            f"{n} {name[:-1] if n == 1 else name}" for name, n in counts.items() if n
        )
        if said and not accepted:
            fail(f"{said} could not be read. Allow it: --on-error skip")


def _messages() -> Console:
    """Standard error, never wrapped, so that paths can be copied."""
    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def file_size(size: int) -> str:
    """A file size for people: 1 MB is a million bytes, as drives and the Hub count."""
    if size >= 100_000:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e3:.1f} kB" if size >= 1_000 else f"{size} bytes"


def shown(text: str) -> str:
    r"""Escape text that may come from a stranger: a file's name, an entry of a config.json.

    Args:
        text: The text.

    Returns:
        Markup for a console, without markup of the text's own and without control codes, which a
        terminal would obey: what cannot be printed is written as in a Python string.

    Example:
        >>> shown("[bold]photos[/]\x1b[2J")
        '\\[bold]photos\\[/]\\x1b[2J'
    """
    return escape("".join(c if c.isprintable() or c in "\n\t" else _code(c) for c in text))


def say_unused(options: Mapping[str, bool], why: str) -> None:
    """Say which of the given options mean nothing here.

    Args:
        options: Whether each was given.
        why: Why they mean nothing; ends the sentence.
    """
    if given := [option for option, was_given in options.items() if was_given]:
        say(f"not used: {', '.join(given)}; {why}")


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
