"""Logs that take work back: a line of JSON before each change, on the disk before it is made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clever_hub.errors import DataError


def from_log(log: Path, path: Path) -> str | None:
    """A path as seen from the folder of a log; None from another drive, under Windows.

    Example:
        >>> from_log(Path("/copies/moved.jsonl"), Path("/copies/2020/a.jpg"))
        '2020/a.jpg'
    """
    try:
        return os.path.relpath(path, log.parent)
    except ValueError:
        return None


def seen_from_log(log: Path, relative: str) -> Path:
    """The absolute path of what ``from_log`` named, wherever the log's folder is by now.

    Example:
        >>> seen_from_log(Path("/renamed/moved.jsonl"), "2020/a.jpg")
        PosixPath('/renamed/2020/a.jpg')
    """
    return Path(os.path.abspath(log.parent / relative))  # noqa: PTH100, links are not followed


@contextmanager
def adding(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a log to add lines.

    Args:
        path: The file; made, with its folder, when it is missing. A last line that an interruption
            cut short is removed: its change was not made.

    Yields:
        What writes an entry and waits until it is on the disk. Where that fails, it raises OSError,
        and the change must not be made.

    Raises:
        DataError: When the file is there and is no log.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend(path)
    with path.open("a", encoding="utf-8") as file:

        def add(entry: Mapping[str, Any]) -> None:
            # ASCII: names that are not UTF-8 survive as escapes.
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

        yield add


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, in order.

    A last line that an interruption cut short is passed over: its change was not made.

    Raises:
        DataError: When another line is no JSON object.
        OSError: When it cannot be read.
    """
    entries: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").split("\n")
    torn = lines.pop()  # what follows the last line end: nothing, but for an interruption
    if _entry(torn) is not None:
        lines.append(torn)  # whoever edited it left out the line end
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry is None:
            raise damaged(path, number, line)
        entries.append(entry)
    return entries


def damaged(path: Path, number: int, line: object) -> DataError:
    """What is raised where a line, counted from 1, says nothing that can be taken back."""
    return DataError(
        f"{path}: line {number} is damaged: {str(line)[:80]!r}. Nothing was taken back. Mend the "
        "line, or remove it, and the rest can be"
    )


def _entry(line: str) -> dict[str, Any] | None:
    """The JSON object in a line; None where it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def check_log(path: Path) -> None:
    """Refuse a file that ``adding`` would refuse, before any work is done.

    Raises:
        DataError: When the file is there and is no log.
        OSError: When it cannot be read.
    """
    _content_and_end(path)


def _content_and_end(path: Path) -> tuple[bytes, str]:
    """A log's bytes, and what follows its last line end.

    Raises:
        DataError: When it is no log.
    """
    content = path.read_bytes() if path.is_file() else b""
    *lines, torn = content.decode("utf-8", "replace").split("\n")
    cut_short = torn.startswith('{"') or '{"'.startswith(torn) or not torn.strip("\0")
    whole = _entry(torn) is not None
    if any(_entry(line) is None for line in lines) or not (whole or cut_short):
        raise DataError(
            f"{path}: expected a log of earlier changes, or a new name, got another file"
        )
    return content, torn


def _mend(path: Path) -> None:
    """Let the file end in a whole line.

    Raises:
        DataError: When it is no log.
    """
    content, torn = _content_and_end(path)
    if _entry(torn) is not None:  # whoever edited it left out the line end
        with path.open("ab") as file:
            file.write(b"\n")
    elif torn:
        os.truncate(path, content.rfind(b"\n") + 1)
