"""Verify candidates: one photo of each pair is aligned to the other, and pixels are compared."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import ImageError, MissingExtraError, require
from clever_hub.images.opening import ImageSource
from clever_hub.jobs.alignment import Alignment, align
from clever_hub.jobs.keypoints import Keypoints, keypoints
from clever_hub.jobs.pairs import Progress
from clever_hub.threads import available_cores

CACHED = 4000  # photos whose keypoints are kept: 330 MB
_CHUNK = 256  # pairs at once; between two chunks progress is told


class PixelVerifier:
    """Lays the photos of each candidate pair one onto the other.

    A photo is read once as long as its pairs lie near each other; pairs are taken in the order of
    their rows for that. Memory is bounded by ``cached``.

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
    ) -> None:
        """Get ready; nothing is read yet.

        Args:
            images: Where the photo of each row is, as ``load_image`` takes it.
            others: Of the second rows, where they are of another collection.
            threads: How many photos are read at once; None chooses by the number of cores.
            progress: Called with the pairs that are done, and how many there are.
            cached: How many photos' keypoints are kept, of 80 kB each.
            read: Finds the keypoints of a photo; the default looks at the whole of it.

        Raises:
            MissingExtraError: When OpenCV is not installed.
        """
        require("cv2", "jobs")
        self.unreadable: dict[int, ImageError] = {}
        self.unreadable_others: dict[int, ImageError] = {}
        self._sources = [images] if others is None else [images, others]
        self._threads = min(8, available_cores()) if threads is None else threads
        self.progress = progress
        self._cached, self._keypoints = cached, read
        self._known: OrderedDict[tuple[int, int], Keypoints | ImageError] = OrderedDict()

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
                for i, verdict in zip(chunk, pool.map(_compare, known), strict=True):
                    verdicts[i] = verdict
                self._forget()
                if self.progress is not None:
                    self.progress(min(start + _CHUNK, len(order)), len(order))
        return verdicts

    def _read(self, keys: set[tuple[int, int]], pool: ThreadPoolExecutor) -> None:
        for key in sorted(keys & self._known.keys()):
            self._known.move_to_end(key)
        new = sorted(keys - self._known.keys())
        sources = [self._sources[which][row] for which, row in new]
        for key, found in zip(new, pool.map(self._found, sources), strict=True):
            self._known[key] = found
            if isinstance(found, ImageError):
                which, row = key
                (self.unreadable_others if which else self.unreadable)[row] = found

    def _forget(self) -> None:
        while len(self._known) > self._cached:
            self._known.popitem(last=False)

    def _found(self, source: ImageSource) -> Keypoints | ImageError:
        try:
            return self._keypoints(source)
        except ImageError as error:
            return error
        except MissingExtraError as error:  # of its format
            return ImageError(str(source), str(error))


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


def _compare(pair: tuple[Keypoints | ImageError, Keypoints | ImageError]) -> Alignment | None:
    a, b = pair
    if isinstance(a, ImageError) or isinstance(b, ImageError):
        return None
    return align(a, b)
