"""Patch tokens and attention maps of vision transformers, as timm builds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from clever_hub.errors import ConfigError

if TYPE_CHECKING:
    from clever_hub.torch_model import CleverModel


class Tokens(NamedTuple):
    """What one pass through a vision transformer gives.

    Attributes:
        embedding: float (batch, dim), the same as ``backbone(pixel_values)``.
        patches: float (batch, rows, columns, dim), after the final norm; top left first.
    """

    embedding: Float[Tensor, "batch dim"]
    patches: Float[Tensor, "batch rows columns dim"]


def token_grid(backbone: nn.Module, architecture: str, size: int) -> tuple[int, int]:
    """How many patches a square input has.

    Args:
        backbone: The timm model.
        architecture: Its name, for messages.
        size: Side of the input in pixels.

    Returns:
        Rows and columns.

    Raises:
        ConfigError: When the backbone is no vision transformer with one token per patch.
    """
    embed: Any = getattr(backbone, "patch_embed", None)
    # Swin and its like have patches, too, but merge them on the way.
    flat = hasattr(backbone, "num_prefix_tokens") and hasattr(backbone, "blocks")
    if not flat or not hasattr(embed, "dynamic_feat_size"):
        raise ConfigError(
            f"patch tokens and attention maps need a vision transformer, such as "
            f"vit_tiny_patch16_224; this model's backbone is {architecture}. What it has is the "
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
        grid: What ``token_grid`` gives for their size.

    Returns:
        Embedding and patch tokens.
    """
    vit: Any = backbone
    features = vit.forward_features(pixel_values)  # (batch, prefix + rows·columns, dim)
    patches = features[:, vit.num_prefix_tokens :]
    return Tokens(vit.forward_head(features), patches.unflatten(1, grid))


def attention_maps(
    model: CleverModel, pixel_values: NDArray[np.float32]
) -> Float[NDArray[np.float32], "batch heads rows columns"]:
    """How the CLS token's attention in the last block is spread over the patches.

    DINO shows that these maps outline objects without having been told of any (Caron et al. 2021,
    https://arxiv.org/abs/2104.14294, section 4.2.2 and figure 1).

    Args:
        model: With a vision transformer that has a CLS token.
        pixel_values: float32 (batch, 3, size, size), as ``model.preprocessor`` makes them.

    Returns:
        float32 (batch, heads, rows, columns), not negative. Over the patches a head's map sums to
        less than 1: what is missing goes to the CLS token itself and to register tokens.

    Raises:
        ConfigError: When the backbone has no patches, or no CLS token.

    Example:
        >>> maps = attention_maps(model, model.preprocessor.batch(["a.jpg"]))  # doctest: +SKIP
        >>> maps.shape  # doctest: +SKIP
        (1, 3, 8, 8)
    """
    config = model.config
    grid = token_grid(model.backbone, config.architecture, config.preprocessing.crop_size)
    vit: Any = model.backbone
    if getattr(vit, "cls_token", None) is None:
        raise ConfigError(
            f"attention maps are those of the CLS token, and {config.architecture} averages its "
            "patches instead. Take a backbone with a CLS token, such as vit_tiny_patch16_224"
        )
    parameter = next(vit.parameters())
    inputs = torch.from_numpy(pixel_values).to(parameter.device, parameter.dtype)
    with torch.inference_mode(), model._evaluating(), _recorded(vit.blocks[-1].attn) as recorded:
        vit.forward_features(inputs)
    (attention,) = recorded  # (batch, heads, queries, keys), softmax over the keys
    maps: NDArray[np.float32] = attention[:, :, 0, vit.num_prefix_tokens :].float().cpu().numpy()
    return maps.reshape(*maps.shape[:2], *grid)  # (batch, heads, rows, columns)


@contextmanager
def _recorded(attention: Any) -> Iterator[list[Tensor]]:
    """Keep the attention weights that a block of timm computes meanwhile.

    Fused attention never has them in memory, so it is switched off for a while; written out, they
    go through ``attn_drop``, whatever the block does to queries and keys before.
    """
    recorded: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        recorded.append(inputs[0])

    fused = attention.fused_attn
    handle = attention.attn_drop.register_forward_pre_hook(keep)
    attention.fused_attn = False
    try:
        yield recorded
    finally:
        attention.fused_attn = fused
        handle.remove()
