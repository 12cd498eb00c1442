"""Patch tokens of vision transformers, as timm builds them."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from clever_hub.errors import ConfigError


class Tokens(NamedTuple):
    """Output of one pass through a vision transformer.

    Attributes:
        embedding: float (batch, dim), equal to ``backbone(pixel_values)``.
        patches: float (batch, rows, columns, dim), after the final norm; top left first.
    """

    embedding: Float[Tensor, "batch dim"]
    patches: Float[Tensor, "batch rows columns dim"]


def token_grid(backbone: nn.Module, architecture: str, size: int) -> tuple[int, int]:
    """Rows and columns of patches in a square input.

    Args:
        backbone: The timm model.
        architecture: Its name, for messages.
        size: Side of the input in pixels.

    Returns:
        Rows and columns.

    Raises:
        ConfigError: When the backbone is not a vision transformer with one token per patch.
    """
    embed: Any = getattr(backbone, "patch_embed", None)
    # Swin and similar models have patches, too, but merge them between stages.
    flat = hasattr(backbone, "num_prefix_tokens") and hasattr(backbone, "blocks")
    if not flat or not hasattr(embed, "dynamic_feat_size"):
        raise ConfigError(
            f"patch tokens and attention maps need a vision transformer, such as "
            f"vit_tiny_patch16_224; this model's backbone is {architecture}. It gives only the "
            "embedding: leave tokens out"
        )
    rows, columns = embed.dynamic_feat_size((size, size))
    return int(rows), int(columns)


def embed_tokens(
    backbone: nn.Module,
    pixel_values: Float[Tensor, "batch 3 height width"],
    grid: tuple[int, int],
) -> Tokens:
    """Embed images and keep the patch tokens, in one pass, differentiably.

    Args:
        backbone: A vision transformer of timm.
        pixel_values: Prepared images.
        grid: Result of ``token_grid`` for their size.

    Returns:
        Embedding and patch tokens.
    """
    vit: Any = backbone
    features = vit.forward_features(pixel_values)  # (batch, prefix + rows·columns, dim)
    patches = features[:, vit.num_prefix_tokens :]
    return Tokens(vit.forward_head(features), patches.unflatten(1, grid))
