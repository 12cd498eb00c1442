"""Plan the shards of a folder, and change the plan when the images have changed.

What was listed is remembered in a temporary database on disk, not in memory.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clever_hub.errors import DataError
from clever_hub.scale.items import Item
from clever_hub.scale.places import Places
from clever_hub.scale.plan import in_shards, plan_name, read_plan, write_plan
from clever_hub.scale.storage import Storage

Advance = Callable[[int], None]
_SHOWN = 10
_INSERT = "INSERT OR IGNORE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass
class Changes:
    """What has changed since a folder was planned.

    Attributes:
        new: How many images are new.
        changed: How many are others under the same name.
        vanished: How many are gone.
        examples: The names of some that are gone.
        unnamed: How many are still there, but no input names them now.
        pruned: Whether their rows were dropped; else they stay.
    """

    new: int = 0
    changed: int = 0
    vanished: int = 0
    examples: list[str] = field(default_factory=list)
    unnamed: int = 0
    pruned: bool = False

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.vanished or self.unnamed)

    def describe(self) -> str:
        """In words.

        Example:
            >>> Changes(new=2, vanished=1).describe()
            '2 new, 0 changed, 1 vanished'
            >>> Changes(new=2, unnamed=15).describe()
            '2 new, 0 changed, 0 vanished, 15 no longer named'
        """
        known = f"{self.new} new, {self.changed} changed, {self.vanished} vanished"
        return f"{known}, {self.unnamed} no longer named" if self.unnamed else known


def make_plan(
    storage: Storage, items: Iterable[Item], shard_size: int, advance: Advance
) -> tuple[int, int]:
    """List the images of every shard; those that are listed twice, however spelt, count once.

    Args:
        storage: The folder of shards.
        items: The images.
        shard_size: Images in a shard.
        advance: Called with how many more were listed.

    Returns:
        How many shards and how many images.
    """
    shards = images = 0
    with _database(Places()) as known:
        fresh = (item for item in items if known.add(item))
        for number, piece in enumerate(in_shards(fresh, shard_size)):
            write_plan(storage, number, piece)
            shards, images = number + 1, images + len(piece)
            advance(len(piece))
    return shards, images


def check_names(storage: Storage, shards: int, places: Places) -> None:
    """Refuse shards of which a name leads elsewhere from this working folder.

    Args:
        storage: The folder of shards.
        shards: How many were planned.
        places: Where names lead.

    Raises:
        DataError: When a relative name leads to one image from here and to another from the folder
            where it began: the row of the one would become that of the other.
    """
    if not places.is_elsewhere:
        return
    for number in range(shards):
        # A table is asked once for all its rows.
        plan = read_plan(storage, number) or []
        for item in {item.table or item.name: item for item in plan}.values():
            places.refuse_ambiguous(item, storage.root)


def compare_plan(storage: Storage, items: Iterable[Item], shards: int, places: Places) -> Changes:
    """What has changed since the shards were planned; nothing is written.

    Args:
        storage: The folder of shards.
        items: The images as they are now.
        shards: How many shards were planned.
        places: Where names lead.
    """
    with _database(places) as known:
        _load(known, storage, shards)
        changes = Changes()
        for item in items:
            _count(changes, known.meet(item))
        _count_missing(changes, known)
    return changes


def update_plan(
    storage: Storage,
    items: Iterable[Item],
    shards: int,
    shard_size: int,
    advance: Advance,
    places: Places,
    *,
    prune: bool = False,
) -> tuple[int, int, Changes]:
    """Plan new images, plan changed ones again, and take out what has vanished.

    An image that was planned under another spelling of its name keeps that. Each plan is replaced
    as a whole, so that an update that was interrupted is repeated.

    Args:
        storage: The folder of shards.
        items: The images as they are now.
        shards: How many shards were planned.
        shard_size: Images in a shard.
        advance: Called with how many more were listed.
        places: Where names lead.
        prune: Take out also what is still there and no longer named.

    Returns:
        How many shards and images there are now, and what has changed.
    """
    changes = Changes(pruned=prune)
    with _database(places) as known:
        last = _load(known, storage, shards)
        fresh = _fresh(known, items, changes, advance)
        # New images fill up the last shard: many small updates make few small shards.
        begin = shards
        if shards and len(last) < shard_size:
            begin, head = shards - 1, last
        else:
            head = []
        for number, piece in enumerate(in_shards(_chained(head, fresh), shard_size), begin):
            if number >= shards or len(piece) > len(last):
                write_plan(storage, number, piece)
            shards = max(shards, number + 1)
        _count_missing(changes, known)
        if prune:
            known.drop_unnamed()
        for number in known.touched():
            kept = [known.now(item) for item in read_plan(storage, number) or []]
            write_plan(storage, number, [item for item in kept if item is not None])
        return shards, known.count_all(), changes


def _fresh(
    known: _Known, items: Iterable[Item], changes: Changes, advance: Advance
) -> Iterator[Item]:
    for item in items:
        advance(1)
        what = known.meet(item)
        _count(changes, what)
        if what == "new":
            yield item


def _chained(head: list[Item], rest: Iterator[Item]) -> Iterator[Item]:
    yield from head
    yield from rest


def _count(changes: Changes, what: str) -> None:
    changes.new += what == "new"
    changes.changed += what == "changed"


def _count_missing(changes: Changes, known: _Known) -> None:
    known.look_for_missing()
    changes.vanished, changes.examples = known.count("vanished"), known.vanished()
    changes.unnamed = known.count("unnamed")


def _load(known: _Known, storage: Storage, shards: int) -> list[Item]:
    """Remember everything that is planned; the images of the last shard."""
    last: list[Item] = []
    for number in range(shards):
        plan = read_plan(storage, number)
        if plan is None:
            raise DataError(
                f"{storage.root}: {plan_name(number)} is missing or damaged. Name another output"
            )
        last = plan
        known.load(number, last)
    return last


class _Known:
    """The images that were planned or listed, on disk.

    State is ``planned`` until an image is met in the list: then it is ``new``, ``same`` or
    ``changed``. Those that are not met are ``vanished`` or, where they are still there,
    ``unnamed``.
    """

    def __init__(self, database: sqlite3.Connection, places: Places) -> None:
        self._database, self._places = database, places
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA synchronous=OFF")
        database.execute(
            "CREATE TABLE known (whole BLOB PRIMARY KEY, key BLOB, shard INTEGER, stamp TEXT, "
            "place INTEGER, tab TEXT, state TEXT) WITHOUT ROWID"
        )

    def add(self, item: Item) -> bool:
        """Remember an image; whether it was not known."""
        done = self._database.execute(_INSERT, self._row(item, None, "new"))
        return done.rowcount == 1

    def load(self, shard: int, items: list[Item]) -> None:
        self._database.executemany(_INSERT, (self._row(item, shard, "planned") for item in items))

    def _row(self, item: Item, shard: int | None, state: str) -> tuple[object, ...]:
        whole = self._places.whole(item)
        return whole, item.key, shard, item.stamp, item.row, item.table, state

    def meet(self, item: Item) -> str:
        """Compare an image that is listed now: ``new``, ``changed``, ``same`` or ``again``."""
        whole = self._places.whole(item)
        found = self._database.execute(
            "SELECT stamp, state FROM known WHERE whole = ?", (whole,)
        ).fetchone()
        if found is None:
            self.add(item)
            return "new"
        stamp, state = found
        if state != "planned":
            return "again"
        state = "same" if stamp == item.stamp else "changed"
        self._database.execute(
            "UPDATE known SET state = ?, stamp = ? WHERE whole = ?", (state, item.stamp, whole)
        )
        return state

    def look_for_missing(self) -> None:
        """Tell what has vanished from what is there and was not named."""
        last = b""
        while rows := self._database.execute(
            "SELECT whole, key, stamp, tab, place FROM known WHERE state = 'planned' AND whole > ? "
            "ORDER BY whole LIMIT 1000",
            (last,),
        ).fetchall():
            self._database.executemany(
                "UPDATE known SET state = ? WHERE whole = ?",
                [
                    ("unnamed" if self._places.has(Item(*item)) else "vanished", whole)
                    for whole, *item in rows
                ],
            )
            last = rows[-1][0]

    def vanished(self) -> list[str]:
        """The names of the first images that have vanished."""
        names = self._database.execute(
            "SELECT key FROM known WHERE state = 'vanished' ORDER BY key LIMIT ?", (_SHOWN,)
        )
        return [Item(key, "").name for (key,) in names]

    def drop_unnamed(self) -> None:
        """From here on what is no longer named counts as vanished."""
        self._database.execute("UPDATE known SET state = 'vanished' WHERE state = 'unnamed'")

    def touched(self) -> list[int]:
        """The shards with an image that has changed or vanished."""
        found = self._database.execute(
            "SELECT DISTINCT shard FROM known "
            "WHERE state IN ('vanished', 'changed') AND shard IS NOT NULL ORDER BY shard"
        )
        return [shard for (shard,) in found]

    def now(self, item: Item) -> Item | None:
        """A planned image as it is now; None when it has vanished."""
        stamp, state = self._database.execute(
            "SELECT stamp, state FROM known WHERE whole = ?", (self._places.whole(item),)
        ).fetchone()
        return None if state == "vanished" else item._replace(stamp=stamp)

    def count(self, state: str) -> int:
        """How many images have a state."""
        (count,) = self._database.execute(
            "SELECT count(*) FROM known WHERE state = ?", (state,)
        ).fetchone()
        return int(count)

    def count_all(self) -> int:
        """How many images there are now."""
        (count,) = self._database.execute("SELECT count(*) FROM known").fetchone()
        return int(count) - self.count("vanished")


@contextmanager
def _database(places: Places) -> Iterator[_Known]:
    # Not committed piece by piece: nobody reads it after this process.
    with (
        tempfile.TemporaryDirectory(prefix="clever-hub-") as folder,
        closing(sqlite3.connect(Path(folder) / "known.db", isolation_level=None)) as database,
    ):
        database.execute("PRAGMA cache_size=-32000")  # 32 MB
        yield _Known(database, places)
