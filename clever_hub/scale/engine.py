"""What computes the shards of a data set: a model, its backend and its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clever_hub.pretrained import from_pretrained

if TYPE_CHECKING:
    from clever_hub.jobs.answering import JobsMixin


@dataclass(frozen=True)
class Engine:
    """How the shards are computed.

    Attributes:
        model: Name or folder of the model.
        backend: ``onnx`` or ``torch``.
        options: Keywords of ``from_pretrained``.
        num_workers: Threads that decode; None chooses by the number of cores.
    """

    model: str
    backend: str
    options: dict[str, Any]
    num_workers: int | None

    def load(self) -> JobsMixin:
        """Load the model."""
        return from_pretrained(self.model, backend=self.backend, **self.options)
