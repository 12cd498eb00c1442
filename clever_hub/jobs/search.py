"""An index of photos on disk, searched by content, by pose, or by both; LanceDB inside.

A folder with one LanceDB table, a row for each photo: path, size, time of change, and two vectors,
centred and of unit length, so that a dot product is the cosine of embeddings without their common
mean. ``invariant`` finds the same thing however it lies, ``equivariant`` what lies
like this.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings, Skipped
from clever_hub.errors import ConfigError, DataError, require
from clever_hub.files import whole_folder, write_json
from clever_hub.jobs.embedded import ModelKey, to_column
from clever_hub.jobs.nearest import padded, padded_width
from clever_hub.jobs.pairs import unit_rows
from clever_hub.jobs.relate import check_embeddings, check_raw
from clever_hub.jobs.store import embed_photos, photo_key, photo_name, photo_path

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin

PARTS = ("invariant", "equivariant")
ABOUT = "clever_hub.json"
FORMAT = 1
# From here on an approximate index pays; below, LanceDB reads all rows in some milliseconds.
APPROXIMATE_FROM = 20_000
DECODES = ("reduced", "exact")  # the first is the default
_TABLE, _LOCK = "photos", ".lock"
_CHUNK = 2048  # photos that an interruption loses at most
_MIN_CENTRED = 16  # photos; the mean of a few says more of them than of photos
_KEPT = timedelta(hours=1)  # earlier versions of the table, each as large; LanceDB keeps 7 days
_REFINE = 10  # the best 10 k are compared exactly: without, recall@10 is 0.2
_WIDEN = 50  # of a search by both parts: so many times k are taken by each


@dataclass(frozen=True)
class About:
    """What an index is of.

    Attributes:
        model: Name of the model.
        source: What the user asked for, to load it again.
        weights: Hash of its weights.
        invariant_dim: Entries of the invariant part.
        equivariant_dim: Entries of the equivariant part.
        decode: How JPEGs were decoded.
        mean: Of the whole embedding, taken from every vector.
        config: ``ModelConfig.fingerprint``: its split, its input and so on; empty where an older
            version made the index.
    """

    model: str
    source: str
    weights: str
    invariant_dim: int
    equivariant_dim: int
    decode: str
    mean: list[float]
    config: str = ""


@dataclass(frozen=True)
class Changes:
    """What an update did.

    Attributes:
        added: Photos that are new.
        changed: Photos that had changed and were embedded again.
        dropped: Photos that have gone from the disk, or cannot be read any more.
        kept: Photos that were there and had not changed.
        skipped: Photos that cannot be read.
    """

    added: int
    changed: int
    dropped: int
    kept: int
    skipped: list[Skipped]


@dataclass(frozen=True)
class Hit:
    """A photo that was found.

    Attributes:
        path: Where it is.
        score: Weighted mean of the cosines; the higher the nearer.
        invariant: Centred cosine of the invariant parts.
        equivariant: Centred cosine of the equivariant parts; 0 of a model that has none.
    """

    path: Path
    score: float
    invariant: float
    equivariant: float


class PhotoIndex:
    """An index of photos on disk.

    Attributes:
        folder: Where it is.
        about: What it is of.

    Example:
        >>> index = PhotoIndex.open("photos.lance")  # doctest: +SKIP
        >>> index.search(model.encode("query.jpg"), k=3)[0].path  # doctest: +SKIP
        PosixPath('photos/cat.jpg')
    """

    def __init__(self, folder: str | Path, about: About) -> None:
        lancedb = require("lancedb", "search")
        self.folder, self.about = Path(folder), about
        # Else one that is open for long would look for files that an update has cleared away.
        database = lancedb.connect(str(folder), read_consistency_interval=timedelta(0))
        self._table: Any = database.open_table(_TABLE)

    @classmethod
    def open(cls, folder: str | Path) -> PhotoIndex:
        """Open an index that is there.

        Raises:
            DataError: When there is none, or it is damaged or of another format.
            MissingExtraError: When LanceDB is not installed.
        """
        file = Path(folder) / ABOUT
        if not file.is_file():
            raise DataError(f"{folder}: no index of photos. Make one: clever-hub index PHOTOS -o …")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = content.pop("format")
            about = About(**content)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file}: damaged: {error}. Make the index again") from error
        if found != FORMAT:
            raise DataError(f"{folder}: format {found}, this version reads {FORMAT}: make it again")
        return cls(folder, about)

    @classmethod
    def open_or_create(
        cls,
        folder: str | Path,
        model: JobsMixin,
        paths: Sequence[str | Path],
        decode: str | None = None,
    ) -> PhotoIndex:
        """Open an index, or begin one of these photos.

        Args:
            folder: Where it is, or shall be.
            model: What embeds the photos; of an index that is there, the same one.
            paths: The photos; the mean of some of them is taken from all vectors, where the model
                does not bring that of its training.
            decode: ``"reduced"`` or ``"exact"``; None: as the index has it, a new one reduced.

        Raises:
            DataError: When the index is of another model, or the folder is something else.
            ConfigError: When ``decode`` is neither, or not that of the index.
        """
        folder = Path(folder)
        if decode not in (None, *DECODES):
            raise ConfigError(f"decode: expected one of {', '.join(DECODES)}, got {decode!r}")
        if cls.is_there(folder):
            index = cls.open(folder)
            index.check(model)
            if decode not in (None, index.about.decode):
                raise ConfigError(
                    f"decode: the photos of {folder} were decoded as by {index.about.decode!r}, "
                    f"got {decode!r}. Leave it out, or make another index"
                )
            index._found_again(model)
            return index
        lancedb = require("lancedb", "search")
        key = ModelKey.of(model)
        decode = decode or DECODES[0]
        about = About(
            model.config.name,
            _source(model),
            key.weights,
            model.config.invariant_dim,
            model.config.equivariant_dim,
            decode,
            _mean(model, [Path(path) for path in paths], decode),
            key.config,
        )
        with whole_folder(folder) as new:
            lancedb.connect(str(new)).create_table(_TABLE, schema=_schema(about))
            write_json(new / ABOUT, {"format": FORMAT, **asdict(about)})
        return cls(folder, about)

    def _found_again(self, model: JobsMixin) -> None:
        """Note where the model is now."""
        if (source := _source(model)) not in ("", self.about.source):
            self.about = replace(self.about, source=source)
            write_json(self.folder / ABOUT, {"format": FORMAT, **asdict(self.about)})

    @staticmethod
    def is_there(folder: str | Path) -> bool:
        """Whether an index is there, not a place for a new one.

        Raises:
            DataError: When something else is there.
        """
        folder = Path(folder)
        if (folder / ABOUT).is_file():
            return True
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: is not an index of photos. Choose another --output")
        return False

    def check(self, model: JobsMixin) -> None:
        """Refuse a model that did not make the index.

        Raises:
            DataError: When its weights are others, or its split or its input.
        """
        key = ModelKey.of(model)
        if key.weights != self.about.weights:
            raise DataError(
                f"{self.folder}: the index is of {self.about.model} (weights "
                f"{self.about.weights[:12]}…), not of {model.config.name} ({key.weights[:12]}…)"
            )
        if self.about.config not in ("", key.config):
            raise DataError(
                f"{self.folder}: the index is of {self.about.model} with another split or another "
                "input. Load the model as it was, or make the index again"
            )

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def __contains__(self, path: str | Path) -> bool:
        """Whether a photo is in it, by whatever path to its folder."""
        if self._table.count_rows(f"path = {_quoted(photo_name(Path(path)))}"):
            return True
        known = dict.fromkeys(self._named(Path(path).name))
        return not _spelt_as_known([path], known).keys().isdisjoint(known)

    def _named(self, name: str) -> list[str]:
        """The photos whose files have a name, in any folder."""
        exact = os.fsencode(name)
        ends = [exact.hex()]  # of a path that is no text
        with contextlib.suppress(UnicodeDecodeError):
            ends.append(exact.decode())
        wanted = " OR ".join(f"ends_with(path, {_quoted(end)})" for end in ends)
        query = self._table.search().where(wanted).select(["path"]).limit(len(self))
        found: list[str] = query.to_arrow()["path"].to_pylist()
        return found

    def update(
        self,
        model: JobsMixin,
        paths: Sequence[str | Path],
        advance: Callable[[int], None] = lambda _: None,
    ) -> Changes:
        """Add what is new, embed again what has changed, drop what has gone from the disk.

        Every two thousand photos are written at once: what was done before an interruption is
        there the next time.

        Args:
            model: What made the index.
            paths: All photos that shall be in it; others of its photos stay as long as their files
                are there.
            advance: Called with the number of photos that are done, piece by piece.

        Raises:
            DataError: When the index is of another model, or another process is updating it.
        """
        self.check(model)
        filelock = require("filelock", "search")
        try:
            with filelock.FileLock(self.folder / _LOCK, timeout=0):
                return self._update(model, paths, advance)
        except filelock.Timeout as error:
            raise DataError(
                f"{self.folder}: another process is updating this index. Call it again after that"
            ) from error

    def _update(
        self, model: JobsMixin, paths: Sequence[str | Path], advance: Callable[[int], None]
    ) -> Changes:
        rows = self._rows()
        known = dict(rows)
        # Earlier versions did not keep two processes from adding the same photo.
        repeated = [name for name, count in Counter(name for name, _ in rows).items() if count > 1]
        self._drop(repeated)
        for name in repeated:
            del known[name]
        wanted = _spelt_as_known(paths, known)
        gone = [path for path in known if path not in wanted and not photo_path(path).is_file()]
        self._drop(gone)
        todo, kept = [], 0
        for name, path in wanted.items():
            key = photo_key(path)
            same = key is not None and known.get(name) == (key.size, key.mtime_ns)
            kept += same
            if not same:
                todo.append(path)
        advance(kept)
        skipped: list[Skipped] = []
        written = 0
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            done, unread = self._write(model, chunk, advance)
            written += done
            skipped += unread
        bad = [photo_name(Path(one.source)) for one in skipped]
        lost = sum(name in known for name in bad)  # they could be read once
        changed = sum(photo_name(path) in known for path in todo) - lost
        self._drop(bad)
        self._approximate()
        return Changes(written - changed, changed, len(gone) + lost, kept, skipped)

    def check_weights(self, weights: Sequence[float]) -> None:
        """Refuse weights by which nothing can be found, before a query is embedded.

        Args:
            weights: Of the invariant and of the equivariant part.

        Raises:
            ConfigError: When one is below 0 or not finite, both are 0, or all the weight is on a
                part that the model does not have.
        """
        if not (len(weights) == 2 and min(weights) >= 0 and 0 < sum(weights) < math.inf):
            raise ConfigError(f"weights: expected two of at least 0, not both 0; got {weights}")
        if not any(w for w, part in zip(weights, PARTS, strict=True) if part in self._parts()):
            raise ConfigError("this model has no equivariant part: search by the invariant one")

    def search(
        self,
        query: Embeddings,
        *,
        weights: tuple[float, float] = (1.0, 0.0),
        k: int = 10,
        exact: bool = False,
    ) -> list[Hit]:
        """The nearest photos.

        Args:
            query: One row, raw, of the model that made the index.
            weights: Of the invariant and of the equivariant part: (1, 0) finds the same thing
                however it lies, (0, 1) what lies like this, (1, 1) both at once.
            k: How many.
            exact: Compare all, also where there is an approximate index.

        Returns:
            The nearest first. By both parts, the best of the fifty times k nearest by each.

        Raises:
            DataError: When the query is no embeddings, or normalised, or its parts are not as long
                as those of the index.
            ConfigError: When an option is out of range.
        """
        check_embeddings(query, "search", "index.search(model.encode(image))")
        if not hasattr(k, "__index__") or k < 1:
            raise ConfigError(f"k: expected 1 or more, got {k!r}")
        self.check_weights(weights)
        if len(query) != 1:
            raise ConfigError(f"expected the embedding of one image, got {len(query)}")
        check_raw(query)
        k = min(k, len(self))
        if not k:
            return []
        vectors = self._vectors(query)
        used = [
            (part, vector)
            for part, vector, weight in zip(PARTS, vectors, weights, strict=True)
            if weight > 0 and vector.shape[1]
        ]
        wide = k if len(used) == 1 else min(_WIDEN * k, len(self))
        rows = {}
        for part, vector in used:
            for row in self._nearest(part, vector[0], wide, exact):
                rows[row["path"]] = row
        hits = [self._hit(row, vectors, weights) for row in rows.values()]
        return sorted(hits, key=lambda hit: (-hit.score, str(hit.path)))[:k]

    def _nearest(
        self, part: str, vector: NDArray[np.float32], k: int, exact: bool
    ) -> list[dict[str, Any]]:
        query = self._table.search(padded(vector[None])[0], vector_column_name=part)
        query = query.distance_type("cosine").limit(k).refine_factor(_REFINE)
        if exact:
            query = query.bypass_vector_index()
        found: list[dict[str, Any]] = query.select(["path", *self._parts(), "_distance"]).to_list()
        return found

    def _hit(
        self,
        row: dict[str, Any],
        vectors: Sequence[NDArray[np.float32]],
        weights: tuple[float, float],
    ) -> Hit:
        cosines = [
            float(np.dot(row[part][: vector.shape[1]], vector[0])) if vector.shape[1] else 0.0
            for part, vector in zip(PARTS, vectors, strict=True)
        ]
        score = float(np.dot(cosines, weights)) / sum(weights)
        return Hit(photo_path(row["path"]), score, *cosines)

    def _vectors(self, embeddings: Embeddings) -> list[NDArray[np.float32]]:
        """Both parts, centred, of unit length."""
        widths = embeddings.invariant.shape[1], embeddings.equivariant.shape[1]
        expected = self.about.invariant_dim, self.about.equivariant_dim
        if widths != expected:
            raise DataError(
                f"{self.folder}: the index has parts of {expected[0]} and {expected[1]} entries, "
                f"the embedding of {widths[0]} and {widths[1]}: it is of another model"
            )
        mean = np.array(self.about.mean, np.float32)
        split = self.about.invariant_dim
        return [
            unit_rows(embeddings.invariant, mean[:split]),
            unit_rows(embeddings.equivariant, mean[split:]),
        ]

    def _write(
        self, model: JobsMixin, paths: Sequence[Path], advance: Callable[[int], None]
    ) -> tuple[int, list[Skipped]]:
        import pyarrow as pa

        decode: Any = self.about.decode
        # As they are now: a photo that is changed meanwhile is embedded again by the next update.
        keys = {path: photo_key(path) for path in paths}
        found = embed_photos(model, paths, cache=None, decode=decode, advance=advance, needed=False)
        if not len(found):
            return 0, list(found.embeddings.skipped)
        known = [keys[Path(path)] for path in found.paths]
        there = [i for i, key in enumerate(known) if key is not None]
        vectors = self._vectors(found.embeddings)
        columns: dict[str, Any] = {
            "path": [photo_name(found.paths[i]) for i in there],
            "size": [key.size for key in known if key is not None],
            "mtime_ns": [key.mtime_ns for key in known if key is not None],
            "sha256": [None] * len(there),
        }
        for part in self._parts():
            columns[part] = to_column(padded(vectors[PARTS.index(part)][there]))
        table = pa.table(columns, schema=_schema(self.about))
        merge = self._table.merge_insert("path")
        merge.when_matched_update_all().when_not_matched_insert_all().execute(table)
        return len(there), list(found.embeddings.skipped)

    def _rows(self) -> list[tuple[str, tuple[int, int]]]:
        """Name, size and time of change of every photo."""
        columns = ["path", "size", "mtime_ns"]
        table = self._table.search().select(columns).limit(len(self)).to_arrow()
        paths, sizes, times = (table[name].to_pylist() for name in columns)
        return list(zip(paths, zip(sizes, times, strict=True), strict=True))

    def _drop(self, paths: Sequence[str]) -> None:
        for names in _pieces(paths, 500):
            quoted = ", ".join(map(_quoted, names))
            self._table.delete(f"path IN ({quoted})")

    def _approximate(self) -> None:
        """Build the approximate indices where they pay; bring them and the table up to date."""
        if len(self) >= APPROXIMATE_FROM:
            from lancedb.index import IvfRq

            indexed = {column for index in self._table.list_indices() for column in index.columns}
            for part in self._parts():
                if part not in indexed:
                    self._table.create_index(part, config=IvfRq(distance_type="cosine"))
        self._table.optimize(cleanup_older_than=_KEPT)

    def _parts(self) -> list[str]:
        return [part for part in PARTS if getattr(self.about, f"{part}_dim")]


def _spelt_as_known(paths: Sequence[str | Path], known: Mapping[str, object]) -> dict[str, Path]:
    """Photos by their names; one that is indexed by another path to its folder keeps its name."""
    wanted = {photo_name(path): path for path in map(Path, paths)}
    if not known or all(name in known for name in wanted):
        return wanted
    folders: dict[Path, Path] = {}

    def place(path: Path) -> Path:
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        return folders[path.parent] / path.name

    names = {place(photo_path(name)): name for name in known}
    spelt: dict[str, Path] = {}
    for name, path in wanted.items():
        as_known = name if name in known else names.get(place(path), name)
        spelt.setdefault(as_known, path if as_known == name else photo_path(as_known))
    return spelt


def _schema(about: About) -> Any:
    import pyarrow as pa

    fields: list[pa.Field[Any]] = [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("sha256", pa.string()),  # empty; earlier versions of the package have it, too
    ]
    fields += [
        pa.field(part, pa.list_(pa.float32(), padded_width(width)))
        for part in PARTS
        if (width := getattr(about, f"{part}_dim"))
    ]
    return pa.schema(fields)


def _source(model: JobsMixin) -> str:
    """By what the model is found again, from any working directory."""
    source = model.source
    if source is None:
        return ""
    return str(source.path.absolute()) if source.kind == "folder" else source.name


def _mean(model: JobsMixin, paths: Sequence[Path], decode: Any) -> list[float]:
    if model.has_heads:
        heads = model.heads
        return [float(x) for x in np.concatenate([heads.invariant_mean, heads.equivariant_mean])]
    some = paths[:: max(1, len(paths) // _CHUNK)]
    if len(some) < _MIN_CENTRED:
        return [0.0] * (model.config.invariant_dim + model.config.equivariant_dim)
    found = embed_photos(model, some, cache=None, decode=decode)
    return [float(x) for x in found.embeddings.full.mean(axis=0, dtype=np.float64)]


def _quoted(text: str) -> str:
    """A text in LanceDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def _pieces(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
