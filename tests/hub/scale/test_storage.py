"""Shards at addresses: what is needed is fetched; what cannot be reached is not missing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from clever_hub.errors import CleverError
from clever_hub.scale.shards import _metadata, shard_name
from clever_hub.scale.storage import RemoteStorage

ROOT = "memory://storage/vectors"


@pytest.fixture
def storage() -> RemoteStorage:
    """A folder with a shard of 4 MB."""
    vectors = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    content = io.BytesIO()
    table = pa.table({"x": vectors}).replace_schema_metadata({"made": "here"})
    pq.write_table(table, content, use_dictionary=False)
    found = RemoteStorage(ROOT)
    found.write(shard_name(0), content.getvalue())
    return found


def test_of_a_shard_that_is_checked_only_the_footer_is_fetched(
    storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            content = super().read(size)
            fetched.append(len(content))
            return content

    def opened(filesystem: Any, path: str, *_: Any, **__: Any) -> Any:
        return Counted(filesystem.cat_file(path))

    monkeypatch.setattr(MemoryFileSystem, "_open", opened)
    assert _metadata(storage, 0) == (1_000_000, {"made": "here"})
    assert 0 < sum(fetched) < 100_000


def test_a_shard_that_is_read_is_whole(storage: RemoteStorage) -> None:
    with storage.open(shard_name(0)) as file:
        assert pq.read_table(file).num_rows == 1_000_000
    with storage.open(shard_name(0)) as file:
        assert file.read() == storage.read(shard_name(0))
    assert file.closed


def test_what_is_not_there_is_missing(storage: RemoteStorage) -> None:
    assert storage.open(shard_name(1)) is None
    assert storage.read(shard_name(1)) is None
    assert _metadata(storage, 1) is None
    storage.write(shard_name(2), b"no parquet file")
    assert _metadata(storage, 2) is None


def test_what_cannot_be_reached_is_not_missing(
    storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be computed again."""

    def refused(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    def hidden(*_: Any, **__: Any) -> Any:  # as fsspec does for http://
        raise FileNotFoundError("part") from ConnectionRefusedError(111, "Connection refused")

    class Answer(Exception):  # noqa: N818  # of botocore, which s3fs has as the cause
        pass

    def answered(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("part") from Answer("404")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "cat_file", answered)
        assert storage.read(shard_name(0)) is None
    said = r"storage/vectors/part-00000\.parquet: cannot be read: "
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFile, "read", refused, raising=False)
        with pytest.raises(CleverError, match=f"{said}Connection refused"):
            _metadata(storage, 0)
    for failing in (refused, hidden):
        for name in ("_open", "cat_file"):
            monkeypatch.setattr(MemoryFileSystem, name, failing)
        with pytest.raises(CleverError, match=said):
            storage.open(shard_name(0))
        with pytest.raises(CleverError, match=said):
            storage.read(shard_name(0))


def test_what_others_write_is_seen(storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object stores remember what they listed, and would not ask again."""
    forgotten: list[bool] = []
    monkeypatch.setattr(
        MemoryFileSystem, "invalidate_cache", lambda *_: forgotten.append(True), raising=False
    )
    assert storage.open(shard_name(0)) is not None
    assert forgotten
