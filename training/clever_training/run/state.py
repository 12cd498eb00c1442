"""The progress of a run: the counters beside the tensors in its state file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class RunState:
    """The progress of a run; a new run begins with the defaults.

    Attributes:
        step: Steps done.
        seconds: Seconds spent on them, over all starts of the run.
        start: Where the backbone's first weights came from, as ``start_backbone`` says it; None
            in states of runs that did not record it.
        stream: Position of each process in a stream; None where photos are picked by number.

    Example:
        >>> RunState.from_json({"step": 3, "seconds": 1.5, "start": {"init": "timm"}}).step
        3
    """

    step: int = 0
    seconds: float = 0.0
    start: dict[str, Any] | None = None
    stream: list[dict[str, Any]] | None = None

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RunState:
        """Read the counters of a state file; missing ones get their defaults."""
        known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """The counters for a state file; those that are None are left out."""
        return {key: value for key, value in vars(self).items() if value is not None}
