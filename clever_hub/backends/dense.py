"""Features of every place of a photo of any shape: a ViT's patches, or the last map of a CNN."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from clever_hub.backends.torch import CleverModel
from clever_hub.errors import ConfigError

# What DINO rounds the long side of a frame of 854 pixels to; whole patches of 8, 16 and 32 pixels.
# A photo of less than 512 pixels would lose more of its shape than an eighth.
_MULTIPLE, _LONG = 64, 512


class DenseModel:
    """A model that gives features of every place instead of one embedding.

    Attributes:
        model: The model.
        layer: ``tokens`` for what the embedding is made from: the patch tokens after the final
            norm, or the last map. ``keys`` for the keys of a ViT's last attention layer, of all
            heads.
        stride: Pixels a side that one place stands for.
        parts: Columns of the features: ``full``, and ``invariant`` and ``equivariant`` where they
            are those of the embedding.

    Example:
        >>> import clever_hub
        >>> dense = DenseModel(clever_hub.from_pretrained("clever-resnet18"))
        >>> dense.size_for(854, 480, short=96)
        (160, 96)
        >>> dense(np.zeros((1, 3, 96, 160), dtype=np.float32)).shape
        torch.Size([1, 3, 5, 512])
    """

    def __init__(self, model: CleverModel, layer: Literal["tokens", "keys"] = "tokens") -> None:
        """Check what the model can give.

        Args:
            model: The model; put into eval mode.
            layer: Which features.

        Raises:
            ConfigError: When the model has neither patches nor a map, or no keys.
        """
        self.model = model.eval()
        self.layer = layer
        self.stride = _stride(model.backbone)
        self._backbone = model.backbone
        sized = getattr(getattr(model.backbone, "patch_embed", None), "img_size", None)
        self._sized: tuple[int, int] | None = sized
        config = model.config
        if layer == "keys" and not has_keys(model.backbone):
            raise ConfigError(
                f"keys need a vision transformer of timm with plain attention, such as "
                f"vit_tiny_patch16_224; this model's backbone is {config.architecture}"
            )
        side = max(1, config.preprocessing.crop_size // self.stride) * self.stride
        width = self(np.zeros((1, 3, side, side), dtype=np.float32)).shape[-1]
        self.parts = {"full": slice(0, width)}
        # Features of another kind or width cannot be cut where the embedding is, nor those before a
        # projection, which alone makes the parts.
        cut, own = config.invariant_dim, layer == "tokens" and not config.projection
        if own and width == config.num_features and cut < width:
            self.parts |= {"invariant": slice(0, cut), "equivariant": slice(cut, width)}

    def size_for(self, width: int, height: int, short: int) -> tuple[int, int]:
        """The size that a photo is resized to: whole places, and nearly its own shape.

        Args:
            width: Of the photo, in pixels.
            height: Of the photo, in pixels.
            short: What its shorter side should be, in pixels.

        Returns:
            Width and height.

        Raises:
            ConfigError: When ``short`` is less than one place.
        """
        if short < self.stride:
            raise ConfigError(
                f"a shorter side of {short} pixels is less than one place of "
                f"{self.model.config.name}, {self.stride} pixels"
            )
        return whole_places(width, height, short, self.stride)

    def prepare(self, image: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
        """Resize and normalise one photo.

        Args:
            image: RGB.
            size: Width and height.

        Returns:
            float32 (3, height, width).
        """
        preprocessing = self.model.config.preprocessing
        resampling = Image.Resampling[preprocessing.interpolation.upper()]
        pixels = np.asarray(image.resize(size, resampling), dtype=np.float32) / 255  # (H, W, 3)
        mean = np.asarray(preprocessing.mean, dtype=np.float32)
        std = np.asarray(preprocessing.std, dtype=np.float32)
        return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))

    def __call__(self, batch: NDArray[np.float32]) -> Float[Tensor, "batch rows columns dim"]:
        """Features of prepared photos.

        Args:
            batch: float32 (N, 3, height, width), both sides multiples of the stride.

        Returns:
            float32 on the CPU, the top left place first.
        """
        backbone = self._for_size((batch.shape[2], batch.shape[3]))
        parameter = next(backbone.parameters())
        inputs = torch.from_numpy(batch).to(parameter.device, parameter.dtype)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found = dense_map(backbone, inputs, self.layer)
        return found.float().cpu().clone()

    def _for_size(self, size: tuple[int, int]) -> nn.Module:
        """The backbone, or a copy whose position embeddings fit inputs of this size."""
        network: Any = self._backbone
        # Either it has no positions of a fixed size, or timm resamples them in passing.
        flexible = not hasattr(network, "set_input_size")
        if flexible or getattr(network, "dynamic_img_size", False) or self._sized == size:
            return self._backbone
        network = copy.deepcopy(self.model.backbone)
        network.set_input_size(img_size=size)
        self._backbone, self._sized = network.eval(), size
        return self._backbone


def whole_places(width: int, height: int, short: int, stride: int) -> tuple[int, int]:
    """A size near a photo's shape that is a whole number of places each way.

    Args:
        width: Of the photo, in pixels.
        height: Of the photo, in pixels.
        short: What its shorter side should be, in pixels; rounded down to whole places.
        stride: Pixels a side of a place.

    Returns:
        Width and height. The longer side is rounded down to whole places; from 512 pixels on to a
        multiple of 64, as DINO does with DAVIS, where places fit into that.

    Example:
        >>> whole_places(854, 480, 480, 16)
        (832, 480)
    """
    small = short // stride * stride
    long = short * max(width, height) // min(width, height)
    step = _MULTIPLE if _MULTIPLE % stride == 0 and long >= _LONG else stride
    large = max(long // step * step, small)
    return (large, small) if width >= height else (small, large)


def dense_map(
    backbone: nn.Module,
    inputs: Float[Tensor, "batch 3 height width"],
    layer: Literal["tokens", "keys"] = "tokens",
) -> Float[Tensor, "batch rows columns dim"]:
    """What a timm backbone gives before pooling, channels last, differentiably.

    Args:
        backbone: A vision transformer, a CNN, or another network of timm with a last map.
        inputs: Prepared images.
        layer: As for ``DenseModel``.

    Returns:
        Features of each place, without those of CLS and register tokens.

    Raises:
        ConfigError: When the backbone has neither patches nor a map.
    """
    network: Any = backbone
    if layer == "keys":
        with _recorded_keys(network.blocks[-1].attn) as recorded:
            network.forward_features(inputs)
        (keys,) = recorded  # (batch, heads, tokens, dim of a head)
        found = keys.transpose(1, 2).flatten(2)
    else:
        found = network.forward_features(inputs)
    if found.ndim == 4:
        last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return found if last else found.permute(0, 2, 3, 1)
    embed: Any = getattr(network, "patch_embed", None)
    if found.ndim == 3 and hasattr(embed, "dynamic_feat_size"):
        rows, columns = embed.dynamic_feat_size(tuple(inputs.shape[-2:]))
        patches = found[:, getattr(network, "num_prefix_tokens", 0) :]
        if patches.shape[1] == rows * columns:
            return patches.reshape(len(patches), rows, columns, -1)
    raise ConfigError(
        f"features of places need patch tokens or a map; {type(backbone).__name__} gives a tensor "
        f"of shape {tuple(found.shape)}"
    )


def has_keys(backbone: nn.Module) -> bool:
    """Whether a backbone's last block has timm's plain attention, whose keys can be had."""
    blocks = getattr(backbone, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not len(blocks):
        return False
    attention = getattr(blocks[-1], "attn", None)
    return hasattr(attention, "k_norm") and hasattr(backbone, "num_prefix_tokens")


@contextmanager
def _recorded_keys(attention: Any) -> Iterator[list[Tensor]]:
    """Keep the keys that a block of timm computes meanwhile: they pass its norm of keys."""
    recorded: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        recorded.append(output)

    handle = attention.k_norm.register_forward_hook(keep)
    try:
        yield recorded
    finally:
        handle.remove()


def _stride(backbone: Any) -> int:
    """Pixels a side of a place, as timm knows it."""
    info = getattr(backbone, "feature_info", None)
    if isinstance(info, list) and info:
        return int(info[-1]["reduction"])
    raise ConfigError(
        "features of places need patch tokens or a map, and timm does not say how many pixels a "
        f"place of a {type(backbone).__name__} stands for"
    )
