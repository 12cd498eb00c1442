"""Dynamic batches: images of many requests go through the network together.

Images are decoded first, in threads, each for itself: one that cannot be read fails alone and never
meets the others (https://github.com/Lightning-AI/LitServe/issues/340 is what happens otherwise).
What was decoded waits in a queue; a thread takes from its head whatever is there when the network
is free. So batches are as large as the load makes them, and a lone image waits for nobody.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float32]
Prepare: TypeAlias = Callable[[], NDArray[np.float32]]


# Added to the nice value of threads that decode and compute.
_NICE = 5


def yield_to_others() -> None:
    """Let this thread, and those that it starts, run after others of the process, on Linux.

    Whoever reads requests needs little of a core, but at once: under a load above what can be
    computed, refusing is what keeps the queue short. No throughput is lost by the order.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):  # such as in a sandbox; it is no more than an order
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICE)


class Watcher(Protocol):
    """Is told what a batcher does; called from its threads."""

    def decoded(self, seconds: float) -> None:
        """An image was decoded, well or not."""

    def computed(self, images: int, seconds: float) -> None:
        """A batch went through the network."""


class _Waiting(NamedTuple):
    """A decoded image: float32 (3, H, W), when it came, and where its vector goes."""

    pixels: NDArray[np.float32]
    since: float
    future: Future[Vector]


class Batcher:
    """Gathers images into batches for one network.

    Args:
        compute: Maps float32 (N, 3, H, W) to float32 (N, d), row by row; called by one thread.
        pool: Decodes; several batchers may share it.
        max_batch: Most images of a batch.
        max_wait: Longest time that a decoded image waits for others that are being decoded, in
            seconds.
        wait_above: It waits only where more than so many are being decoded. With the number of the
            pool's threads it waits where images queue for them, and nowhere else: then batches are
            what counts, else the answer is.
        watcher: Is told what happens.

    Example:
        >>> pool = ThreadPoolExecutor(1)
        >>> batcher = Batcher(lambda pixels: pixels.mean(axis=(2, 3)), pool)
        >>> batcher.submit(lambda: np.ones((3, 4, 4), np.float32)).result()
        array([1., 1., 1.], dtype=float32)
        >>> batcher.close(); pool.shutdown()
    """

    def __init__(
        self,
        compute: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        pool: ThreadPoolExecutor,
        *,
        max_batch: int = 32,
        max_wait: float = 0.004,
        wait_above: int = 0,
        watcher: Watcher | None = None,
    ) -> None:
        self._compute, self._pool, self._watcher = compute, pool, watcher
        self._max_batch, self._max_wait, self._wait_above = max_batch, max_wait, wait_above
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._decoding = 0  # images that will be in the queue soon
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="clever-hub-batches", daemon=True)
        self._thread.start()

    def submit(self, prepare: Prepare) -> Future[Vector]:
        """Embed an image.

        Args:
            prepare: Reads the image: gives float32 (3, H, W), or raises. Runs in a thread.

        Returns:
            A future of the embedding, float32 (d,), or of what ``prepare`` or the network raised.
            When it is cancelled before its batch begins, no more work goes into it.

        Raises:
            RuntimeError: When the batcher is closed.
        """
        future: Future[Vector] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._decoding += 1
        try:
            self._pool.submit(self._decode, prepare, future)
        except RuntimeError:
            self._arrived(None)
            raise
        return future

    def close(self) -> None:
        """Compute what is waiting, then end; callers that submit later get a RuntimeError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _decode(self, prepare: Prepare, future: Future[Vector]) -> None:
        waiting = None
        try:
            if not future.cancelled():
                start = time.perf_counter()
                try:
                    waiting = _Waiting(prepare(), time.perf_counter(), future)
                finally:
                    if self._watcher:
                        self._watcher.decoded(time.perf_counter() - start)
        except BaseException as error:  # noqa: BLE001  # the future's owner raises it
            _fail(future, error)
        finally:
            self._arrived(waiting)

    def _arrived(self, waiting: _Waiting | None) -> None:
        with self._changed:
            self._decoding -= 1
            if waiting:
                self._queue.append(waiting)
            # The thread is woken when it would act: one wake-up for each image takes the
            # interpreter away from those who decode.
            length = len(self._queue)
            if length in (1, self._max_batch) or self._decoding <= self._wait_above:
                self._changed.notify_all()

    def _serve(self) -> None:
        yield_to_others()
        while batch := self._next():
            live = [image for image in batch if image.future.set_running_or_notify_cancel()]
            if live:
                self._run(live)

    def _next(self) -> list[_Waiting]:
        """The next batch; empty when the batcher is closed and nothing is left."""
        with self._changed:
            while not self._queue:
                if self._closed and not self._decoding:
                    return []
                self._changed.wait()
            until = self._queue[0].since + self._max_wait
            while self._decoding > self._wait_above and len(self._queue) < self._max_batch:
                left = until - time.perf_counter()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]

    def _run(self, batch: list[_Waiting]) -> None:
        start = time.perf_counter()
        try:
            vectors = self._compute(np.stack([image.pixels for image in batch]))
            if len(vectors) != len(batch):
                raise RuntimeError(f"expected {len(batch)} embeddings, got {len(vectors)}")
        except BaseException as error:  # noqa: BLE001  # each future's owner raises it
            for image in batch:
                image.future.set_exception(error)
            return
        finally:
            if self._watcher:
                self._watcher.computed(len(batch), time.perf_counter() - start)
        for image, vector in zip(batch, vectors, strict=True):
            image.future.set_result(vector)


def _fail(future: Future[Vector], error: BaseException) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
