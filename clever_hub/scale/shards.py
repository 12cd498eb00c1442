"""Compute a shard: a parquet file with the embeddings of the images that its plan lists."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clever_hub.config import ModelConfig
from clever_hub.errors import CleverError, DataError
from clever_hub.images.encoding import EncoderMixin
from clever_hub.scale.items import Item
from clever_hub.scale.places import located
from clever_hub.scale.plan import plan_digest, plan_name, read_plan
from clever_hub.scale.settings import Made
from clever_hub.scale.storage import FOLDER, Storage
from clever_hub.scale.tables import Unreadable, is_hub_id, read_rows

if TYPE_CHECKING:
    from clever_hub.scale.remote import RemoteImage

_SKIPPED = f"{FOLDER}/skipped"
PLAN_KEY, MADE_KEY = "clever_hub.plan", "clever_hub.made"
# What parquet writes by a dictionary; of floats, which never repeat, one costs room and time.
TEXTS: Any = ["path", "path_bytes", "stamp"]  # pyarrow's stubs know of no list
Advance = Callable[[int], None]


class Finished(NamedTuple):
    """What became of a shard.

    Attributes:
        shard: Its number.
        images: How many its plan lists.
        rows: How many have a row; the others could not be read.
        computed: How many of the rows were computed now, rather than before.
    """

    shard: int
    images: int
    rows: int
    computed: int


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05}.parquet"


def skipped_name(number: int) -> str:
    """The side table of a shard: the images that could not be read."""
    return f"{_SKIPPED}/{number:05}.jsonl"


def check_shard(storage: Storage, number: int, made: Made) -> Finished | None:
    """Whether a shard is there and holds what its plan says; None when it must be computed.

    Args:
        storage: The folder of shards.
        number: Of the shard.
        made: By what its vectors must be made.
    """
    found = _metadata(storage, number)
    plan = None if found is None else read_plan(storage, number)
    if found is None or plan is None:
        return None
    rows, metadata = found
    if metadata.get(PLAN_KEY) != plan_digest(plan) or metadata.get(MADE_KEY) != made.fingerprint():
        return None
    if rows < len(plan) and rows + _count_skipped(storage, number) < len(plan):
        return None  # see retry_skipped
    return Finished(number, len(plan), rows, 0)


def finish_shard(
    storage: Storage,
    number: int,
    model: EncoderMixin,
    made: Made,
    *,
    num_workers: int | None = None,
    image_column: str | None = None,
    folders: Sequence[str] = ("",),
    advance: Advance = lambda _: None,
) -> Finished:
    """Compute a shard if it is not there; rows of images that have not changed are kept.

    Running it again, or twice at once, gives the same file.

    Args:
        storage: The folder of shards.
        number: Of the shard.
        model: Embeds the images.
        made: By what its vectors are made.
        num_workers: Threads that decode; None chooses by the number of cores.
        image_column: The image column of tables; None looks for it.
        folders: Where relative paths may begin, as for ``places.located``.
        advance: Called with how many more images are done.

    Returns:
        What became of it.

    Raises:
        DataError: When its plan is missing or damaged.
        CleverError: When the disk is full.
    """
    if (there := check_shard(storage, number, made)) is not None:
        advance(there.images)
        return there
    plan = read_plan(storage, number)
    if plan is None:
        raise DataError(
            f"{storage.root}: {plan_name(number)} is missing or damaged. Name another output"
        )
    vectors = np.empty((len(plan), model.config.num_features), np.float32)
    have, is_current = _kept_rows(storage, number, made, plan, vectors)
    kept = int(have.sum())
    advance(kept)
    missing = [place for place in range(len(plan)) if not have[place]]
    skipped: list[tuple[int, str]] = []
    batches = model.encode_batches(
        _sources([plan[place] for place in missing], image_column, folders),
        batch_size=made.batch_size,
        normalize=made.normalized,
        on_error="skip",
        num_workers=num_workers,
        **made.load_keywords(),
    )
    for batch in batches:
        places = [missing[index] for index in batch.indices]
        vectors[places] = batch.embeddings.full
        have[places] = True
        skipped += [(missing[bad.position], bad.reason) for bad in batch.embeddings.skipped]
        advance(len(places) + len(batch.embeddings.skipped))
    _write_skipped(storage, number, plan, sorted(skipped))
    rows = int(have.sum())
    if rows > kept or not is_current:
        _write(storage, number, model.config, made, plan, vectors, have)
    return Finished(number, len(plan), rows, rows - kept)


def read_skipped(storage: Storage, shards: Iterable[int]) -> Iterator[tuple[str, str]]:
    """Name and reason of the images that could not be read, shard by shard."""
    for number in shards:
        for line in (storage.read(skipped_name(number)) or b"").splitlines():
            entry = json.loads(line)
            yield entry["path"], entry["reason"]


def read_all_skipped(storage: Storage) -> list[tuple[str, str]]:
    """Name and reason of the images of every shard that could not be read."""
    names = (name.removesuffix(".jsonl") for name in storage.names(_SKIPPED))
    return list(read_skipped(storage, [int(name) for name in names if name.isdecimal()]))


def retry_skipped(storage: Storage, shards: Iterable[int]) -> None:
    """Have the images tried again that could not be read: the reason may have passed.

    A shard that lacks rows and has no side table is unfinished; its rows are kept.
    """
    there = set(storage.names(_SKIPPED))  # of thousands of shards a few may have some
    for number in shards:
        if (name := skipped_name(number)).rpartition("/")[2] in there:
            storage.remove(name)


def _count_skipped(storage: Storage, number: int) -> int:
    return len((storage.read(skipped_name(number)) or b"").splitlines())


def schema(config: ModelConfig, made: Made, more: dict[str, str] | None = None) -> pa.Schema:
    """The columns of files with embeddings.

    Args:
        config: The model's.
        made: Goes into the metadata.
        more: Further metadata.

    Returns:
        ``path`` (text), ``invariant`` and ``equivariant`` (lists of float32 of a fixed length), and
        ``path_bytes``, which has the exact name of files whose name is no text.
    """
    fields = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("invariant", pa.list_(pa.float32(), config.invariant_dim)),
    ]
    if config.equivariant_dim:  # Arrow's lists of fixed length have at least 1 element
        fields.append(pa.field("equivariant", pa.list_(pa.float32(), config.equivariant_dim)))
    fields.append(pa.field("path_bytes", pa.binary()))
    metadata: dict[str | bytes, str | bytes] = {}
    metadata.update(made.metadata() | (more or {}))
    return pa.schema(fields, metadata=metadata)


def _write_skipped(
    storage: Storage, number: int, plan: list[Item], skipped: list[tuple[int, str]]
) -> None:
    """Write the side table; before the shard, so that a shard that is there is complete."""
    lines = [json.dumps({"path": plan[place].name, "reason": reason}) for place, reason in skipped]
    if lines:
        storage.write(skipped_name(number), ("\n".join(lines) + "\n").encode())
    else:
        storage.remove(skipped_name(number))


def _write(
    storage: Storage,
    number: int,
    config: ModelConfig,
    made: Made,
    plan: list[Item],
    vectors: NDArray[np.float32],
    have: NDArray[np.bool_],
) -> None:
    kept = [item for item, there in zip(plan, have, strict=True) if there]
    rows = vectors[have]
    wanted = schema(
        config, made, {PLAN_KEY: plan_digest(plan), MADE_KEY: made.fingerprint()}
    ).append(pa.field("stamp", pa.string()))
    parts = {
        "invariant": rows[:, : config.invariant_dim],
        "equivariant": rows[:, config.invariant_dim :],
    }
    columns = {
        "path": pa.array([text_of(item.key) for item in kept], pa.string()),
        **{name: _vectors(part) for name, part in parts.items() if part.shape[1]},
        "path_bytes": pa.array([_exact(item.key) for item in kept], pa.binary()),
        "stamp": pa.array([item.stamp for item in kept], pa.string()),
    }
    table = pa.Table.from_arrays([columns[name] for name in wanted.names], schema=wanted)
    content = io.BytesIO()
    pq.write_table(table, content, use_dictionary=TEXTS)
    storage.write(shard_name(number), content.getvalue())


def text_of(key: bytes) -> str:
    """A name as text; what is no UTF-8 becomes the replacement character."""
    return key.decode("utf-8", "replace")


def _exact(key: bytes) -> bytes | None:
    """A name that its text does not tell; None for all others."""
    return None if text_of(key).encode() == key else key


def _sources(items: Sequence[Item], column: str | None, folders: Sequence[str]) -> Iterator[Any]:
    """What ``encode_batches`` takes: paths, the bytes of rows, and addresses as open files."""
    for table, group in groupby(items, key=lambda item: item.table):
        if table:
            where = table if is_hub_id(table) else located(table, folders)
            yield from read_rows(where, column, [item.row for item in group])
            continue
        for item in group:
            remote = "://" in item.name
            yield _remote(item.name) if remote else located(item.name, folders)


def _remote(address: str) -> RemoteImage | Unreadable:
    """An image at an address, which is not fetched yet."""
    from clever_hub.scale.remote import RemoteImage

    try:
        return RemoteImage(address)
    except CleverError:  # such as a missing extra: so for all
        raise
    except Exception as error:  # noqa: BLE001  # of s3fs, gcsfs, aiohttp: they share no base
        return Unreadable(error)


def _metadata(storage: Storage, number: int) -> tuple[int, dict[str, str]] | None:
    """Rows and metadata of a shard; None where it is missing, truncated or no parquet file."""
    file = storage.open(shard_name(number))
    if file is None:
        return None
    with file:
        try:
            found = pq.ParquetFile(file)
            words = found.schema_arrow.metadata or {}
            rows = found.metadata.num_rows
        except (OSError, pa.ArrowException):
            return None
    return rows, {key.decode(): value.decode("utf-8", "replace") for key, value in words.items()}


def _kept_rows(
    storage: Storage, number: int, made: Made, plan: list[Item], vectors: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], bool]:
    """Fill in the rows of images that have not changed.

    Returns:
        Which these are, and whether the shard is of this plan and has no other rows.
    """
    have = np.zeros(len(plan), bool)
    found = _metadata(storage, number)
    if found is None or found[1].get(MADE_KEY) != made.fingerprint():
        return have, False
    file = storage.open(shard_name(number))
    with file:
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException):  # damaged behind its head
            return have, False
    columns: list[list[Any]] = [table[name].to_pylist() for name in ("path", "path_bytes", "stamp")]
    names = zip(*columns, strict=True)
    rows = {(exact or path.encode(), stamp): row for row, (path, exact, stamp) in enumerate(names)}
    places = [place for place, item in enumerate(plan) if (item.key, item.stamp) in rows]
    if places:
        wanted = [rows[plan[place].key, plan[place].stamp] for place in places]
        vectors[places] = read_vectors(table)[wanted]
        have[places] = True
    return have, found[1].get(PLAN_KEY) == plan_digest(plan) and len(table) == len(places)


def read_vectors(table: Any) -> NDArray[np.float32]:
    """The embeddings of a table as one array, float32 (N, num_features)."""
    import pyarrow.compute as pc

    parts = [
        np.asarray(pc.list_flatten(table[name]).to_numpy(), np.float32).reshape(len(table), -1)
        for name in ("invariant", "equivariant")
        if name in table.column_names and len(table)
    ]
    return np.concatenate(parts, axis=1) if parts else np.empty((0, 0), np.float32)


def _vectors(rows: NDArray[np.float32]) -> pa.Array[Any]:
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
