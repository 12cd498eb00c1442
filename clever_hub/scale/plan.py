"""Which image belongs to which shard, on disk: it is fixed before the first image is embedded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from clever_hub.scale.items import Item
from clever_hub.scale.storage import FOLDER, Storage

_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.binary(),
    "stamp": pa.string(),
    "table": pa.string(),
    "row": pa.int64(),
}
_SCHEMA = pa.schema(_COLUMNS)


def plan_name(number: int) -> str:
    """The file that lists the images of a shard."""
    return f"{FOLDER}/plan/{number:05}.parquet"


def write_plan(storage: Storage, number: int, items: Sequence[Item]) -> None:
    """List the images of a shard.

    Args:
        storage: The folder of shards.
        number: Of the shard.
        items: Its images.
    """
    columns = list(zip(*items, strict=True)) or [()] * len(_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), content)
    storage.write(plan_name(number), content.getvalue())


def read_plan(storage: Storage, number: int) -> list[Item] | None:
    """The images of a shard; None where no such plan is, or it is damaged."""
    content = storage.read(plan_name(number))
    if content is None:
        return None
    try:
        columns = pq.read_table(io.BytesIO(content)).to_pydict()
        return [Item(*values) for values in zip(*map(columns.get, Item._fields), strict=True)]
    except (OSError, pa.ArrowException, TypeError):
        return None


def plan_digest(items: Iterable[Item]) -> str:
    """A hash of what a shard is to hold; it is in the shard's metadata when it holds that.

    Example:
        >>> plan_digest([Item(b"a.jpg", "1:1")]) == plan_digest([Item(b"a.jpg", "1:2")])
        False
    """
    found = hashlib.blake2b(digest_size=16)
    for item in items:
        for word in (item.key, item.stamp.encode(), item.table.encode(), b"%d" % item.row):
            found.update(len(word).to_bytes(4, "little"))
            found.update(word)
    return found.hexdigest()


def in_shards(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut a stream of images into pieces of so many.

    Example:
        >>> [len(piece) for piece in in_shards([Item(b"a", "")] * 5, 2)]
        [2, 2, 1]
    """
    piece: list[Item] = []
    for item in items:
        piece.append(item)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
