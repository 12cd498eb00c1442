"""Load a model for a verb: by default with the fastest backend that can do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clever_hub.pretrained import fastest_backend, from_pretrained

if TYPE_CHECKING:
    from clever_hub.backends.onnx import OnnxModel
    from clever_hub.backends.torch import CleverModel


def load_model(
    name: str,
    backend: str = "auto",
    device: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> CleverModel | OnnxModel:
    """Load a model.

    Args:
        name: As for ``from_pretrained``.
        backend: A backend, or ``"auto"`` for the fastest that is installed and can embed with it.
        device: As for ``from_pretrained``.
        revision: As for ``from_pretrained``.
        **options: Of the backend.

    Returns:
        The model.

    Raises:
        CleverError: As ``from_pretrained``.
    """
    if backend == "auto":
        backend = fastest_backend(name, device=device, revision=revision)
    return from_pretrained(name, backend=backend, device=device, revision=revision, **options)
