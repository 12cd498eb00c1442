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
from typing import NamedTuple, TypeAlias

import numpy as np

from clever_hub.errors import DataError
from clever_hub.images.finding import find_images
from clever_hub.scale.locating import table_of
from clever_hub.scale.tables import (
    Unreadable,
    count_images,
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
        >>> rows = TablePhotos(Path("photos.parquet")).rows  # doctest: +SKIP
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

    def absolute(self) -> Path:
        """The name with the whole path of the table."""
        return Path(f"{self._photos.table.absolute()}#{self._row}")

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


class TablePhotos:
    """The photos of a parquet table.

    Attributes:
        table: Where it is.
    """

    def __init__(
        self, table: Path, column: str | None = None, *, advance: Advance = lambda _: None
    ) -> None:
        """Copy the image files of a table into a temporary file.

        Args:
            table: The parquet file. Its cells are image files' bytes or their paths, or the Hub's
                structs of both.
            column: The column that holds the images; None looks for it.
            advance: Called with 1 for each row.

        Raises:
            DataError: When the table cannot be read, has no image column, or no temporary file can
                be written.
        """
        self.table = table
        changed = table.stat() if table.exists() else None
        count = count_images(str(table), column)
        self._changed = (changed.st_mtime, changed.st_mtime_ns) if changed else (0.0, 0)
        self._ends = np.zeros(count + 1, np.int64)
        self._named: dict[int, str] = {}
        self._lock = threading.Lock()
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the photos are
            weakref.finalize(self, self._file.close)
            for row, content in enumerate(read_rows(str(table), column, range(count))):
                self._add(row, content)
                advance(1)
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"{table}: its photos cannot be copied to {tempfile.gettempdir()}: "
                f"{error.strerror or error}. Name a folder with more room: TMPDIR"
            ) from error

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def rows(self) -> list[TableRow]:
        """The photos, in the order of the table."""
        return [TableRow(self, row) for row in range(len(self))]

    def read(self, row: int) -> bytes:
        """The image file of a row; see ``TableRow.read``."""
        self._check(row)
        if row in self._named:
            return Path(self._named[row]).read_bytes()
        first, behind = (int(place) for place in self._ends[row : row + 2])
        with self._lock:
            self._file.seek(first)
            return self._file.read(behind - first)

    def stat(self, row: int) -> RowState:
        """The state of a row; see ``TableRow.stat``."""
        self._check(row)
        if row in self._named:
            found = Path(self._named[row]).stat()
            return RowState(found.st_size, found.st_mtime, found.st_mtime_ns)
        return RowState(int(self._ends[row + 1] - self._ends[row]), *self._changed)

    def _check(self, row: int) -> None:
        if row >= len(self):
            raise FileNotFoundError(f"no row {row}: the table has {len(self)}")

    def _add(self, row: int, content: bytes | str | Unreadable) -> None:
        written = content if isinstance(content, bytes) else b""
        if isinstance(content, str):
            self._named[row] = content
        self._file.write(written)
        self._ends[row + 1] = self._ends[row] + len(written)


def image_tables(path: Path, column: str | None = None) -> list[Path]:
    """The parquet tables with images that a path stands for.

    Args:
        path: A parquet file, or a folder of such files and no images.
        column: The column that holds the images; None looks for it.

    Returns:
        The tables, sorted; none where the path is something else, such as embeddings.

    Example:
        >>> image_tables(Path("photos"))
        []
    """
    if path.is_dir():
        found = [Path(table) for table in parquet_files(path)]
        found = [] if found and has_images(path) else found
    else:
        found = [path] if path.suffix.lower() == ".parquet" and path.is_file() else []
    return found if found and holds_images(str(found[0]), column) else []


def has_images(folder: Path) -> bool:
    """Whether a folder has image files, as ``find_images`` finds them."""
    try:
        return next(find_images([folder]), None) is not None
    except DataError:  # there are none
        return False


def open_rows(paths: Sequence[Photo], open_table: Callable[[Path], TablePhotos]) -> list[Photo]:
    """The photos of paths of which some name rows of tables, as ``photos.parquet#17``.

    Args:
        paths: As a table of embeddings has them. Files stay, and rows of tables that are gone.
        open_table: Opens a table; called once for each.
    """
    tables: dict[Path, TablePhotos | None] = {}

    def photo(path: Photo) -> Photo:
        named = None if isinstance(path, TableRow) or path.is_file() else table_of(path)
        if named is None:
            return path
        table, row = named
        if table not in tables:
            tables[table] = open_table(table) if table.is_file() else None
        opened = tables[table]
        return path if opened is None else TableRow(opened, row)

    return [photo(path) for path in paths]
