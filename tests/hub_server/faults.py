"""What can be made to go wrong, and how often."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Something that happens to requests that match, a number of times.

    Attributes:
        method: Such as ``"GET"``.
        path: A regular expression, searched for in the request's path.
        times: How many requests it happens to.
        status: Answer with this status instead.
        headers: Sent with that status.
        cut_after: Send this many bytes of the body, then close the connection.
        length_error: Added to the Content-Length; the body fits it when it is negative.
        flip: Change a byte in the middle of the body.
        hold: Send half of the body, then nothing until this is set (or 20 seconds are over).
        meanwhile: Called before the request is answered as usual.
        lost: Do what was asked, then answer with status 500 all the same.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    length_error: int = 0
    flip: bool = False
    hold: threading.Event | None = None
    meanwhile: Callable[[], object] | None = None
    lost: bool = False


class Faults:
    """The faults that are set; threads may ask at the same time."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Set a fault."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._waiting.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that happens to this request, if any; it is used up by one."""
        with self._lock:
            for fault in self._waiting:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None
