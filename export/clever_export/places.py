"""Commands and names of photos without the places of the machine that they were used on."""

from __future__ import annotations

import re
import shlex
from pathlib import PureWindowsPath

# Absolute paths and those that begin at the working folder or at home; Windows has its own.
_LOCAL = re.compile(r"(\.{0,2}|~)[/\\]|\w:[/\\]")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?", re.ASCII)
_SPLIT = re.compile(r"train|validation|val|test")
_NAMELESS = ("", ".", "..", "~")


def portable(command: str, name: str) -> str:
    """A command without the paths of the machine that it ran on: only their last component.

    Args:
        command: As it was typed.
        name: By what users of the card load the model.
    """
    words = ["--output" if word == "--out" else word for word in shlex.split(command)]  # renamed
    if words[1:2] == ["evaluate"] and words[2:] and not words[2].startswith("-"):
        words[2] = name
    return shlex.join(
        "".join(PureWindowsPath(part).name if _LOCAL.match(part) else part for part in _parts(word))
        for word in words
    )


def names_places(command: str) -> bool:
    """Whether a command tells where files of the machine lie that it ran on.

    Args:
        command: As it was typed.
    """
    return any(_LOCAL.match(part) for word in shlex.split(command) for part in _parts(word))


def public_photos(name: str) -> str:
    """What photos are called where others read it, as ``pretrain`` calls them in a config.

    It asks no disk, so that a card has the same bytes on every machine.

    Args:
        name: As evaluation.json has it: a path, or a Hub id.

    Returns:
        A Hub id as it is. The name alone of a folder or file; for one called after a split, such as
        train.parquet, with that of its folder.

    Example:
        >>> public_photos("user/photos:train"), public_photos("/home/me/birds/train.parquet")
        ('user/photos:train', 'birds/train.parquet')
    """
    if _HUB_ID.fullmatch(name):
        return name
    path = PureWindowsPath(name)  # knows both kinds of separators
    split = _SPLIT.match(path.name) and path.parent.name not in _NAMELESS
    return f"{path.parent.name}/{path.name}" if split else path.name


def _parts(word: str) -> list[str]:
    """In --data=A,B each of the two is a path."""
    return re.split("([,=])", word)
