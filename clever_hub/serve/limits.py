"""Admission: a bound on the images and bytes that are in the server at once.

A request is turned away at its first byte, when saying so is cheap. What was let in is answered:
the bound is what makes the longest wait short and the memory flat, however many ask.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from clever_hub.serve.errors import ApiError
from clever_hub.serve.settings import Settings

_MAX_RETRY_AFTER = 60


class Slot:
    """A request's share of the gate.

    Attributes:
        images: How many images it counts for.
        body_bytes: How many bytes it counts for.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.images = self.body_bytes = 0

    def grow(self, *, images: int = 0, body_bytes: int = 0) -> None:
        """Take more.

        Args:
            images: How many images more.
            body_bytes: How many bytes more.

        Raises:
            ApiError: 503, when there is no room; 413, when there never will be.
        """
        most = self._gate.max_bytes
        if self.body_bytes + body_bytes > most:
            raise ApiError(
                413,
                "request_too_large",
                f"expected at most {most:,} bytes of images in a request, got more. Send fewer",
            )
        self._gate.take(images, body_bytes)
        self.images += images
        self.body_bytes += body_bytes


class Gate:
    """Counts what is in the server. Belongs to the event loop's thread.

    Attributes:
        images: Images in the server.
        body_bytes: Bytes of bodies in the server.
        max_bytes: How many there may be.

    Example:
        >>> gate = Gate(Settings(max_queue=1, max_inputs=1))
        >>> with gate.admit():
        ...     gate.images
        1
        >>> gate.images
        0
    """

    def __init__(self, settings: Settings) -> None:
        self._max_images, self.max_bytes = settings.max_queue, settings.max_memory_bytes
        self.images = self.body_bytes = 0
        self._rate = 0.0  # images answered per second, a moving average
        self._last = time.monotonic()

    @contextmanager
    def admit(self) -> Iterator[Slot]:
        """Let a request in, or not.

        Yields:
            Its slot, which counts for one image until more is known. Given back at the end.

        Raises:
            ApiError: 503, when there is no room.
        """
        slot = Slot(self)
        slot.grow(images=1)
        try:
            yield slot
        finally:
            self.images -= slot.images
            self.body_bytes -= slot.body_bytes
            self._answered(slot.images)

    def take(self, images: int, body_bytes: int) -> None:
        """Count more in; ``Slot.grow`` is the door.

        Raises:
            ApiError: 503, when there is no room.
        """
        if self.images + images > self._max_images:
            raise self._full(f"{self.images} images are waiting, {self._max_images} may")
        if self.body_bytes + body_bytes > self.max_bytes:
            raise self._full(f"{self.body_bytes:,} bytes are waiting, {self.max_bytes:,} may")
        self.images += images
        self.body_bytes += body_bytes

    def _full(self, what: str) -> ApiError:
        seconds = self.images / self._rate if self._rate > 0 else 1.0
        retry_after = min(max(1, math.ceil(seconds)), _MAX_RETRY_AFTER)
        return ApiError(
            503,
            "overloaded",
            f"the server is full: {what}. Try again in {retry_after} s",
            retry_after=retry_after,
        )

    def _answered(self, images: int) -> None:
        now = time.monotonic()
        passed = max(now - self._last, 1e-6)
        self._last = now
        # Of the last two seconds or so, whatever the distance between two answers.
        weight = 1 - math.exp(-passed / 2)
        self._rate += weight * (images / passed - self._rate)
