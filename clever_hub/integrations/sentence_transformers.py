"""A sentence-transformers module: ``SentenceTransformer(modules=[CleverImages(...)])``.

A model saved with it is loaded by ``SentenceTransformer(folder, trust_remote_code=True)``:
sentence-transformers asks for that with every module that is not its own. The folder holds the
model's name, not its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule

from clever_hub.errors import ConfigError
from clever_hub.jobs.default import default_model
from clever_hub.pretrained import from_pretrained


class CleverImages(InputModule):
    """Embeds images with one part of the embedding.

    Args:
        name: The model; None for the one that ``clever_hub.jobs.default`` recommends.
        part: ``"invariant"``, ``"equivariant"`` or ``"full"``.

    Example:
        >>> from sentence_transformers import SentenceTransformer  # doctest: +SKIP
        >>> model = SentenceTransformer(modules=[CleverImages()])  # doctest: +SKIP
        >>> model.encode(["a.jpg", "b.jpg"]).shape  # doctest: +SKIP
        (2, 1024)
    """

    config_keys = ["name", "part"]  # noqa: RUF012, as the base class has it
    modalities = ["image", "text"]  # noqa: RUF012, a path is text to sentence-transformers

    def __init__(self, name: str | None = None, part: str = "invariant") -> None:
        super().__init__()
        if part not in ("invariant", "equivariant", "full"):
            raise ConfigError(f"part: expected invariant, equivariant or full, got {part!r}")
        name = name or default_model()
        self.name, self.part, self.model = name, part, from_pretrained(name)

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **_: Any
    ) -> dict[str, Any]:
        """Read the images; a prompt says nothing to them."""
        del prompt
        return {"pixel_values": torch.from_numpy(self.model.preprocessor.batch(inputs))}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Embed them."""
        found = self.model(features["pixel_values"])
        return {**features, "sentence_embedding": getattr(found, self.part)}

    def get_embedding_dimension(self) -> int:
        """The length of the vectors."""
        config = self.model.config
        widths = {"invariant": config.invariant_dim, "equivariant": config.equivariant_dim}
        return widths.get(self.part, config.num_features)

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the name and the part."""
        self.save_config(output_path)
