"""Photos with their embeddings, as the jobs take them: from a file that ``embed`` wrote, or new."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings, Skipped
from clever_hub.errors import DataError, require
from clever_hub.jobs.rows import Photo

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin


@dataclass(frozen=True, eq=False)
class EmbeddedPhotos:
    """Photos and their embeddings.

    Attributes:
        paths: Where each row's photo is: a file, or a row of a table.
        embeddings: A row for each; ``skipped`` has those that could not be read.
        weights: Hash of the model's weights; empty where it is not known.
        kind: What else they must agree in to be compared: ``"raw"``, ``"normalized"``, or
            ``"averaged"`` over four looks at each photo.
        config: ``ModelConfig.fingerprint`` of the model: its split, its input and so on; empty
            where it is not known.
        stamps: ``file_stamp`` of each photo's file, or of its table, when it was embedded; empty
            where a file does not record it.

    Raises:
        DataError: When there are not as many paths as embeddings.
    """

    paths: Sequence[Photo]
    embeddings: Embeddings
    weights: str = ""
    kind: str = "raw"
    config: str = ""
    stamps: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.embeddings):
            raise DataError(
                f"expected as many paths as embeddings, {len(self.embeddings)}, got "
                f"{len(self.paths)}. Leave out the photos that were skipped: embeddings.kept(paths)"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def there(self) -> NDArray[np.bool_]:
        """Whether each photo is there, bool (N,)."""
        return np.array([path.is_file() for path in self.paths], bool)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Some of the photos, by their rows."""
        chosen = np.arange(len(self))[rows]
        paths = [self.paths[row] for row in chosen]
        stamps = [self.stamps[row] for row in chosen] if self.stamps else ()
        return replace(self, paths=paths, embeddings=self.embeddings[chosen], stamps=stamps)


class ModelKey(NamedTuple):
    """By what vectors are known to be of the same model; an empty entry is unknown.

    Attributes:
        weights: Hash of the weights.
        config: ``ModelConfig.fingerprint``: the split, the input and so on.
    """

    weights: str
    config: str

    @classmethod
    def of(cls, model: JobsMixin) -> Self:
        """The key of a loaded model, with the preparation of images that it has now."""
        weights = (model.source.weights_sha256 if model.source else None) or ""
        return cls(weights, model.config.fingerprint(model.preprocessor.config))

    def differs(self, other: ModelKey) -> bool:
        """Whether both know an entry that is not the same."""
        return any(a and b and a != b for a, b in zip(self, other, strict=True))


def read_embeddings(path: str | Path) -> EmbeddedPhotos:
    """Read what ``clever-hub embed`` wrote.

    Args:
        path: A parquet file, or a folder of them.

    Returns:
        The photos' paths, and their embeddings. Relative paths are as they were written, if they
        lead to photos from the working folder; else they begin at the folder that has the most of
        them: one from which ``embed`` was called, where that is recorded, or that of the file or
        one above it. ``embeddings.skipped`` has what could not be read, at position -1, if the path
        is a folder; a single file does not record it.

    Raises:
        DataError: When it cannot be read, has other columns, numbers that are not finite, or when
            its files are of several models.

    Example:
        >>> read_embeddings("photos.parquet").kind  # doctest: +SKIP
        'raw'
    """
    require("pyarrow.parquet", "jobs")
    from clever_hub.scale.locating import locate_photos

    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no parquet files in this folder")
    parts = [_read(file) for file in files]
    for part, file in zip(parts[1:], files[1:], strict=True):
        check_comparable(parts[0], part, str(files[0]), str(file))
    paths = [Path(photo) for part in parts for photo in part.paths]
    return EmbeddedPhotos(
        locate_photos(paths, (path if path.is_dir() else path.parent).resolve()),
        Embeddings(
            _joined([part.embeddings.invariant for part in parts]),
            _joined([part.embeddings.equivariant for part in parts]),
            _skipped(path) if path.is_dir() else (),
        ),
        parts[0].weights,
        parts[0].kind,
        parts[0].config,
        [stamp for part in parts for stamp in part.stamps] if all(p.stamps for p in parts) else (),
    )


def _skipped(folder: Path) -> tuple[Skipped, ...]:
    """What ``embed`` could not read, as a folder of shards has it."""
    from clever_hub.scale.shards import read_all_skipped
    from clever_hub.scale.storage import LocalStorage

    found = read_all_skipped(LocalStorage(folder))
    return tuple(Skipped(-1, name, reason) for name, reason in found)


def check_comparable(a: EmbeddedPhotos, b: EmbeddedPhotos, name_a: str, name_b: str) -> None:
    """Refuse to compare embeddings of different models, or prepared differently.

    Args:
        a: Photos.
        b: Others.
        name_a: What to call the first.
        name_b: What to call the second.

    Raises:
        DataError: When they are not comparable; says in what they differ.
    """
    known = a.weights and b.weights
    if known and a.weights != b.weights:
        raise DataError(
            f"{name_a} and {name_b} are of different models: their weights have the hashes "
            f"{a.weights[:12]}… and {b.weights[:12]}…. Embed both by the same model"
        )
    widths = [(e.invariant.shape[1], e.equivariant.shape[1]) for e in (a.embeddings, b.embeddings)]
    if widths[0] != widths[1]:
        raise DataError(
            f"{name_a} and {name_b} are of different models: their parts have {widths[0]} and "
            f"{widths[1]} entries. Embed both by the same model"
        )
    if a.config and b.config and a.config != b.config:
        raise DataError(
            f"{name_a} and {name_b} are of the same weights with another input. Embed both by the "
            "same model"
        )
    if a.kind != b.kind:
        raise DataError(
            f"{name_a}: {a.kind} embeddings; {name_b}: {b.kind} embeddings. Their cosines "
            "cannot be compared. Embed both in the same way"
        )


def _read(file: Path) -> EmbeddedPhotos:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _photos(file, pq.read_table(file))
    except FileNotFoundError as error:
        raise DataError(f"{file}: no such file") from error
    except (OSError, pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{file}: no parquet file that can be read: {error}") from error


def _photos(file: Path, table: Any) -> EmbeddedPhotos:
    if missing := {"path", "invariant"} - set(table.column_names):
        raise DataError(
            f"{file}: expected the columns path, invariant and equivariant of `clever-hub embed`, "
            f"without {', '.join(sorted(missing))} found {', '.join(table.column_names)}"
        )
    metadata = {
        key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
    }
    invariant = from_column(table["invariant"])
    equivariant = (
        from_column(table["equivariant"])
        if "equivariant" in table.column_names
        else np.empty((len(table), 0), np.float32)
    )
    _check_finite(file, invariant, equivariant)
    normalized = metadata.get("clever_hub.normalized") == "true"
    return EmbeddedPhotos(
        _paths(table),
        Embeddings(invariant, equivariant),
        metadata.get("clever_hub.weights_sha256", ""),
        "normalized" if normalized else "raw",
        metadata.get("clever_hub.config", ""),
        table["stamp"].to_pylist() if "stamp" in table.column_names else (),
    )


def _check_finite(file: Path, *parts: NDArray[np.float32]) -> None:
    """Refuse numbers of which no cosine can be computed; such are never written by ``embed``."""
    for rows in parts:
        bad = ~np.isfinite(rows.sum(axis=1))  # sums: a million rows have a gigabyte of numbers
        if bad.any():
            raise DataError(
                f"{file}: expected finite embeddings, got NaN or infinity in row "
                f"{int(np.flatnonzero(bad)[0])}. Embed the photos again"
            )


def _paths(table: Any) -> list[Path]:
    """The photos' paths, by their bytes where those are no text."""
    if "path_bytes" not in table.column_names:
        return [Path(str(text)) for text in table["path"].to_pylist()]
    from clever_hub.scale.tables import exact_paths

    return [Path(os.fsdecode(exact)) for exact in exact_paths(table)]


def to_column(rows: NDArray[np.float32]) -> Any:
    """Vectors as an Arrow column: lists of float32, of fixed length where that is 1 or more."""
    import pyarrow as pa

    if not rows.shape[1]:
        return pa.array([[]] * len(rows), pa.list_(pa.float32()))
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def from_column(column: Any) -> NDArray[np.float32]:
    """Vectors (N, d) of an Arrow column of lists, float32."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = pc.list_flatten(column).to_numpy()
    rows: NDArray[np.float32] = np.asarray(flat, np.float32)
    # A shard whose photos have all gone has no rows, but its vectors have a length.
    fixed = pa.types.is_fixed_size_list(column.type)
    width = column.type.list_size if fixed else len(rows) // max(1, len(column))
    return rows.reshape(len(column), width)


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
