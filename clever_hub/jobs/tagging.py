"""Turn JPEGs by their EXIF orientation tag alone, with a log that takes it back, byte for byte.

No pixel is touched. The new file is made in memory, compared with the old one (all bytes from the
scan on, every other tag), written beside it and renamed; what does not compare is left as it was.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from clever_hub.errors import CleverError, DataError, require
from clever_hub.files import atomic_path
from clever_hub.jobs.logs import adding, damaged, from_log, read_log, seen_from_log

LOG_NAME = "orient-log.jsonl"
_JPEG = b"\xff\xd8\xff"
_SCAN = 0xDA
_TAG = int(ExifTags.Base.Orientation)
_MAKER_NOTE = int(ExifTags.Base.MakerNote)
# A photo turned counter-clockwise by so much is shown upright with this orientation.
ORIENTATIONS = {90: 6, 180: 3, 270: 8}


@dataclass(frozen=True)
class Tagged:
    """What became of a photo.

    Attributes:
        path: The photo.
        quarter: Degrees counter-clockwise by which it lay turned.
        problem: Why it was left as it was; empty when the tag was written.
    """

    path: Path
    quarter: int
    problem: str = ""


class LeftAloneError(CleverError):
    """A photo is left as it is; the message says why."""


def apply_turns(turns: Iterable[tuple[Path, int]], log: Path) -> Iterator[Tagged]:
    """Write orientation tags, one photo after the other.

    Args:
        turns: Photos, and by how many degrees counter-clockwise each is turned: 90, 180 or 270.
        log: The file that ``undo_turns`` takes everything back by; lines are added.

    Yields:
        What became of each.

    Raises:
        MissingExtraError: When the package ``exif`` is not installed.
        OSError: When the log cannot be written. Nothing is changed without it.
    """
    require("exif", "jobs")
    with adding(log) as add:
        for path, quarter in turns:
            try:
                before, after = _with_tag(path, ORIENTATIONS[quarter])
                _check_same(before, after, ORIENTATIONS[quarter])
            except LeftAloneError as refusal:
                yield Tagged(path, quarter, str(refusal))
                continue
            # First the log, then the photo: an interruption leaves a line too many, never one less.
            seen = {"from_log": from_log(log, path)}
            add(_entry(path, quarter, before, after) | seen)
            try:
                _replace(path, after)
            except OSError as error:
                yield Tagged(path, quarter, error.strerror or str(error))
                continue
            yield Tagged(path, quarter)


def undo_turns(log: Path) -> Iterator[Tagged]:
    """Take back what a log says, the last first; the photos are as they were, byte for byte.

    A photo that is not where it was is looked for as the log saw it: the folder in which both lie
    may have been renamed.

    Args:
        log: Written by ``apply_turns``.

    Yields:
        What became of each. A photo that was changed since is left as it is.

    Raises:
        DataError: When the log is missing or damaged.
    """
    try:
        entries = read_log(log)
    except OSError as error:
        raise DataError(f"{log}: expected a log of orient: {error.strerror}") from error
    for number, entry in enumerate(entries, 1):
        if not _is_whole(entry):
            raise damaged(log, number, entry)
    for entry in reversed(entries):
        path = _path(log, entry)
        yield Tagged(path, entry["quarter"], _take_back(path, entry))


def _with_tag(path: Path, orientation: int) -> tuple[bytes, bytes]:
    """The file as it is, and with another orientation."""
    import exif

    before = _read(path)
    try:
        image: Any = exif.Image(before)
        image.set("orientation", orientation)
        return before, bytes(image.get_file())
    except Exception as error:  # exif raises whatever a malformed tag leads to
        raise LeftAloneError(f"its tags cannot be rewritten: {error}") from error


def why_not(path: Path) -> str:
    """Why ``apply_turns`` would leave a photo alone, as far as that shows before it; else empty.

    Args:
        path: The photo.
    """
    try:
        _read(path)
    except LeftAloneError as refusal:
        return str(refusal)
    return ""


def _read(path: Path) -> bytes:
    """A photo's file, whose orientation can be set."""
    try:
        if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
            raise LeftAloneError("read-only")
        content = path.read_bytes()
    except OSError as error:
        raise LeftAloneError(error.strerror or str(error)) from error
    if not content.startswith(_JPEG):
        raise LeftAloneError("no JPEG by its first bytes; only a JPEG's tag can be written safely")
    try:
        tags = _tags(content)
    except Exception as error:  # Pillow raises whatever a malformed tag leads to
        raise LeftAloneError(f"its tags cannot be rewritten: {error}") from error
    if tags.get(_TAG, 1) != 1:
        raise LeftAloneError(f"is tagged already: orientation {tags[_TAG]}")
    if _TAG not in tags and _MAKER_NOTE in tags.get(int(ExifTags.IFD.Exif), {}):
        raise LeftAloneError("has a maker's note, which a new tag would move")
    return content


def _check_same(before: bytes, after: bytes, orientation: int) -> None:
    """Only the orientation may differ."""
    if before[_scan(before) :] != after[_scan(after) :]:
        raise LeftAloneError("its pixels would not stay as they are")
    wanted = {**_tags(before), _TAG: orientation}
    if _tags(after) != wanted:
        raise LeftAloneError("another of its tags would change")


def _scan(content: bytes) -> int:
    """Where the compressed pixels begin: the marker SOS."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == _SCAN:
            return place
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    raise LeftAloneError("no scan was found in it")


def _tags(content: bytes) -> dict[int, Any]:
    """Every tag, those of the camera and of the thumbnail too."""
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        tags = image.getexif()
        found: dict[int, Any] = dict(tags)
        for block in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            # The offsets of the blocks themselves may move.
            found[int(block)] = dict(tags.get_ifd(block))
        return {key: value for key, value in found.items() if value != {}}


def _entry(path: Path, quarter: int, before: bytes, after: bytes) -> dict[str, Any]:
    """What takes it back: the bytes that differ, and the hashes of both files."""
    # From the scan on they are equal.
    old, new = before[: _scan(before)], after[: _scan(after)]
    start = _shared(old, new)
    shorter = min(len(old), len(new)) - start
    end = _shared(old[::-1][:shorter], new[::-1][:shorter])
    return {
        "path": str(path.absolute()),
        "quarter": quarter,
        "at": start,
        "old": old[start : len(old) - end].hex(),
        "new_length": len(new) - end - start,
        "sha256_before": hashlib.sha256(before).hexdigest(),
        "sha256_after": hashlib.sha256(after).hexdigest(),
    }


def _is_whole(entry: Mapping[str, Any]) -> bool:
    kinds = {"path": str, "quarter": int, "at": int, "old": str, "new_length": int}
    kinds |= {"sha256_before": str, "sha256_after": str}
    if not isinstance(entry.get("from_log"), str | None):  # earlier versions did not write it
        return False
    return all(isinstance(entry.get(key), kind) for key, kind in kinds.items()) and bool(
        re.fullmatch(r"(?:[0-9a-f]{2})*", entry["old"])
    )


def _path(log: Path, entry: Mapping[str, Any]) -> Path:
    """Where a photo is by now."""
    path = Path(entry["path"])
    if path.exists() or entry.get("from_log") is None:
        return path
    seen = seen_from_log(log, entry["from_log"])
    return seen if seen.exists() else path


def _shared(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are equal."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _take_back(path: Path, entry: dict[str, Any]) -> str:
    """Why a photo was left as it is; empty when it is as it was before."""
    try:
        after = path.read_bytes()
        digest = hashlib.sha256(after).hexdigest()
        if digest == entry["sha256_before"]:
            return ""  # interrupted between log and photo, or taken back already
        if digest != entry["sha256_after"]:
            return "was changed since; left as it is"
        at, old = entry["at"], bytes.fromhex(entry["old"])
        before = after[:at] + old + after[at + entry["new_length"] :]
        if hashlib.sha256(before).hexdigest() != entry["sha256_before"]:
            return "the log does not lead back to it; left as it is"
        _replace(path, before)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _replace(path: Path, content: bytes) -> None:
    target = path.resolve()  # a link stays one
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
        shutil.copymode(target, temporary)
