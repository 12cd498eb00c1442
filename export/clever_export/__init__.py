"""Packaging of CLeVER models for other readers than ``clever_hub``.

Installed by ``pip install "clever-hub[export]"``. The names below are the public ones; each is
imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clever_hub.lazy import attach

if TYPE_CHECKING:
    from clever_export.card import make_card, write_card
    from clever_export.onnx import export_onnx
    from clever_export.publish_check import check_folder
    from clever_export.variants import export_variant

__all__ = ["check_folder", "export_onnx", "export_variant", "make_card", "write_card"]

_HOMES = {
    "check_folder": "clever_export.publish_check",
    "export_onnx": "clever_export.onnx",
    "export_variant": "clever_export.variants",
    "make_card": "clever_export.card",
    "write_card": "clever_export.card",
}

__getattr__, __dir__ = attach(globals(), _HOMES)
