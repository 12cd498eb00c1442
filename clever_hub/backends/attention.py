"""Attention maps of vision transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from clever_hub.backends.evaluating import eval_view
from clever_hub.backends.tokens import token_grid
from clever_hub.backends.torch import CleverModel
from clever_hub.errors import ConfigError


def attention_maps(
    model: CleverModel, pixel_values: NDArray[np.float32]
) -> Float[NDArray[np.float32], "batch heads rows columns"]:
    """How the CLS token's attention in the last block is spread over the patches.

    In DINO these maps outline objects although no labels were used (Caron et al. 2021,
    https://arxiv.org/abs/2104.14294, section 4.2.2 and figure 1).

    Args:
        model: A model whose backbone is a vision transformer with a CLS token.
        pixel_values: float32 (batch, 3, size, size), as ``model.preprocessor`` makes them.

    Returns:
        float32 (batch, heads, rows, columns), not negative. A head's map sums to less than 1 over
        the patches: the rest of the attention goes to the CLS token and to register tokens.

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
            "patches instead. Use a backbone with a CLS token, such as vit_tiny_patch16_224"
        )
    view: Any = eval_view(vit)
    recorded = _record(view.blocks[-1].attn)
    with torch.inference_mode():
        view.forward_features(model._inputs(pixel_values))
    (attention,) = recorded  # (batch, heads, queries, keys), softmax over the keys
    maps: NDArray[np.float32] = attention[:, :, 0, vit.num_prefix_tokens :].float().cpu().numpy()
    return maps.reshape(*maps.shape[:2], *grid)  # (batch, heads, rows, columns)


def _record(attention: Any) -> list[Tensor]:
    """Keep the attention weights that a block of timm computes from now on.

    Fused attention never has them in memory, so it is switched off; written out, they go through
    ``attn_drop``, whatever the block does to queries and keys before.
    """
    recorded: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        recorded.append(inputs[0])

    attention.fused_attn = False
    attention.attn_drop.register_forward_pre_hook(keep)
    return recorded
