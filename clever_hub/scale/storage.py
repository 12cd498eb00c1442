"""Where shards lie: a folder on this machine, or one that fsspec opens."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from clever_hub.errors import CleverError
from clever_hub.files import atomic_path

FOLDER = "_clever_hub"  # of what is no shard: readers of parquet folders pass over an underscore


_THREADS = 16  # most of their time is spent waiting


class Storage(Protocol):
    """Files by name; a file is there whole or not at all.

    Attributes:
        root: The folder or address.
        threads: How many threads may use it at once.
    """

    root: str
    threads: int

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""

    def open(self, name: str) -> Any:
        """A file open for reading, to be closed by the caller; None when it is not there."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it.

        Raises:
            CleverError: When the disk is full or may not be written to.
        """

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    def names(self, folder: str = "") -> list[str]:
        """What lies in it, or in a folder of it, sorted; nothing when it does not exist."""


class LocalStorage:
    """A folder on this machine.

    Example:
        >>> LocalStorage("/nowhere").names()
        []
    """

    threads = _THREADS

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        self._path = Path(root)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""
        try:
            return (self._path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, name: str) -> Any:
        """A file open for reading; None when it is not there."""
        try:
            return (self._path / name).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it, atomically."""
        target = self._path / name
        try:
            with atomic_path(target) as path:
                path.write_bytes(content)
        except OSError as error:
            raise cannot_write(target, error) from error

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        (self._path / name).unlink(missing_ok=True)

    def names(self, folder: str = "") -> list[str]:
        """What lies in the folder."""
        path = self._path / folder
        return sorted(os.listdir(path)) if path.is_dir() else []  # noqa: PTH208


class RemoteStorage:
    """A folder at an address; its file system gives objects whole or not at all, as S3 does."""

    def __init__(self, root: str) -> None:
        from clever_hub.scale.remote import open_filesystem

        self.root = root
        self._filesystem, path = open_filesystem(root)
        self._path = path.rstrip("/")
        # One that is not asynchronous, such as ftp's, may have one connection for all.
        self.threads = _THREADS if self._filesystem.async_impl else 1

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""
        try:
            with _reading(f"{self.root}/{name}"):
                content: bytes = self._filesystem.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        return content

    def open(self, name: str) -> Any:
        """A file open for reading, of which only what is read is fetched; None when not there."""
        address = f"{self.root}/{name}"
        self._filesystem.invalidate_cache()  # other machines write here, too
        try:
            with _reading(address):
                return _RemoteFile(self._filesystem.open(f"{self._path}/{name}", "rb"), address)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""
        target = f"{self._path}/{name}"
        try:
            self._filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._filesystem.pipe_file(target, content)
        except OSError as error:
            raise cannot_write(f"{self.root}/{name}", error) from error

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        target = f"{self._path}/{name}"
        if self._filesystem.exists(target):
            self._filesystem.rm_file(target)

    def names(self, folder: str = "") -> list[str]:
        """What lies in the folder."""
        self._filesystem.invalidate_cache()
        try:
            found = self._filesystem.ls(f"{self._path}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)


class _RemoteFile(io.RawIOBase):
    """A file at an address; that it cannot be read is told from that it is damaged."""

    def __init__(self, file: Any, address: str) -> None:
        self._file, self._address = file, address

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def read(self, size: int = -1) -> bytes:
        try:
            with _reading(self._address):
                content: bytes = self._file.read(size)
        except FileNotFoundError as error:  # removed since it was opened
            raise _cannot_read(self._address, error) from error
        return content

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _reading(address: str) -> Iterator[None]:
    """Errors but that there is no such file name the address.

    A shard that is taken for missing would be computed again.
    """
    from clever_hub.scale.remote import is_missing

    try:
        yield
    except Exception as error:  # of s3fs, gcsfs, aiohttp: they share no base
        if is_missing(error):
            raise
        raise _cannot_read(address, error) from error


def _cannot_read(address: str, error: Exception) -> CleverError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return CleverError(
        f"{address}: cannot be read: {reason}. When that is repaired, the same command goes on "
        "where it was"
    )


def open_storage(root: str) -> Storage:
    """The storage at a path or an address.

    Args:
        root: A folder, or an address such as ``s3://bucket/vectors``.
    """
    return RemoteStorage(root) if "://" in root else LocalStorage(root)


def cannot_write(target: object, error: OSError) -> CleverError:
    """The error for a file that cannot be written.

    Args:
        target: The file.
        error: What the system says.
    """
    return CleverError(
        f"{target}: cannot be written: {error.strerror or error}. When that is repaired, the same "
        "command goes on where it was"
    )
