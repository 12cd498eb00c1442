"""Moving files out of the way, with a log that brings them back. Nothing is ever deleted."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clever_hub.errors import DataError
from clever_hub.files import write_text
from clever_hub.jobs.logs import adding, check_log, damaged, from_log, read_log, seen_from_log

LOG_NAME = "moved.jsonl"


class Move(NamedTuple):
    """A file's way.

    Attributes:
        source: Where it was, absolute.
        target: Where it is now, absolute.
    """

    source: Path
    target: Path


def check_folder(files: Iterable[Path], folder: Path, searched: Iterable[Path] = ()) -> None:
    """Refuse a folder to which not all of some files could be moved, before any work is done.

    Args:
        files: What may be moved.
        folder: Where to.
        searched: Folders in which the files were found: the next search would find what was moved
            to a place below them.

    Raises:
        DataError: When a file lies in that folder already, or the folder in one that is searched;
            or when a file named as the log is no log.
    """
    check_log(folder / LOG_NAME)
    _check_outside(files, folder)
    for place in searched:
        if place.is_dir() and folder.resolve().is_relative_to(place.resolve()):
            raise DataError(
                f"{folder}: lies in {place}, where photos are searched, so that what was moved "
                "would be found again. Move to a folder outside the photos"
            )


def _check_outside(files: Iterable[Path], folder: Path) -> None:
    inside, known = folder.resolve(), set[Path]()
    for file in files:
        if file.parent in known:
            continue
        known.add(file.parent)
        if file.parent.resolve().is_relative_to(inside):
            raise DataError(f"{file}: is in {folder} already. Move to a folder outside the photos")


def move_all(files: Sequence[Path], folder: Path) -> list[Move]:
    """Move files into a folder, each below the path that it has under their common folder.

    Every move is written to ``moved.jsonl`` in the folder before it is made, so that an
    interruption loses no trace. A file whose name is taken gets a number. The log has each target
    as it is seen from the folder, too, so that the folder may be renamed or moved.

    Args:
        files: What to move.
        folder: Where to; made when it is missing.

    Returns:
        What was moved.

    Raises:
        DataError: When a file has gone, or lies in that folder already.
        OSError: When a file cannot be moved; those before it are, and are in the log.
    """
    # Without dots, but links are not followed: a link is moved, not what it leads to.
    sources = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100
    folder = Path(os.path.abspath(folder))  # noqa: PTH100
    for source in sources:
        if not source.is_file():
            raise DataError(f"{source}: no such file any more; nothing was moved")
    _check_outside(sources, folder)
    if not sources:
        return []
    try:
        common = Path(os.path.commonpath([source.parent for source in sources]))
    except ValueError as error:  # on Windows
        raise DataError("the photos are on several drives; move those of one at a time") from error
    moves: list[Move] = []
    log = folder / LOG_NAME
    with adding(log) as add:
        for source in sources:
            target = _free(folder / source.relative_to(common))
            target.parent.mkdir(parents=True, exist_ok=True)
            seen = {"from_log": from_log(log, target)}
            add({"source": os.fsdecode(source), "target": os.fsdecode(target), **seen})
            _move(source, target)
            moves.append(Move(source, target))
    return moves


def undo(log: Path) -> tuple[list[Move], list[str]]:
    """Bring moved files back, the last one first.

    What was brought back leaves the log; when nothing is left, the log goes too. A file is looked
    for beside the log first, then where it was moved to: either of the two may have been renamed.

    Args:
        log: The log, or the folder in which it lies.

    Returns:
        What was brought back, and what could not be, with the reason.

    Raises:
        DataError: When there is no log, or it is damaged.
    """
    log = log / LOG_NAME if log.is_dir() else log
    back: list[Move] = []
    kept: list[dict[str, Any]] = []
    problems: list[str] = []
    for move, entry in reversed(_read(log)):
        # A link counts also where it leads nowhere, as one does that was moved on its own.
        if not os.path.lexists(move.target):
            # Written to the log, then interrupted before it was moved; or moved on by someone.
            if not os.path.lexists(move.source):
                problems.append(f"{move.target}: has gone")
                kept.append(entry)
        elif _copied(move):  # interrupted before the source was removed
            move.target.unlink()
        elif os.path.lexists(move.source):
            problems.append(f"{move.source}: another file is there now; {move.target} stays")
            kept.append(entry)
        else:
            try:
                move.source.parent.mkdir(parents=True, exist_ok=True)
                _move(move.target, move.source)
            except OSError as error:
                problems.append(f"{move.source}: {error.strerror or error}; {move.target} stays")
                kept.append(entry)
            else:
                back.append(move)
    if kept:
        write_text(log, "".join(json.dumps(entry) + "\n" for entry in reversed(kept)))
    else:
        log.unlink()
    for move in back:
        _remove_empty(move.target.parent, log.parent)
    return back, problems


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder that is empty now, and those above it, below the top."""
    while folder != top and folder.is_relative_to(top):
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone already with another file
            if folder.exists():
                return
        folder = folder.parent


def _read(log: Path) -> list[tuple[Move, dict[str, Any]]]:
    """The moves, with the target where it is by now, and the lines that tell of them."""
    if not log.is_file():
        raise DataError(f"{log}: no such log. It is {LOG_NAME} in the folder that was moved to")
    moves = []
    for number, entry in enumerate(read_log(log), 1):
        try:
            moves.append((Move(Path(entry["source"]), _target(log, entry)), entry))
        except (KeyError, TypeError) as error:
            raise damaged(log, number, entry) from error
    return moves


def _target(log: Path, entry: dict[str, Any]) -> Path:
    """Where a file is that was moved; earlier versions logged the absolute path alone."""
    logged = Path(entry["target"])
    if entry.get("from_log") is None:
        return logged
    # First beside the log: where the folder was, other photos may have been moved to since.
    beside = seen_from_log(log, entry["from_log"])
    return logged if os.path.lexists(logged) and not os.path.lexists(beside) else beside


def _move(source: Path, target: Path) -> None:
    """Move a file; where that fails it is in its old place alone."""
    try:
        shutil.move(source, target)
    except BaseException:
        # To another disk, or out of a folder that is read-only: copied, maybe in part, and then
        # not removed.
        if os.path.lexists(source):
            target.unlink(missing_ok=True)
        raise


def _copied(move: Move) -> bool:
    """Whether source and target are two files with the same content."""
    pair = (move.source, move.target)
    if any(path.is_symlink() or not path.is_file() for path in pair):
        return False
    return not move.source.samefile(move.target) and filecmp.cmp(*pair, shallow=False)


def _free(path: Path) -> Path:
    """The path, or with a number where there is a file already."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
        number += 1
    return candidate
