"""Packaging of CLeVER models for other readers than `clever_hub`."""

from __future__ import annotations

__all__: list[str] = []
