"""Images at addresses that fsspec opens, such as s3:// and gs://."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from clever_hub.errors import DataError, MissingExtraError, require
from clever_hub.images.decoding import EXTENSIONS

# What file systems call what changes when a file does.
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "created")


def open_filesystem(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Args:
        address: Such as ``s3://bucket/photos``.

    Raises:
        MissingExtraError: When fsspec, or its part for this scheme, is not installed.
        DataError: When no file system has this scheme.
    """
    fsspec = require("fsspec", "ray")
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(f"{address}: {error}") from error
    except ValueError as error:
        raise DataError(f"{address}: {error}") from error
    return filesystem, str(path)


def whole_address(address: str) -> str:
    """An address as ``list_images`` spells those that lie under it.

    Raises:
        MissingExtraError: As ``open_filesystem``.
        DataError: As ``open_filesystem``.
    """
    filesystem, path = open_filesystem(address)
    return str(filesystem.unstrip_protocol(path)).rstrip("/")


def list_images(address: str) -> Iterator[tuple[str, str]]:
    """Images under an address, or the one at it, sorted; with what tells their versions.

    Args:
        address: Of a file or a folder.

    Yields:
        Address and stamp of each image.

    Raises:
        DataError: When nothing is there, or no images.
    """
    filesystem, path = open_filesystem(address)
    try:
        found = filesystem.find(path, detail=True)
    except OSError as error:
        raise DataError(f"{address}: cannot be listed: {error}") from error
    images = [
        name
        for name in sorted(found)
        if name == path or PurePosixPath(name).suffix.lower() in EXTENSIONS
    ]
    if not images:
        _check_there(filesystem, path, address)
        raise DataError(f"{address}: no images under this address")
    for name in images:
        details = found[name]
        version = next((str(details[key]) for key in _VERSIONS if details.get(key)), "")
        yield filesystem.unstrip_protocol(name), f"{details.get('size')}:{version}"


def _check_there(filesystem: Any, path: str, address: str) -> None:
    """Tell an address that cannot be reached from one without images: both list nothing."""
    try:
        filesystem.info(path)
    except OSError as error:
        if is_missing(error):
            return
        cause = error.__cause__ or error
        reason = str(cause) or type(cause).__name__
        raise DataError(f"{address}: cannot be read: {reason}") from error


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is no such file, and not that it cannot be reached.

    Of one that they cannot reach some file systems say, too, that it is not there; then the cause
    tells: an error of the connection. Others give what the server answered as the cause.

    Args:
        error: What the file system raised.
    """
    cause = error.__cause__
    away = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return isinstance(error, FileNotFoundError) and not away


class RemoteImage:
    """An image at an address: fetched by who reads it, the thread that decodes it.

    Attributes:
        name: The address.

    Example:
        >>> RemoteImage("s3://bucket/photos/a.jpg").read()  # doctest: +SKIP
    """

    def __init__(self, address: str) -> None:
        """Open the file system, so that what is wrong with all images is known here.

        Raises:
            MissingExtraError: As ``open_filesystem``.
            DataError: As ``open_filesystem``.
        """
        self.name = address
        self._filesystem, self._path = _located(address)

    def read(self) -> bytes:
        """The bytes at the address; whatever the file system raises."""
        # One that is not asynchronous may be of one thread alone; fsspec has one for each thread.
        shared = self._filesystem.async_impl
        filesystem = self._filesystem if shared else _located(self.name)[0]
        content: bytes = filesystem.cat_file(self._path)
        return content


def _located(address: str) -> tuple[Any, str]:
    """As ``open_filesystem``, of a file of any name."""
    before, colons, _ = address.partition("::")
    if not colons:
        return open_filesystem(address)
    # To fsspec a chain of file systems; here it is in a file's name.
    folder = before.rpartition("/")[0] + "/"
    filesystem, path = open_filesystem(folder)
    return filesystem, f"{path.rstrip('/')}/{address.removeprefix(folder)}"
