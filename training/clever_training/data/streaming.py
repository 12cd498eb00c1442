"""Photos as a stream, read shard by shard: for data sets larger than the disk.

Each pass shuffles the shards and divides them among the processes. Each process shuffles its photos
inside windows that it reads ahead. Both depend only on the seed, the pass and the process. A
position records where its window begins in the shards; a resumed run reads that window again, so no
photo is lost or seen twice as long as the number of processes stays the same. The shuffle is
shallower than a full one: two photos can be in one batch only if they are in one window.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import datasets
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node

from clever_hub.errors import DataError
from clever_training.data.image_column import find_image_column
from clever_training.data.image_folder import training_files
from clever_training.data.photos import encoded, first_line, naming_photo, open_encoded
from clever_training.views.decode import EncodedPhoto

T = TypeVar("T")
_KINDS = {".parquet": "parquet", ".tar": "webdataset"}
_REMOTE = ("http://", "https://", "hf://", "s3://", "gs://")
# With fewer shards than this, the row groups of parquet files serve as shards.
_FEW = 8


class StreamedRow(int):
    """A photo's number in its pass; it carries the image file.

    Attributes:
        source: The bytes of the image file, or its path.
    """

    source: bytes | str


class Window(NamedTuple):
    """Photos of a pass that are shuffled together.

    Attributes:
        turn: Number of the pass.
        row: Photos of the pass that this process has read before the window.
        state: Where the window begins in the shards; None at the beginning of a pass.
        sources: The image files.
    """

    turn: int
    row: int
    state: dict[str, Any] | None
    sources: list[bytes | str]


class StreamedPhotos:
    """A data set that is read in order.

    Args:
        table: A streamed data set.
        column: Its image column; found by type when None.
        name: Names it in errors.
        count: Number of its photos.

    Raises:
        DataError: When it has no image column.
    """

    def __init__(
        self, table: datasets.IterableDataset, column: str | None, name: str, count: int
    ) -> None:
        self.name, self.count = name, count
        self.column = find_image_column(table.features, column, name, "--image-column COLUMN")
        table = table.select_columns(self.column)
        self.table = table.cast_column(self.column, datasets.Image(decode=False))

    def __len__(self) -> int:
        return self.count

    def open(self, index: int) -> EncodedPhoto:
        """One photo that is not decoded yet; ``index`` carries its file.

        Raises:
            ImageError: When it cannot be read; ``naming`` adds which photo it is.
        """
        assert isinstance(index, StreamedRow)
        return open_encoded(index.source)

    def naming(self, index: int) -> AbstractContextManager[None]:
        """Turn an error about a photo into a ``DataError`` that says which photo it is."""
        return naming_photo(lambda: self.place(index))

    def place(self, index: int) -> str:
        """Where a photo is: its number in the pass through the stream."""
        return f"{self.name}: photo {int(index)} of the stream"

    def windows(
        self, size: int, seed: int, rank: int, world: int, begin: Window
    ) -> Iterator[Window]:
        """This process's photos, window by window and pass after pass, without end.

        Args:
            size: Photos in a window.
            seed: Seed of the order of the shards.
            rank: Number of this process.
            world: Number of processes.
            begin: The first window; its ``sources`` are ignored.

        Raises:
            DataError: When there is nothing to read, or reading fails.
        """
        table = self.table
        if table.num_shards % world or table.num_shards < _FEW:
            table = table.reshard()
        turn, row, state = begin.turn, begin.row, begin.state
        while True:
            share = split_dataset_by_node(table, rank, world)
            share.set_epoch(1 + seed * 1_000_003 + turn)  # not 0, whose shards are in order
            if state is not None:
                share.load_state_dict(state)
            for sources, after in self._read(share, size):
                yield Window(turn, row, state, sources)
                row, state = row + len(sources), after
            if row == 0:
                raise DataError(f"{self.name}: holds no photos for process {rank} of {world}")
            turn, row, state = turn + 1, 0, None

    def _read(
        self, share: datasets.IterableDataset, size: int
    ) -> Iterator[tuple[list[bytes | str], dict[str, Any]]]:
        sources: list[bytes | str] = []
        try:
            for entry in share:
                sources.append(encoded(entry[self.column]))
                if len(sources) == size:
                    yield sources, deepcopy(share.state_dict())
                    sources = []
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name}: reading failed: {first_line(error)}") from error
        if sources:
            yield sources, deepcopy(share.state_dict())


def open_stream(source: str, column: str | None = None, count: int | None = None) -> StreamedPhotos:
    """Open photos as a stream.

    Args:
        source: A parquet file, a WebDataset shard (``.tar``), a folder of either, an address with
            ``{000..146}`` for numbered shards, or the id of a data set on the Hub, split ``train``.
        column: The image column.
        count: Photos in a pass; needed for WebDataset shards, which do not record it.

    Returns:
        The stream; only its head has been read.

    Raises:
        DataError: When nothing is there, it holds no images, or does not say how many.

    Example:
        >>> open_stream("https://host/train-{000..146}.tar", count=1281167)  # doctest: +SKIP
    """
    files = _files(source)
    datasets.disable_progress_bars()
    try:
        if files:
            kind = _KINDS[Path(files[0]).suffix]
            table = datasets.load_dataset(kind, data_files=files, split="train", streaming=True)
        else:
            table = datasets.load_dataset(source, split="train", streaming=True)
        count = count or _count(table, files)
    except (OSError, ValueError) as error:
        raise DataError(f"{source}: no images could be streamed: {first_line(error)}") from error
    if not count:
        raise DataError(
            f"{source}: expected files that record their number of photos, which the schedule "
            "needs; these do not. Set it: --set run.stream_photos=N, the number of your photos"
        )
    return StreamedPhotos(table, column, source, count)


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Fetch the next item in a thread while the current one is used.

    Args:
        items: The items; none of them is None.

    Example:
        >>> list(read_ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    with ThreadPoolExecutor(1, thread_name_prefix="clever-stream") as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


def _files(source: str) -> list[str]:
    """The shards that a source names; none for a Hub id."""
    path = Path(source)
    if source.startswith(_REMOTE):
        if Path(source).suffix not in _KINDS:
            raise DataError(f"{source}: expected an address that ends in .parquet or .tar")
        return _expand(source)
    if path.is_dir():
        for ending in _KINDS:
            if found := training_files(path, path.rglob(f"*{ending}")):
                return found
        raise DataError(
            f"{source}: expected parquet files or WebDataset shards (.tar) to stream. For a folder "
            "of images leave run.stream out"
        )
    if path.suffix in _KINDS:
        files = _expand(source)
        if missing := [file for file in files if not Path(file).is_file()]:
            raise DataError(f"{missing[0]}: no such file")
        return files
    if path.exists() or source.count("/") > 1 or source.startswith((".", "/")):
        raise DataError(f"{source}: expected parquet files, .tar shards, or a Hub data set id")
    return []


def _expand(source: str) -> list[str]:
    """``a-{008..010}.tar`` as a list of three names."""
    match = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", source)
    if match is None:
        return [source]
    head, low, high, tail = match.groups()
    return [f"{head}{number:0{len(low)}}{tail}" for number in range(int(low), int(high) + 1)]


def _count(table: datasets.IterableDataset, files: list[str]) -> int | None:
    if files and not files[0].startswith(_REMOTE) and files[0].endswith(".parquet"):
        return sum(pq.read_metadata(file).num_rows for file in files)
    splits = table.info.splits or {}
    return splits["train"].num_examples if "train" in splits else None
