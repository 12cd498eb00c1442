"""Embeddings of many photos: a folder of shards, which can be continued after any interruption."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clever_hub.lazy import attach

if TYPE_CHECKING:
    from clever_hub.scale.dataset import Summary, embed_dataset

__all__ = ["Summary", "embed_dataset"]

__getattr__, __dir__ = attach(
    globals(),
    {"Summary": "clever_hub.scale.dataset", "embed_dataset": "clever_hub.scale.dataset"},
)
