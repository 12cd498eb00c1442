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
        cause = error.__cause__ or error
        if isinstance(cause, FileNotFoundError):
            return
        reason = str(cause) or type(cause).__name__
        raise DataError(f"{address}: cannot be read: {reason}") from error


def read(address: str) -> bytes:
    """The bytes at an address.

    Raises:
        OSError: When they cannot be read.
    """
    before, colons, _ = address.partition("::")
    if not colons:
        filesystem, path = open_filesystem(address)
    else:  # to fsspec a chain of file systems; here it is in a file's name
        folder = before.rpartition("/")[0] + "/"
        filesystem, path = open_filesystem(folder)
        path = f"{path.rstrip('/')}/{address.removeprefix(folder)}"
    content: bytes = filesystem.cat_file(path)
    return content
