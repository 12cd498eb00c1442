"""What is refused before a model is loaded: else it would be told when all photos are embedded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from clever_hub.errors import ConfigError, DataError

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin

PHOTOS = "images or folders of them"
# What `embed` writes, or another tool, beside parquet.
_TABLES = (".csv", ".npz", ".npy", ".json", ".jsonl", ".lance")
_PARQUET = (".parquet", ".pq")


def check_candidates(threshold: float | None, expected_false: float | None) -> None:
    """Refuse ``--threshold`` and ``--expected-false`` together, or out of range.

    Raises:
        ConfigError: Says which.
    """
    from clever_hub.jobs.candidates import check_options

    try:
        check_options(threshold, expected_false)
    except ConfigError as error:
        words = str(error).replace("expected_false", "--expected-false")
        raise ConfigError(words.replace("threshold", "--threshold")) from None


def check_photos(paths: Iterable[Path | str], *, embeddings: bool = False) -> None:
    """Refuse tables where photos are expected: they would be no images of a known format.

    Args:
        paths: What was given, such as images and folders.
        embeddings: Whether embeddings in parquet are taken as well.

    Raises:
        ConfigError: Says what is accepted.
    """
    refused = (*_TABLES, *(_PARQUET[1:] if embeddings else _PARQUET))
    for path in map(Path, paths):
        ending = path.suffix.lower()
        if ending not in refused or not path.exists():
            continue
        if not embeddings:
            raise ConfigError(f"{path}: expected {PHOTOS}, got a table ({ending}). Name the photos")
        raise ConfigError(
            f"{path}: expected {PHOTOS}, or embeddings in .parquet or in a folder of such files; "
            f"got {ending}. `clever-hub embed MODEL PHOTOS -o {path.stem}.parquet` writes them so"
        )


def check_image(path: Path | str) -> None:
    """Refuse what is no image file.

    Args:
        path: A file, or an address that begins with ``file:``.

    Raises:
        ConfigError: When it is a table.
        DataError: When it is not there.
    """
    check_photos([path])
    if not str(path).startswith("file:") and not Path(path).exists():
        raise DataError(f"{path}: no such file")


def check_part(model: JobsMixin, part: str) -> None:
    """Refuse a part that a model does not have.

    Raises:
        ConfigError: When its embedding has no such part.
    """
    if part != "full" and not getattr(model.config, f"{part}_dim"):
        raise ConfigError(f"--part: {model.config.name} has no {part} part. Take --part full")
