"""Verify candidates: one photo of each pair is aligned to the other, and pixels are compared."""

from __future__ import annotations

import math
import shutil
import struct
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import ImageError, MissingExtraError, require
from clever_hub.images.opening import ImageSource
from clever_hub.jobs.alignment import Alignment, align
from clever_hub.jobs.keypoints import Keypoints, keypoints
from clever_hub.jobs.pairs import Progress
from clever_hub.jobs.rows import Spool
from clever_hub.threads import available_cores, check_threads

CACHED = 4000  # photos whose keypoints are kept in memory: 330 MB
_SPOOLED = 20_000_000_000  # bytes at most of those that are kept on disk: of 250,000 photos
_FREE = 0.5  # of the disk at most, of what is free when the first is written
_HEAD = struct.Struct("<IIIIIxxx?")  # sizes and whether it is coloured; a multiple of 4 bytes
_CHUNK = 256  # pairs at once; between two chunks progress is told


_Key: TypeAlias = tuple[int, int]  # collection and row of a photo


class PixelVerifier:
    """Lays the photos of each candidate pair one onto the other.

    A photo is read once, and the keypoints of ``cached`` photos are kept in memory; those of others
    wait in a temporary file without a name, which goes with the verifier. It grows to 20 GB or half
    of the free disk (where the temporary folder lies in memory, so does the file: let TMPDIR name
    another). From then on a photo whose keypoints have been forgotten is read again; pairs
    are taken in the order of their rows so that this is rare.

    Attributes:
        name: ``"pixels"``.
        unreadable: What is wrong with each photo that could not be read, by row. Its pairs have
            no verdict.
        unreadable_others: The same of the second rows, where they are of another collection.
        progress: Called with the pairs that are done, and how many there are.

    Example:
        >>> verify = PixelVerifier(["a.jpg", "b.jpg"])  # doctest: +SKIP
        >>> verify(np.array([0]), np.array([1]))[0].words()  # doctest: +SKIP
        'mirrored'
    """

    name = "pixels"

    def __init__(
        self,
        images: Sequence[ImageSource],
        *,
        others: Sequence[ImageSource] | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
        cached: int = CACHED,
        read: Callable[[ImageSource], Keypoints] = keypoints,
        differences: bool = False,
    ) -> None:
        """Get ready; nothing is read yet.

        Args:
            images: Where the photo of each row is, as ``load_image`` takes it.
            others: Of the second rows, where they are of another collection.
            threads: How many photos are read at once; None chooses by the number of cores.
            progress: Called with the pairs that are done, and how many there are.
            cached: How many photos' keypoints are kept in memory, of 80 kB each.
            read: Finds the keypoints of a photo; the default looks at the whole of it.
            differences: Of different photos say, too, what was found, as ``align`` does. Who only
                asks for copies does not need it, and has the answer in half of the time.

        Raises:
            MissingExtraError: When OpenCV is not installed.
            ConfigError: When ``threads`` is no whole number, 1 or more.
        """
        require("cv2", "jobs")
        threads = check_threads(threads)
        self.unreadable: dict[int, ImageError] = {}
        self.unreadable_others: dict[int, ImageError] = {}
        self._sources = [images] if others is None else [images, others]
        self._threads = min(8, available_cores()) if threads is None else threads
        self.progress = progress
        self._cached, self._keypoints = cached, read
        self._compare = partial(_compare, differences=differences)
        self._known: OrderedDict[_Key, Keypoints | ImageError] = OrderedDict()
        self._spooled: _Spooled | None = None  # until there are too many for memory

    @property
    def counts(self) -> tuple[int, int]:
        """How many photos there are for the first rows, and for the second."""
        return len(self._sources[0]), len(self._sources[-1])

    def __call__(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> Sequence[Alignment | None]:
        """Compare pairs.

        Args:
            a: int64 (M,), rows of the first photos.
            b: int64 (M,), rows of the second.

        Returns:
            A verdict for each pair; None where a photo cannot be read.
        """
        verdicts: list[Alignment | None] = [None] * len(a)
        order = np.lexsort((np.maximum(a, b), np.minimum(a, b))).tolist()
        second = len(self._sources) - 1
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="clever-hub-verify")
        with one_thread(), pool:
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                keys = [((0, int(a[i])), (second, int(b[i]))) for i in chunk]
                self._read({key for pair in keys for key in pair}, pool)
                known = [(self._known[first], self._known[last]) for first, last in keys]
                for i, verdict in zip(chunk, pool.map(self._compare, known), strict=True):
                    verdicts[i] = verdict
                self._forget()
                if self.progress is not None:
                    self.progress(min(start + _CHUNK, len(order)), len(order))
        return verdicts

    def _read(self, keys: set[_Key], pool: ThreadPoolExecutor) -> None:
        for key in sorted(keys & self._known.keys()):
            self._known.move_to_end(key)
        new = sorted(keys - self._known.keys())
        for key, found in zip(new, pool.map(self._found, new), strict=True):
            self._known[key] = found
            if isinstance(found, ImageError):
                which, row = key
                (self.unreadable_others if which else self.unreadable)[row] = found

    def _forget(self) -> None:
        while len(self._known) > self._cached:
            key, found = self._known.popitem(last=False)
            if not isinstance(found, ImageError):
                self._spooled = self._spooled or _Spooled()
                self._spooled.add(key, found)

    def _found(self, key: _Key) -> Keypoints | ImageError:
        if self._spooled is not None and (before := self._spooled.get(key)) is not None:
            return before
        which, row = key
        if (wrong := (self.unreadable_others if which else self.unreadable).get(row)) is not None:
            return wrong
        source = self._sources[which][row]
        try:
            return self._keypoints(source)
        except ImageError as error:
            return error
        except MissingExtraError as error:  # of its format
            return ImageError(str(source), str(error))


class _Spooled:
    """Keypoints on disk, as long as there is room: photos are decoded much more slowly."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._places: dict[_Key, tuple[int, int]] = {}
        self._room: float | None = None  # bytes

    def add(self, key: _Key, found: Keypoints) -> None:
        """Keep them, if they are not there and there is room."""
        if key in self._places:
            return
        content = _packed(found)
        try:
            if self._room is None:
                free = shutil.disk_usage(tempfile.gettempdir()).free
                self._room = min(_SPOOLED, _FREE * free)
            if len(content) <= self._room:
                self._places[key] = self._spool.add(content)
                self._room -= len(content)
        except OSError:  # the disk is full, or there is no temporary folder
            self._room = 0

    def get(self, key: _Key) -> Keypoints | None:
        """What was kept; None where nothing was."""
        if key not in self._places:
            return None
        try:
            content = self._spool.read(self._places[key])
        except OSError:
            return None
        return _unpacked(content) if len(content) == self._places[key][1] else None


def _packed(found: Keypoints) -> bytes:
    arrays = found.points, found.gray, found.descriptors, found.colors
    sizes = *found.gray.shape, len(found.points), *found.colors.shape[:2]
    return b"".join([_HEAD.pack(*sizes, found.coloured), *(array.tobytes() for array in arrays)])


def _unpacked(content: bytes) -> Keypoints:
    height, width, count, rows, columns, coloured = _HEAD.unpack_from(content)
    shapes = (count, 2), (height, width), (count, 128), (rows, columns, 3)
    arrays, first = [], _HEAD.size
    values = bytearray(content)  # arrays of bytes could not be written to
    for shape, kind in zip(shapes, (np.float32, np.uint8, np.uint8, np.uint8), strict=True):
        array = np.frombuffer(values, kind, math.prod(shape), first).reshape(shape)
        arrays.append(array)
        first += array.nbytes
    points, gray, descriptors, colors = arrays
    return Keypoints(gray, points, descriptors, coloured, colors)


class _BlasThreads:
    """Limits BLAS to one thread while anyone is inside.

    Limits that overlap would restore each other's one thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits: Any = None

    def __enter__(self) -> None:
        limit = require("threadpoolctl", "jobs").threadpool_limits
        with self._lock:
            if not self._inside:
                self._limits = limit(1, user_api="blas")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.restore_original_limits()


_BLAS = _BlasThreads()


def one_thread() -> AbstractContextManager[None]:
    """BLAS computes with one thread while this is open, in the whole process.

    Pairs are compared side by side already. BLAS's own threads wait for each other by spinning: on
    a busy machine a pair took 300 ms instead of a millisecond. Several threads may be inside; the
    last one that leaves gives BLAS its threads back.

    Raises:
        MissingExtraError: When threadpoolctl is not installed, which the extra ``jobs`` has.
    """
    return _BLAS


def _compare(
    pair: tuple[Keypoints | ImageError, Keypoints | ImageError], *, differences: bool
) -> Alignment | None:
    a, b = pair
    if isinstance(a, ImageError) or isinstance(b, ImageError):
        return None
    return align(a, b, differences=differences)
