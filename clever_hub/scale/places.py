"""Which names stand for the same image, and whether an image that was planned is still there."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from clever_hub.errors import DataError
from clever_hub.files import file_stamp
from clever_hub.scale.items import STDIN, Item
from clever_hub.scale.tables import count_rows, is_hub_id


class Places:
    """Where the names of images lead.

    A relative name begins at the working folder, or, where nothing is there, at one from which the
    folder of shards was made before.

    Attributes:
        folders: The other working folders; empty also where an older version made the shards.
        is_elsewhere: Whether it is known from where the shards were made, and not from here.

    Example:
        >>> here = Places()
        >>> one, other = Item(b"a.jpg", ""), Item(os.fsencode(Path("a.jpg").absolute()), "")
        >>> here.whole(one) == here.whole(other)
        True
    """

    def __init__(self, folders: Sequence[str] = (), inputs: Sequence[str] = ()) -> None:
        """Remember them.

        Args:
            folders: The working folders from which the shards were made.
            inputs: What is listed now.
        """
        self.folders = tuple(folder for folder in folders if folder != str(Path.cwd()))
        self._begin_is_known = bool(folders)
        self.is_elsewhere = bool(folders) and str(Path.cwd()) not in folders
        # Of folders, of which there are few; not kept longer, as the working folder may change.
        self._resolved = lru_cache(maxsize=4096)(os.path.realpath)
        self._inputs = {slashed(_spelt(given)).rstrip("/") for given in inputs}

    def whole(self, item: Item) -> bytes:
        """A name that is the same however the image is spelt: relative, absolute, by a link.

        Two links to a file are two images, as ``find_images`` has it.
        """
        path = item.table or item.name
        if "://" in path or is_hub_id(path):
            return item.key
        folder, name = os.path.split(located(path, ("", *self.folders)))
        whole = os.fsencode(os.path.join(self._resolved(folder), name))  # noqa: PTH118
        return whole + b"#%d" % item.row if item.table else whole

    def whole_input(self, given: str) -> str:
        """The same of an input: a folder or a file."""
        if given == STDIN or "://" in given:
            return _spelt(given)
        path = located(given, ("", *self.folders))
        return os.path.realpath(path) if os.path.lexists(path) else given

    def outermost(self, inputs: Sequence[str]) -> list[str]:
        """The inputs without those that are named twice, or lie in a folder that is named, too."""
        wholes: dict[str, str] = {}
        for given in inputs:
            wholes.setdefault(self.whole_input(given), given)
        folders = {slashed(whole) for whole in wholes}
        return [
            given for whole, given in wholes.items() if not is_in(_parent(slashed(whole)), folders)
        ]

    def refuse_ambiguous(self, item: Item, root: str) -> None:
        """Refuse a planned name that is one image from here and another from where it began.

        Args:
            item: An image that was planned.
            root: Names the folder of shards in errors.

        Raises:
            DataError: When the working folder is none of ``folders``, and the images are not one.
        """
        path = item.table or item.name
        # Names of the Hub and addresses begin nowhere on this machine.
        if not self.is_elsewhere or "://" in path or is_hub_id(path):
            return
        began = next((one for one in self.folders if Path(one, path).exists()), None)
        if began is None or not Path(path).exists():
            return
        if os.path.realpath(path) != os.path.realpath(Path(began, path)):
            raise DataError(
                f"{root}: its row is that of {path} of {began}; the {path} of {Path.cwd()} is "
                f"another. Call from {began} and give absolute paths of photos that are elsewhere, "
                "or name another --output"
            )

    def has(self, item: Item) -> bool:
        """Whether an image that is not listed now may still be there.

        Of addresses and of data sets on the Hub nothing is asked: those that are not under what is
        listed now are taken to be there.
        """
        path = item.table or item.name
        if "://" in path:
            return not self._is_listed(path)
        if is_hub_id(path):
            return path.removeprefix("hub:") not in self._inputs
        place = located(path, ("", *self.folders))
        if os.path.exists(place):  # noqa: PTH110
            return not item.table or _has_row(place, item.row)
        # Relative to where, an older version did not say.
        unknown = not self._begin_is_known and not os.path.isabs(path)  # noqa: PTH117
        return unknown and not self._is_listed(path)

    def _is_listed(self, path: str) -> bool:
        return is_in(slashed(path), self._inputs)


def _spelt(given: str) -> str:
    """An address as those of its images begin; anything else as it is."""
    if "://" not in given:
        return given
    from clever_hub.scale.remote import whole_address

    return whole_address(given)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def slashed(path: str, sep: str = os.sep) -> str:
    r"""A path with slashes, as addresses have them.

    Args:
        path: A path, or an address, which is returned as it is.
        sep: What separates the names in a path.

    Example:
        >>> slashed(r"C:\photos\a.jpg", "\\"), slashed("file://a b", " ")
        ('C:/photos/a.jpg', 'file://a b')
    """
    return path if "://" in path else path.replace(sep, "/")


def is_in(path: str, folders: Collection[str]) -> bool:
    """Whether a path is one of some, or lies in one of them; all with slashes."""
    while path and path not in folders:
        path = _parent(path)
    return bool(path)


def located(path: str, folders: Sequence[str]) -> str:
    """A relative path in the first of the folders that has it, else in the first.

    Args:
        path: Of a file; an absolute one is returned as it is.
        folders: Where it may begin; the empty one is the working folder.

    Example:
        >>> located("a.jpg", ["/photos"]), located("/b.jpg", ["/photos"])
        ('/photos/a.jpg', '/b.jpg')
    """
    places = [os.path.join(folder, path) for folder in folders]  # noqa: PTH118
    if len(places) == 1:
        return places[0]
    return next(filter(os.path.exists, places), places[0])


def _has_row(table: str, row: int) -> bool:
    return row < _rows(table, file_stamp(Path(table)))


@lru_cache(maxsize=256)
def _rows(table: str, _stamp: str) -> float:
    try:
        return count_rows(table)
    except DataError:  # what cannot be read now may be readable again
        return math.inf
