"""Atomic writes: a reader sees the old file or the new one, never a partial file."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``target`` when the block succeeds.

    The temporary file lies next to the target, because a rename is atomic only within one file
    system. When the block raises, it is removed and the target stays as it was.

    Args:
        target: The file to write; its folder is created when missing.

    Yields:
        The path to write to.

    Raises:
        OSError: When the folder cannot be written to, or the target is not a regular file: the
            rename would replace a pipe or a device by a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder, "a.txt")) as path:
        ...         _ = path.write_text("whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_file():
        code = errno.EISDIR if target.is_dir() else errno.EINVAL
        raise OSError(code, "expected the name of a file to write", str(target))
    # Some writers choose the format by the suffix, so it is kept. The writer creates the file, so
    # that it gets the default permissions of a new file; safetensors' gives fewer.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        _flush(temporary)
        share(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def share(path: Path) -> None:
    """Give a file that only its owner may read the permissions of any new file.

    safetensors makes such files, whatever the umask is.

    Args:
        path: The file.
    """
    if path.stat().st_mode & 0o077:
        return
    # The umask can be read only by setting it, which other threads would notice. The name is that
    # of a temporary file, so that what a killed process leaves is recognised.
    name = path.name.lstrip(".").partition(".")[0]
    plain = path.with_name(f".{name}.{secrets.token_hex(4)}.tmp")
    with suppress(OSError):  # some file systems know no permissions
        plain.touch()
        try:
            path.chmod(stat.S_IMODE(plain.stat().st_mode))
        finally:
            plain.unlink()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill; it is whole when the block succeeds, and as it was when it raises.

    A new folder is filled beside its place and then renamed. An empty one that is there, maybe the
    working folder or a mounted one, is filled where it is.

    Args:
        folder: A folder that does not exist, or is empty.

    Yields:
        The folder to write to.

    Raises:
        OSError: When it cannot be written to.
    """
    if folder.exists():
        try:
            yield folder
        except BaseException:
            for path in folder.iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            raise
        return
    # A unique name: another process may be filling the same folder.
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: str | os.PathLike[str], text: str) -> Path:
    """Write a text file atomically, as UTF-8 with Unix line ends.

    Args:
        target: The file to be written.
        text: Its new content.

    Returns:
        The path written.
    """
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8", newline="\n")
    return Path(target)


def write_json(target: str | os.PathLike[str], content: Mapping[str, Any] | list[Any]) -> Path:
    """Write a JSON file atomically, indented, in the order given.

    Args:
        target: The file to be written.
        content: What to write. NaN and infinities are refused: other readers of JSON fail on them.

    Returns:
        The path written.

    Raises:
        ValueError: When a number is not finite.
    """
    return write_text(target, to_json(content))


def to_json(content: Mapping[str, Any] | list[Any]) -> str:
    """The text that ``write_json`` writes."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def cache_folder() -> Path:
    """Where this package keeps what it can make again.

    CLEVER_HUB_CACHE, or ``clever-hub`` in the user's cache folder (XDG_CACHE_HOME).
    """
    chosen = os.environ.get("CLEVER_HUB_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "clever-hub"


def folder_name(path: str | os.PathLike[str]) -> str:
    """The name that the caller gave a folder.

    Args:
        path: A folder. A symbolic link keeps its own name; ``.`` and ``..`` are worked out.

    Example:
        >>> folder_name("runs/other/.")
        'other'
    """
    absolute = Path(path).absolute()
    return absolute.resolve().name if absolute.name == ".." else absolute.name


def file_stamp(path: Path) -> str:
    """Size and time of the last change; empty where the file is not there or may not be read.

    Example:
        >>> file_stamp(Path("/nowhere"))
        ''
    """
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_size}:{found.st_mtime_ns}"


def _flush(path: Path) -> None:
    """Flush the content to disk before the rename, so that a crash leaves no empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
