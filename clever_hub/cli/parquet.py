"""Write embeddings to a parquet file, batch by batch."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import clever_hub
from clever_hub.config import ModelConfig
from clever_hub.embeddings import EncodedBatch
from clever_hub.errors import CleverError
from clever_hub.files import atomic_path
from clever_hub.hub.source import Source

ROWS_PER_GROUP = 4096


class EmbeddingsWriter:
    """Writes batches to a parquet file, which appears only when it is complete.

    Columns: ``path`` (string), ``invariant`` and ``equivariant`` (lists of float32 of a fixed
    length). The schema's metadata has ``clever_hub.model``, ``clever_hub.source`` (such as
    ``hub:user/name``), ``clever_hub.revision`` (the commit, for a model from the Hub),
    ``clever_hub.weights_sha256``, ``clever_hub.version`` and ``clever_hub.normalized``.

    Attributes:
        rows: How many rows were written.

    Example:
        >>> with EmbeddingsWriter("e.parquet", model.config, model.source) as w:  # doctest: +SKIP
        ...     for batch in model.encode_batches(paths):
        ...         w.write(batch)
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        config: ModelConfig,
        source: Source | None,
        normalized: bool = False,
    ) -> None:
        self.target = Path(target)
        self.rows = 0
        self._waiting: list[pa.RecordBatch] = []
        self._schema = _schema(config, source, normalized)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            path = self._stack.enter_context(atomic_path(self.target))
            self._writer = self._stack.enter_context(pq.ParquetWriter(path, self._schema))
            self._stack.push(self._finish)
        except BaseException as error:
            # With the error: otherwise the stack would move the empty file to the target.
            self._stack.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, OSError):
                raise self._cannot_write(error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
        except OSError as problem:
            raise self._cannot_write(problem) from problem

    def write(self, batch: EncodedBatch) -> None:
        """Add a batch's rows.

        Raises:
            CleverError: When the disk is full, or the file cannot be written.
        """
        embeddings = batch.embeddings
        columns = [
            pa.array([_utf8(source) for source in batch.sources], pa.string()),
            *(_vectors(getattr(embeddings, part)) for part in self._schema.names[1:]),
        ]
        self._waiting.append(pa.record_batch(columns, schema=self._schema))
        self.rows += len(batch.sources)
        if sum(len(waiting) for waiting in self._waiting) >= ROWS_PER_GROUP:
            self._flush()

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()

    def _flush(self) -> None:
        """Write the waiting batches as one row group: a group per batch would be slow to read."""
        try:
            if self._waiting:
                self._writer.write_table(pa.Table.from_batches(self._waiting))
        except OSError as error:
            raise self._cannot_write(error) from error
        self._waiting = []

    def _cannot_write(self, error: OSError) -> CleverError:
        return CleverError(f"{self.target}: cannot be written: {error.strerror or error}")


def _schema(config: ModelConfig, source: Source | None, normalized: bool) -> pa.Schema:
    metadata: dict[str | bytes, str | bytes] = {
        "clever_hub.model": config.name,
        "clever_hub.source": _utf8(f"{source.kind}:{source.name}") if source else "",
        "clever_hub.revision": (source.revision if source else None) or "",
        "clever_hub.weights_sha256": (source.weights_sha256 if source else None) or "",
        "clever_hub.version": clever_hub.__version__,
        "clever_hub.normalized": str(normalized).lower(),
    }
    fields = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("invariant", pa.list_(pa.float32(), config.invariant_dim)),
    ]
    if config.equivariant_dim:  # Arrow's lists of fixed length have at least 1 element
        fields.append(pa.field("equivariant", pa.list_(pa.float32(), config.equivariant_dim)))
    return pa.schema(fields, metadata=metadata)


def _vectors(rows: NDArray[np.float32]) -> pa.Array[Any]:
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _utf8(path: str) -> str:
    """A path as valid UTF-8: file names on Linux are bytes and may not be."""
    return os.fsencode(path).decode("utf-8", "replace")
