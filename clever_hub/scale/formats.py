"""Shards into one file of the format that its ending names, a shard in memory at a time."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clever_hub.config import ModelConfig
from clever_hub.errors import DataError, MissingExtraError
from clever_hub.files import atomic_path
from clever_hub.scale.settings import Made
from clever_hub.scale.shards import TEXTS, schema, shard_name
from clever_hub.scale.storage import Storage, cannot_write
from clever_hub.scale.tables import exact_paths

PARTS = ("invariant", "equivariant")


def join(
    storage: Storage, shards: Sequence[int], target: Path, config: ModelConfig, made: Made
) -> None:
    """Write the rows of shards into one file, which appears when it is complete.

    Args:
        storage: The folder of shards.
        shards: The numbers of those that are there.
        target: The file to write, with an ending of ``FORMATS``.
        config: The model's.
        made: By what the vectors were made.

    Raises:
        CleverError: When the disk is full.
        MissingExtraError: When LanceDB is not installed.
    """
    wanted = schema(config, made)
    write = FORMATS[target.suffix.lower()]
    try:
        if target.suffix.lower() == ".lance":
            write(lambda: _tables(storage, shards, wanted), target, wanted)
            return
        with atomic_path(target) as path:
            write(lambda: _tables(storage, shards, wanted), path, wanted)
    except OSError as error:
        raise cannot_write(target, error) from error


def check_ending(target: Path) -> None:
    """Refuse a name whose ending no format has, and a format whose package is missing.

    Args:
        target: The file to write.

    Raises:
        DataError: When its ending is unknown; names the known ones.
        MissingExtraError: When LanceDB is not installed.
    """
    if target.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise DataError(
            f"--output: expected a folder, or a file that ends in {known}; got {target}"
        )
    if target.suffix.lower() == ".lance":
        _lancedb()


Tables = Callable[[], Iterator[pa.Table]]


def _tables(storage: Storage, shards: Sequence[int], wanted: pa.Schema) -> Iterator[pa.Table]:
    for number in shards:
        file = storage.open(shard_name(number))
        with file:
            table = pq.read_table(file, columns=wanted.names)
        yield table.select(wanted.names).replace_schema_metadata(wanted.metadata)


def _parquet(tables: Tables, path: Path, wanted: pa.Schema) -> None:
    with pq.ParquetWriter(path, wanted, use_dictionary=TEXTS) as writer:
        for table in tables():
            if len(table):
                writer.write_table(table)


def _csv(tables: Tables, path: Path, wanted: pa.Schema) -> None:
    """Columns ``path``, ``invariant_0`` …; a path that is no text is written as its bytes."""
    parts = _parts(wanted)
    names = [f"{part}_{i}" for part, width in parts.items() for i in range(width)]
    # Not Arrow's writer of CSV, which refuses bytes that are no UTF-8.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *names])
        for table in tables():
            words = [_words(read_part(table, part)) for part in parts]
            for key, *vectors in zip(exact_paths(table), *words, strict=True):
                writer.writerow([os.fsdecode(key), *(word for row in vectors for word in row)])


def _jsonl(tables: Tables, path: Path, wanted: pa.Schema) -> None:
    """An object a line: ``path`` and the parts, the shortest numbers that read back the same."""
    parts = _parts(wanted)
    with path.open("w", encoding="ascii", newline="\n") as file:
        for table in tables():
            words = [_words(read_part(table, part)) for part in parts]
            for key, *vectors in zip(exact_paths(table), *words, strict=True):
                lists = ", ".join(
                    f'"{part}": [{", ".join(row)}]'
                    for part, row in zip(parts, vectors, strict=True)
                )
                file.write(f'{{"path": {json.dumps(os.fsdecode(key))}, {lists}}}\n')


def _npz(tables: Tables, path: Path, wanted: pa.Schema) -> None:
    """Arrays ``path``, ``invariant`` and ``equivariant``, and ``metadata`` as JSON."""
    rows, longest = 0, 1
    for table in tables():
        rows += len(table)
        longest = max([longest, *(len(os.fsdecode(key)) for key in exact_paths(table))])
    metadata = json.dumps({k.decode(): v.decode() for k, v in wanted.metadata.items()})
    text = f"<U{longest}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with _member(archive, "path", (rows,), text) as file:
            for table in tables():
                names = [os.fsdecode(key) for key in exact_paths(table)]
                file.write(np.array(names, text).tobytes())
        for part, width in _parts(wanted).items():
            with _member(archive, part, (rows, width), "<f4") as file:
                for table in tables():
                    file.write(np.ascontiguousarray(read_part(table, part), "<f4").tobytes())
        with _member(archive, "metadata", (), f"<U{len(metadata)}") as file:
            file.write(np.array(metadata).tobytes())


def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], kind: str) -> IO[bytes]:
    """An array in the archive whose content is written piece by piece."""
    file = archive.open(f"{name}.npy", "w", force_zip64=True)
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    return file


def _lance(tables: Tables, target: Path, wanted: pa.Schema) -> None:
    """A table of LanceDB, in the folder ``target``."""
    database = _lancedb().connect(str(target.parent))
    # Lance has its own place for a schema's metadata; the vectors' types stay what they are.
    # Its names may have no spaces; the folder's may. One that a kill left behind is written over.
    digest = hashlib.blake2b(os.fsencode(target.name), digest_size=4).hexdigest()
    temporary = f".clever-hub-{digest}"
    reader = pa.RecordBatchReader.from_batches(
        wanted, (batch for table in tables() for batch in table.to_batches())
    )
    try:
        database.create_table(temporary, data=reader, mode="overwrite")
        shutil.rmtree(target, ignore_errors=True)
        (target.parent / f"{temporary}.lance").replace(target)
    finally:
        shutil.rmtree(target.parent / f"{temporary}.lance", ignore_errors=True)


def _lancedb() -> Any:
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "--output: a .lance table is written by LanceDB, which is not installed. "
            "Run: pip install lancedb, or name a .parquet file",
            name="lancedb",
        ) from error
    return lancedb


FORMATS: dict[str, Callable[[Tables, Path, pa.Schema], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".npz": _npz,
    ".jsonl": _jsonl,
    ".lance": _lance,
}


def _parts(wanted: pa.Schema) -> dict[str, int]:
    """The parts and their lengths."""
    return {name: wanted.field(name).type.list_size for name in PARTS if name in wanted.names}


def read_part(table: pa.Table, part: str) -> NDArray[np.float32]:
    """A column of vectors, float32 (N, d)."""
    import pyarrow.compute as pc

    width = table.schema.field(part).type.list_size
    flat = pc.list_flatten(table[part]).to_numpy()
    return np.asarray(flat, np.float32).reshape(-1, width)


def _words(rows: NDArray[np.float32]) -> Iterator[list[str]]:
    """Each row as the shortest numbers that read back the same."""
    import pyarrow.compute as pc

    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    words: list[Any] = pc.cast(flat, pa.string()).to_pylist()
    width = rows.shape[1]
    yield from (words[row * width : (row + 1) * width] for row in range(len(rows)))
