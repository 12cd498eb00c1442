"""VMamba, a backbone of state spaces (``vmamba_tiny``); also shipped as remote code.

The paper's VMamba-T, which timm does not have: Liu et al., https://arxiv.org/abs/2401.10166, in the
configuration that CLeVER uses (``vmambav2_tiny_224`` of its ``vssm2``, VMamba-T[s1l8] upstream:
state of 1, ratio 1, no gate). Names and shapes of the weights are the published ones.

Importing this module registers the model with timm:

    import clever_hub.backends.vmamba
    timm.create_model("vmamba_tiny", num_classes=0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers.weight_init import trunc_normal_
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    register_model,
)
from torch import Tensor, nn

from .vmamba_blocks import ChannelsFirst, ChannelsLast, Stage

__all__: list[str] = ["VMamba"]


class Classifier(nn.Module):
    """A norm at every position, then their mean, then a linear layer if there are classes.

    Args:
        dim: Channels.
        num_classes: 0 for the embedding itself.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.head: nn.Module = nn.Linear(dim, num_classes) if num_classes else nn.Identity()


class VMamba(nn.Module):
    """VMamba for images of any size, as timm's models are.

    Args:
        depths: Blocks of each stage.
        dims: Channels of each stage.
        state: Numbers in the state of a channel.
        mlp_ratio: See ``Block``.
        in_chans: Channels of the images.
        num_classes: 0 for the embedding.
        global_pool: ``avg``; nothing else is there.
        drop_rate: None: the model has no dropout.
        drop_path_rate: Of the last block; it grows evenly from 0 at the first.

    Attributes:
        num_features: Length of the embedding.

    Example:
        >>> import torch
        >>> model = VMamba(depths=(1, 1), dims=(16, 32), num_classes=0)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 32])
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 8, 2),
        dims: Sequence[int] = (96, 192, 384, 768),
        state: int = 1,
        mlp_ratio: float = 4.0,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if len(depths) != len(dims) or not depths:
            raise ValueError(f"expected as many depths as dims, got {depths} and {dims}")
        if global_pool != "avg" or drop_rate:
            raise ValueError(
                f"expected global_pool 'avg' and drop_rate 0, got {global_pool!r} and {drop_rate}"
            )
        self.num_classes, self.num_features = num_classes, dims[-1]
        self.patch_embed = _stem(in_chans, dims[0])
        last = max(sum(depths) - 1, 1)
        rates = [drop_path_rate * block / last for block in range(sum(depths))]
        stages = []
        for index, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
            out_dim = dims[index + 1] if index + 1 < len(dims) else None
            own = [rates.pop(0) for _ in range(depth)]
            stages.append(Stage(dim, out_dim, state, mlp_ratio, own))
        self.layers = nn.Sequential(*stages)
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**index, "module": f"layers.{index}.blocks"}
            for index, dim in enumerate(dims)
        ]
        self.classifier = Classifier(dims[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _init_linear(module)
        for name, parameter in self.named_parameters():
            # Towards 0 they would not be smaller, but of another time scale (Mamba marks them too).
            if name.endswith(("A_logs", "Ds", "dt_projs_bias")):
                parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to embeddings (batch, num_features)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, normalised (batch, ⌈height / 32⌉, ⌈width / 32⌉, num_features)."""
        x = self.layers(self.patch_embed(x))
        return self.classifier.norm(x)  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map to embeddings; to logits where there are classes."""
        x = x.mean(dim=(1, 2))
        return x if pre_logits else self.classifier.head(x)

    def get_classifier(self) -> nn.Module:
        """The linear layer, or Identity."""
        return self.classifier.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another number of classes, 0 for the embedding; timm's name for it."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"expected global_pool 'avg', got {global_pool!r}")
        self.num_classes = num_classes
        self.classifier.head = nn.Identity()
        if num_classes:
            weight = self.classifier.norm.weight
            self.classifier.head = nn.Linear(
                self.num_features, num_classes, device=weight.device, dtype=weight.dtype
            )
            _init_linear(self.classifier.head)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep each block's input alone, and compute the rest again in the backward pass."""
        for stage in self.layers:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stages (coarse) or blocks by the names of their parameters, from the stem upwards."""
        if coarse:
            return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)"}
        return {
            "stem": r"^patch_embed",
            "blocks": [
                (r"^layers\.(\d+)\.blocks\.(\d+)", None),
                (r"^layers\.(\d+)\.downsample", (99_998,)),
                (r"^classifier\.norm", (99_999,)),
            ],
        }

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay would do harm to."""
        named = self.named_parameters()
        return {name for name, value in named if getattr(value, "_no_weight_decay", False)}


def _stem(in_chans: int, dim: int) -> nn.Sequential:
    """Two convolutions that halve; the numbers of the layers are those of the published names."""
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1),
        ChannelsLast(),
        nn.LayerNorm(dim // 2),
        ChannelsFirst(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
        ChannelsLast(),
        nn.LayerNorm(dim),
    )


def _init_linear(layer: nn.Linear) -> None:
    trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


default_cfgs = generate_default_cfgs(
    {
        "vmamba_tiny": {
            "input_size": (3, 224, 224),
            "num_classes": 1000,
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "patch_embed.0",
            "classifier": "classifier.head",
        }
    }
)


def vmamba_tiny(pretrained: bool = False, **kwargs: Any) -> VMamba:
    """VMamba-T of the paper: 29,480,064 parameters without classes, 4.9 G multiply-adds at 224 px.

    Args:
        pretrained: Load weights; timm says from where.
        **kwargs: Of ``VMamba``.

    Returns:
        The model.
    """
    model: VMamba = build_model_with_cfg(VMamba, "vmamba_tiny", pretrained, **kwargs)
    return model


# A folder's remote code may come beside this package's own.
if not is_model("vmamba_tiny"):
    register_model(vmamba_tiny)
