"""CLeVER weights turn an image into an invariant and an equivariant embedding.

Importing this loads nothing heavy: each name below is imported when it is first used.

Example:
    >>> import clever_hub
    >>> model = clever_hub.from_pretrained("clever-resnet18")  # doctest: +SKIP
    >>> model.encode(["a.jpg", "b.jpg"]).invariant.shape  # doctest: +SKIP
    (2, 409)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clever_hub.lazy import attach

if TYPE_CHECKING:
    from clever_hub import errors
    from clever_hub.config import ModelConfig, PreprocessingConfig
    from clever_hub.embeddings import Embeddings
    from clever_hub.hub.listing import list_models
    from clever_hub.hub.shipped import ModelInfo
    from clever_hub.images.opening import load_image
    from clever_hub.images.preparing import Preprocessor
    from clever_hub.pretrained import from_pretrained

__version__ = "0.1.0"

__all__ = [
    "Embeddings",
    "ModelConfig",
    "ModelInfo",
    "PreprocessingConfig",
    "Preprocessor",
    "__version__",
    "errors",
    "from_pretrained",
    "list_models",
    "load_image",
]

_HOMES = {
    "Embeddings": "clever_hub.embeddings",
    "ModelConfig": "clever_hub.config",
    "ModelInfo": "clever_hub.hub.shipped",
    "PreprocessingConfig": "clever_hub.config",
    "Preprocessor": "clever_hub.images.preparing",
    "errors": "clever_hub.errors",
    "from_pretrained": "clever_hub.pretrained",
    "list_models": "clever_hub.hub.listing",
    "load_image": "clever_hub.images.opening",
}

__getattr__, __dir__ = attach(globals(), _HOMES)
