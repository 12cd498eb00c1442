"""Where the rows go: a folder of shards, or a file that is joined from shards beside it."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clever_hub.config import ModelConfig
from clever_hub.errors import ConfigError, DataError
from clever_hub.scale.formats import FORMATS, check_ending, join
from clever_hub.scale.settings import Made
from clever_hub.scale.storage import FOLDER, Storage, cannot_write, open_storage


@dataclass(frozen=True)
class Target:
    """Where the rows go.

    Attributes:
        storage: The folder of shards.
        file: The file that is joined from them; None where the folder is the result.
    """

    storage: Storage
    file: Path | None

    @classmethod
    def of(cls, output: str, update: bool = False) -> Target:
        """The target that an output names.

        Args:
            output: A folder, an address, or a file with an ending of ``formats.FORMATS``.
            update: Whether a folder is to be updated.

        Raises:
            DataError: When it is neither, or a folder with other content.
            ConfigError: When a file is to be updated.
            CleverError: When it cannot be written.
        """
        if output in ("", "-"):
            raise DataError(
                f"--output: expected a folder or a file, got {output!r}. Vectors are not printed"
            )
        if "://" in output:
            return cls(open_storage(output), None)
        path = Path(output)
        if path.suffix.lower() != ".lance" and (
            path.is_dir() or output.endswith("/") or not path.suffix
        ):
            _check_folder(path)
            return cls(open_storage(output), None)
        if update:
            raise ConfigError(
                f"--update: needs a folder of shards, got the file {output}. Name a folder"
            )
        _check_file(path)
        return cls(open_storage(str(path.with_name(f".{path.name}.parts"))), path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from writing here; when nothing was finished, leave nothing behind."""
        if "://" in self.storage.root:
            yield
            return
        root = Path(self.storage.root)
        fresh = not root.exists()
        try:
            (root / FOLDER).mkdir(parents=True, exist_ok=True)
            lock = (root / FOLDER / "lock").open("w")
        except OSError as error:
            raise cannot_write(self.file or root, error) from error
        with lock:
            if _lock(lock, root):  # where another process holds it, all is that one's
                self._sweep(root)
            try:
                yield
            except BaseException:
                if not any(name.startswith("part-") for name in self.storage.names()):
                    shutil.rmtree(root / FOLDER, ignore_errors=True)
                    with suppress(OSError):
                        if fresh:
                            root.rmdir()
                raise

    def _sweep(self, root: Path) -> None:
        """Remove what was half written by a process that was killed."""
        left = [*root.glob(".part-*.tmp.parquet"), *(root / FOLDER).rglob(".*.tmp*")]
        if self.file is not None:
            stem, ending = (glob.escape(part) for part in (self.file.stem, self.file.suffix))
            name = f".{stem}.{8 * '[0-9a-f]'}.tmp{ending}"  # as atomic_path names it
            left += self.file.parent.glob(name)
        for path in left:
            with suppress(OSError):
                path.unlink()

    def clear(self) -> None:
        """Remove the shards."""
        for name in self.storage.names():
            if name.startswith("part-"):
                self.storage.remove(name)

    def finish(self, shards: int, config: ModelConfig, made: Made) -> None:
        """Join the shards into the file, if it is one, and remove them.

        Args:
            shards: How many there are.
            config: The model's.
            made: By what the vectors were made.
        """
        if self.file is not None:
            join(self.storage, range(shards), self.file, config, made)
            shutil.rmtree(self.storage.root, ignore_errors=True)


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise DataError(f"--output: expected a folder, got the file {path}")
    names = set(os.listdir(path)) if path.is_dir() else set()  # noqa: PTH208
    if names - {FOLDER} and FOLDER not in names:
        raise DataError(
            f"--output: expected a new folder, or one that embed made; got the folder {path} with "
            f"{len(names)} other files. Name a new one, or a file that ends in {', '.join(FORMATS)}"
        )


def _check_file(path: Path) -> None:
    """Now, and not when all is computed."""
    check_ending(path)
    is_lance = path.suffix.lower() == ".lance"
    if path.exists() and not (path.is_dir() if is_lance else path.is_file()):
        raise DataError(f"--output: {path}: expected the name of a file to write")
    if is_lance and path.is_dir() and not _is_table(path):
        raise DataError(
            f"--output: {path}: expected a new name, or a table of LanceDB, which is written anew; "
            "got a folder with other content, such as an index of clever-hub index. Name another"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _is_table(folder: Path) -> bool:
    return not any(folder.iterdir()) or (folder / "_versions").is_dir()


def _lock(lock: IO[str], root: Path) -> bool:
    """Hold a file's lock until it is closed, if there are locks; a killed process leaves none."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"{root}: another process is embedding into it. Wait for it, or name another output"
        ) from error
    return True
