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
    from clever_hub.jobs.duplicates import Duplicates, find_duplicates
    from clever_hub.jobs.heads import Heads
    from clever_hub.jobs.orient import Orientation, orientation
    from clever_hub.jobs.relate import relate
    from clever_hub.jobs.relation import Relation, Relations
    from clever_hub.pretrained import from_pretrained

__version__ = "0.2.0"

__all__ = [
    "Duplicates",
    "Embeddings",
    "Heads",
    "ModelConfig",
    "ModelInfo",
    "Orientation",
    "PreprocessingConfig",
    "Preprocessor",
    "Relation",
    "Relations",
    "__version__",
    "errors",
    "find_duplicates",
    "from_pretrained",
    "list_models",
    "load_image",
    "orientation",
    "relate",
]

_HOMES = {
    "Duplicates": "clever_hub.jobs.duplicates",
    "Embeddings": "clever_hub.embeddings",
    "Heads": "clever_hub.jobs.heads",
    "ModelConfig": "clever_hub.config",
    "ModelInfo": "clever_hub.hub.shipped",
    "Orientation": "clever_hub.jobs.orient",
    "PreprocessingConfig": "clever_hub.config",
    "Preprocessor": "clever_hub.images.preparing",
    "Relation": "clever_hub.jobs.relation",
    "Relations": "clever_hub.jobs.relation",
    "errors": "clever_hub.errors",
    "find_duplicates": "clever_hub.jobs.duplicates",
    "from_pretrained": "clever_hub.pretrained",
    "list_models": "clever_hub.hub.listing",
    "load_image": "clever_hub.images.opening",
    "orientation": "clever_hub.jobs.orient",
    "relate": "clever_hub.jobs.relate",
}

__getattr__, __dir__ = attach(globals(), _HOMES)
