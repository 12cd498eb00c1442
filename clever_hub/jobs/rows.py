"""Photos in parquet tables, as the jobs take them: each by its name, its file's bytes at any time.

A table gives its rows in their order, and pairs of photos are read in any order. So the image files
of a table are copied once into a temporary file without a name, which goes with the process.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np

from clever_hub.errors import DataError
from clever_hub.images.finding import find_images
from clever_hub.images.opening import read_file
from clever_hub.scale.locating import table_of
from clever_hub.scale.tables import (
    Unreadable,
    count_rows,
    find_column,
    holds_images,
    parquet_files,
    read_rows,
)

Advance: TypeAlias = Callable[[int], None]


class RowState(NamedTuple):
    """What ``Path.stat`` says of a file, of a photo in a table.

    Attributes:
        st_size: Of the image file, in bytes.
        st_mtime: Time of the table's last change, in seconds since 1970.
        st_mtime_ns: The same in nanoseconds.
    """

    st_size: int
    st_mtime: float
    st_mtime_ns: int


class TableRow(os.PathLike[str]):
    """A photo in a table. Has what the jobs ask of a path, and can be read as an open file.

    Example:
        >>> rows = TablePhotos("photos.parquet").rows  # doctest: +SKIP
        >>> rows[17].name, len(rows[17].read())  # doctest: +SKIP
        ('photos.parquet#17', 21875)
    """

    __slots__ = ("_photos", "_row")

    def __init__(self, photos: TablePhotos, row: int) -> None:
        """A row of a table that was opened.

        Args:
            photos: The table.
            row: Its number.
        """
        self._photos, self._row = photos, row

    def __fspath__(self) -> str:
        """The table's path and the row, as ``embed`` names it: ``data/photos.parquet#17``."""
        return f"{self._photos.table}#{self._row}"

    __str__ = __fspath__

    def __repr__(self) -> str:
        """Such as ``TableRow('photos.parquet#17')``."""
        return f"{type(self).__name__}({os.fspath(self)!r})"

    @property
    def name(self) -> str:
        """The table's name and the row."""
        return f"{self._photos.table.name}#{self._row}"

    @property
    def stem(self) -> str:
        """The same: a row has no ending that names a format."""
        return self.name

    @property
    def suffix(self) -> str:
        """Empty."""
        return ""

    @property
    def key(self) -> str:
        """By what a cache knows it: the table's whole path, the row and the column."""
        return self._photos.key(self._row)

    def is_file(self) -> bool:
        """Whether the table has such a row."""
        return self._row < len(self._photos)

    def is_symlink(self) -> bool:
        """False."""
        return False

    def stat(self) -> RowState:
        """Size of the image file, and when the table was changed.

        Raises:
            OSError: When the table has no such row.
        """
        return self._photos.stat(self._row)

    def read(self) -> bytes:
        """The image file; no bytes where the cell is empty.

        Raises:
            OSError: When the table has no such row, or names a file that cannot be read.
        """
        return self._photos.read(self._row)

    def open(self, _mode: str = "rb") -> io.BytesIO:
        """The image file, open for reading."""
        return io.BytesIO(self.read())


Photo: TypeAlias = Path | TableRow


class Spool:
    """Files in one temporary file without a name, which goes when nobody holds it any more.

    Example:
        >>> spool = Spool()
        >>> place = spool.add(b"photo")
        >>> spool.read(place)
        b'photo'
    """

    def __init__(self) -> None:
        """Get ready; the file is made for the first that is added."""
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._size = 0

    def add(self, content: bytes) -> tuple[int, int]:
        """Keep a file; returns its place and its length in bytes.

        Raises:
            OSError: When there is no room, or no temporary file can be made.
        """
        with self._lock:
            if self._file is None:
                # Unbuffered: what a full disk refused would be written again by each read.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # open as long as the photos are
                weakref.finalize(self, self._file.close)
            place = self._size
            self._file.seek(place)
            rest = memoryview(content)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._size += len(content)
        return place, len(content)

    def read(self, place: tuple[int, int]) -> bytes:
        """A file by what ``add`` returned."""
        with self._lock:
            if self._file is None:
                return b""
            self._file.seek(place[0])
            return self._file.read(place[1])


class TablePhotos:
    """The photos of a parquet table.

    Attributes:
        table: Where it is.
        column: That which holds the images.
    """

    def __init__(
        self,
        table: str | Path,
        column: str | None = None,
        *,
        spool: Spool | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        """Copy the image files of a table into a temporary file.

        Args:
            table: The parquet file. Its cells are image files' bytes or their paths, or the Hub's
                structs of both.
            column: The column that holds the images; None looks for it.
            spool: Where the files are copied to, for several tables in one; None makes a new one.
            advance: Called with 1 for each row.

        Raises:
            DataError: When the table cannot be read, has no image column, or no temporary file can
                be written.
        """
        self.table = Path(table)
        self.column = find_column(str(table), column)
        changed = self.table.stat()
        self._changed = (changed.st_mtime, changed.st_mtime_ns)
        count = count_rows(str(table))
        self._places = np.zeros((count, 2), np.int64)
        self._named: dict[int, str] = {}
        try:
            self._spool = Spool() if spool is None else spool
            for row, content in enumerate(read_rows(str(table), column, range(count))):
                self._add(row, content)
                advance(1)
        except OSError as error:
            raise DataError(
                f"{table}: its photos cannot be copied to {tempfile.gettempdir()}: "
                f"{error.strerror or error}. Name a folder with more room: TMPDIR"
            ) from error

    def __len__(self) -> int:
        return len(self._places)

    @property
    def rows(self) -> list[TableRow]:
        """The photos, in the order of the table."""
        return [TableRow(self, row) for row in range(len(self))]

    def key(self, row: int) -> str:
        """By what a cache knows a photo: table, row, column, and the file that the cell names."""
        name = f"{self.table.absolute()}#{row}:{self.column}"
        return f"{name}:{self._named[row]}" if row in self._named else name

    def read(self, row: int) -> bytes:
        """The image file of a row; see ``TableRow.read``."""
        self._check(row)
        if row in self._named:
            try:
                return read_file(self._named[row])
            except ValueError as error:  # no regular file, or a name with a NUL
                raise OSError(str(error)) from error
        first, size = self._places[row].tolist()
        return self._spool.read((first, size))

    def stat(self, row: int) -> RowState:
        """The state of a row; see ``TableRow.stat``."""
        self._check(row)
        if row not in self._named:
            return RowState(int(self._places[row, 1]), *self._changed)
        try:
            found = Path(self._named[row]).stat()
        except ValueError as error:  # of a name with a NUL
            raise FileNotFoundError(str(error)) from error
        return RowState(found.st_size, found.st_mtime, found.st_mtime_ns)

    def _check(self, row: int) -> None:
        if row >= len(self):
            raise FileNotFoundError(f"no row {row}: the table has {len(self)}")

    def _add(self, row: int, content: bytes | str | Unreadable) -> None:
        if isinstance(content, str):
            self._named[row] = content
        elif isinstance(content, bytes):
            self._places[row] = self._spool.add(content)


def image_tables(path: Path, column: str | None = None) -> list[Path]:
    """The parquet tables with images that a path stands for.

    Args:
        path: A parquet file, or a folder; tables of embeddings in it are passed over.
        column: The column that holds the images; None looks for it.

    Returns:
        The tables, sorted; none where the path is something else, such as embeddings.

    Raises:
        DataError: When a table cannot be read.

    Example:
        >>> image_tables(Path("photos"))
        []
    """
    if path.is_dir():
        found = [Path(table) for table in parquet_files(path)]
    else:
        found = [path] if path.suffix.lower() == ".parquet" and path.is_file() else []
    return [table for table in found if holds_images(str(table), column)]


def has_images(folder: Path) -> bool:
    """Whether a folder has image files, as ``find_images`` finds them."""
    try:
        return next(find_images([folder]), None) is not None
    except DataError:  # there are none
        return False


def open_rows(
    paths: Sequence[Photo],
    open_table: Callable[[Path], TablePhotos],
    is_current: Callable[[int, Path], bool] = lambda _row, _table: True,
) -> list[Photo]:
    """The photos of paths of which some name rows of tables, as ``photos.parquet#17``.

    Args:
        paths: As a table of embeddings has them. Files stay, and rows of tables that are gone.
        open_table: Opens a table; called once for each.
        is_current: Whether the table that a path names is still the one that was embedded; it is
            given the place of the path. Paths into another table stay as they are, and lead
            nowhere.
    """
    tables: dict[Path, TablePhotos] = {}

    def photo(place: int, path: Photo) -> Photo:
        named = None if isinstance(path, TableRow) or path.is_file() else table_of(path)
        if named is None:
            return path
        table, row = named
        if not table.is_file() or not is_current(place, table):
            return path
        if table not in tables:
            tables[table] = open_table(table)
        return TableRow(tables[table], row)

    return [photo(place, path) for place, path in enumerate(paths)]
