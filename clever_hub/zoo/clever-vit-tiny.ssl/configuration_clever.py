"""Configuration of CLeVER models for transformers; also shipped as remote code in model folders."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


class CleverConfig(PreTrainedConfig):
    """What config.json of a CLeVER model folder says.

    Args:
        architecture: The backbone's name in timm.
        model_args: Arguments for ``timm.create_model``.
        num_features: Length of the embedding.
        invariant_dim: Length of the invariant part, the first entries of the embedding.
        projection: Whether the backbone's classifier is a projection of the embedding.
        head_input: What a classification head sees: ``full``, ``invariant`` or ``equivariant``.
        **kwargs: Everything else; kept and written back.
    """

    model_type = "clever"

    def __init__(
        self,
        architecture: str = "resnet18",
        model_args: dict[str, Any] | None = None,
        num_features: int = 512,
        invariant_dim: int = 409,
        projection: bool = False,
        head_input: str = "full",
        **kwargs: Any,
    ) -> None:
        if (version := kwargs.get("format_version", 1)) not in (1, 2):
            raise ValueError(f"format_version: this code reads 1 and 2, got {version}")
        # Equal is allowed: a split ratio of 1.0 is plain SimSiam or DINO.
        if not 0 < invariant_dim <= num_features:
            raise ValueError(
                f"invariant_dim: expected 1 to {num_features} of {num_features} dimensions, "
                f"got {invariant_dim}"
            )
        if head_input not in ("full", "invariant", "equivariant"):
            raise ValueError(
                f"head_input: expected 'full', 'invariant' or 'equivariant', got {head_input!r}"
            )
        if head_input == "equivariant" and invariant_dim == num_features:
            raise ValueError("head_input: this model has no equivariant part, take 'full'")
        self.architecture = architecture
        self.model_args = dict(model_args or {})
        self.num_features = num_features
        self.invariant_dim = invariant_dim
        self.projection = projection
        self.head_input = head_input
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Length of the embedding, under the name that transformers' tools look for."""
        return self.num_features

    @property
    def equivariant_dim(self) -> int:
        """Length of the equivariant part."""
        return self.num_features - self.invariant_dim
