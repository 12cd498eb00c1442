"""Embeddings of photos on disk: computed once, kept when the work is interrupted.

A folder of parquet files that are never changed. A photo is known again by its path, size and time
of change; whoever embeds the same photos by the same model and options finds them here.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings, Skipped
from clever_hub.errors import DataError, require
from clever_hub.files import atomic_path
from clever_hub.jobs.embedded import EmbeddedPhotos, ModelKey, from_column, to_column
from clever_hub.jobs.rows import Photo, TableRow

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin

PARTS = ("invariant", "equivariant")
_TEXTS: Any = ["path"]  # of floats, which never repeat, parquet's dictionary costs room and time
SHARD = 2048  # photos in a file, the most that an interruption loses

_LOG = logging.getLogger(__name__)
_BYTES = "bytes:"  # no absolute path begins so

Advance: TypeAlias = Callable[[int], None]


class PhotoKey(NamedTuple):
    """By what a photo is known again.

    Attributes:
        path: Absolute, as ``photo_name`` has it.
        size: In bytes.
        mtime_ns: Time of the last change, in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


def embed_photos(
    model: JobsMixin,
    paths: Sequence[Photo],
    *,
    cache: Path | None,
    averaged: bool = False,
    decode: Literal["reduced", "exact"] = "reduced",
    advance: Advance = lambda _: None,
    needed: bool = True,
) -> EmbeddedPhotos:
    """Embed photos, those that are known already out of the cache.

    Where the cache cannot be written, the log says so and nothing is kept.

    Args:
        model: As ``from_pretrained`` gives it, of any backend.
        paths: Image files, or photos in tables.
        cache: The folder of all caches; None keeps nothing. What was embedded before an
            interruption is there the next time.
        averaged: Take the mean of the embeddings of four looks at each photo, at the whole and at
            its middle, turned (``encode_copies``): turned, cropped and framed copies come out more
            alike. Four times the work of the model, not of decoding.
        decode: ``"reduced"`` or ``"exact"``, as for ``load_image``.
        advance: Called with the number of photos that are done, piece by piece.
        needed: Whether one photo at least must be readable.

    Returns:
        The embeddings, raw, in the order of the paths.

    Raises:
        DataError: When none of the photos can be read, and one is needed.
    """
    weights, setting = ModelKey.of(model)
    kind = "copies" if averaged else "plain"
    name = f"{model.config.name}-{weights[:16]}-{setting}-{kind}-{decode}"
    shards = None if cache is None or not weights else Shards(cache / name)
    keys = [photo_key(path) for path in paths]
    skipped = [Skipped(i, str(p), "no such file") for i, p in enumerate(paths) if keys[i] is None]
    rows = [np.empty((len(paths), width), np.float32) for width in _widths(model)]
    known = np.zeros(len(paths), bool)
    wanted = {key: i for i, key in enumerate(keys) if key is not None}
    for place, found in shards.read(wanted) if shards is not None else ():
        for part, values in zip(rows, found, strict=True):
            part[place] = values
        known[place] = True
        advance(len(place))
    waiting: list[int] = []
    missing = [i for i, key in enumerate(keys) if key is not None and not known[i]]
    try:
        for batch, parts, bad in _embed(model, [paths[i] for i in missing], averaged, decode):
            places = [missing[position] for position in batch]
            for part, values in zip(rows, parts, strict=True):
                part[places] = values
            known[places] = True
            waiting += places
            skipped += [one._replace(position=missing[one.position]) for one in bad]
            advance(len(batch) + len(bad))
            if len(waiting) >= SHARD:
                shards = _keep(shards, keys, rows, waiting)
    finally:
        _keep(shards, keys, rows, waiting)
    if needed and not known.any():
        shown = "".join(f"\n  {one.source}: {one.reason}" for one in skipped[:10])
        raise DataError(f"none of the {len(paths)} photos could be read{shown}")
    return replace(_collected(paths, rows, known, skipped, averaged, weights), config=setting)


def photo_key(path: Photo) -> PhotoKey | None:
    """By what a photo is known again; None where it has gone.

    Example:
        >>> photo_key(Path("/nowhere/a.jpg")) is None
        True
    """
    try:
        state = path.stat()
    except OSError:
        return None
    return PhotoKey(photo_name(path), state.st_size, state.st_mtime_ns)


def photo_name(path: Photo) -> str:
    r"""The absolute path as text from which it can be told.

    Names on Linux are bytes, which need not be text. A path with ``..`` leads through its folder's
    links.

    Example:
        >>> photo_name(Path(os.fsdecode(b"/photos/caf\xe9.jpg")))
        'bytes:2f70686f746f732f636166e92e6a7067'
    """
    if isinstance(path, TableRow):
        return path.key
    whole = path.absolute()
    if ".." in whole.parts:
        whole = whole.parent.resolve() / whole.name
    exact = os.fsencode(whole)
    try:
        return exact.decode()
    except UnicodeDecodeError:
        return _BYTES + exact.hex()


def photo_path(name: str) -> Path:
    """The path that ``photo_name`` named."""
    if name.startswith(_BYTES):
        return Path(os.fsdecode(bytes.fromhex(name.removeprefix(_BYTES))))
    return Path(name)


class Shards:
    """A folder of parquet files with embeddings, each written whole or not at all.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        require("pyarrow.parquet", "jobs")
        self.folder = folder

    def read(
        self, wanted: dict[PhotoKey, int]
    ) -> Iterator[tuple[list[int], list[NDArray[np.float32]]]]:
        """What is there of the wanted photos.

        Args:
            wanted: The place of each photo's row.

        Yields:
            Places, and their rows of each part, a file at a time. A file that cannot be read is
            passed over: its photos are embedded again.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in sorted(self.folder.glob("*.parquet")):
            try:
                with pq.ParquetFile(file) as opened:
                    table = opened.read(columns=list(PhotoKey._fields))
                    columns = [table[name].to_pylist() for name in PhotoKey._fields]
                    keys = [PhotoKey(*key) for key in zip(*columns, strict=True)]
                    rows = [row for row, key in enumerate(keys) if key in wanted]
                    if not rows:
                        continue  # most files: the folder has all that was ever embedded
                    table = opened.read(columns=list(PARTS))
                    vectors = [from_column(table[part]) for part in PARTS]
            except (OSError, KeyError, pa.ArrowException):
                continue
            yield [wanted[keys[row]] for row in rows], [part[rows] for part in vectors]

    def write(self, keys: Sequence[PhotoKey], parts: Sequence[NDArray[np.float32]]) -> None:
        """Keep rows in a new file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [pa.array(list(column)) for column in zip(*keys, strict=True)]
        table = pa.table(
            [*columns, *(to_column(part) for part in parts)], names=[*PhotoKey._fields, *PARTS]
        )
        with atomic_path(self.folder / f"{secrets.token_hex(8)}.parquet") as path:
            pq.write_table(table, path, use_dictionary=_TEXTS)


def _embed(
    model: JobsMixin,
    paths: Sequence[Photo],
    averaged: bool,
    decode: Literal["reduced", "exact"],
) -> Iterator[tuple[list[int], list[NDArray[np.float32]], Sequence[Skipped]]]:
    """Embed batch by batch: places, rows of each part, and what could not be read."""
    if not averaged:
        for batch in model.encode_batches(paths, on_error="skip", decode=decode):
            found = batch.embeddings
            yield batch.indices, [found.invariant, found.equivariant], found.skipped
        return
    first = 0
    for turned, skipped in _turned(model, paths, decode):
        bad = {one.position for one in skipped}
        count = len(turned[0]) + len(bad)
        places = [place for place in range(first, first + count) if place not in bad]
        means = [np.mean([getattr(one, part) for one in turned], axis=0) for part in PARTS]
        yield places, means, skipped
        first += count


def _turned(
    model: JobsMixin, paths: Sequence[Photo], decode: Literal["reduced", "exact"]
) -> Iterator[tuple[list[Embeddings], list[Skipped]]]:
    with closing(model.encode_copies(paths, on_error="skip", decode=decode)) as batches:
        yield from ((batch.turned, batch.skipped) for batch in batches)


def _keep(
    shards: Shards | None,
    keys: Sequence[PhotoKey | None],
    rows: Sequence[NDArray[np.float32]],
    places: list[int],
) -> Shards | None:
    """Write rows to the cache and forget that they wait; None where it cannot be written."""
    if shards is not None and places:
        known = [key for place in places if (key := keys[place]) is not None]
        try:
            shards.write(known, [part[places] for part in rows])
        except OSError as error:
            _LOG.warning(
                "%s: %s. What is embedded is not kept; the next run computes it again. Choose "
                "another cache folder, or make room on its disk",
                shards.folder,
                error.strerror or error,
            )
            shards = None
    places.clear()
    return shards


def _widths(model: JobsMixin) -> tuple[int, int]:
    return model.config.invariant_dim, model.config.equivariant_dim


def _collected(
    paths: Sequence[Photo],
    rows: list[NDArray[np.float32]],
    known: NDArray[np.bool_],
    skipped: list[Skipped],
    averaged: bool,
    weights: str,
) -> EmbeddedPhotos:
    if not known.all():  # else the arrays are given as they are: a copy would double the memory
        rows = [part[known] for part in rows]
        paths = [path for path, there in zip(paths, known, strict=True) if there]
    skipped.sort()
    embeddings = Embeddings(rows[0], rows[1], tuple(skipped))
    return EmbeddedPhotos(list(paths), embeddings, weights, "averaged" if averaged else "raw")
