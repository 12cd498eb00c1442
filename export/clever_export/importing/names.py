"""From the names of other implementations of a network to timm's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from clever_hub.errors import ConfigError, ModelFormatError

Tensors = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Naming:
    """Another implementation's names.

    Attributes:
        name: Whose they are.
        sign: A regular expression that one of its names matches, and none of timm's.
        rename: From its tensors and the shapes that timm's model wants to timm's names.
        imagenet: Published with ImageNet's mean and deviation, whatever timm's settings are.
        prefix: Of timm's name of the network, where a twin without it has the same shapes.
    """

    name: str
    sign: str
    rename: Callable[[Tensors, Shapes], Tensors]
    imagenet: bool = True
    prefix: str = ""


def to_timm(tensors: Tensors, expected: Shapes, architecture: str) -> tuple[str, bool, Tensors]:
    """Give a backbone's tensors the names that timm has for them.

    Args:
        tensors: Under the names of their training code, heads left out.
        expected: Shapes under timm's names.
        architecture: timm's name of the network.

    Returns:
        Whose names they were (nothing for timm's own), whether ImageNet's normalisation goes with
        them, and the renamed.

    Raises:
        ModelFormatError: When two become one, or cannot be told apart.
        ConfigError: When the architecture has the same shapes, but computes something else.
    """
    if tensors.keys() == expected.keys():
        return "", False, dict(tensors)
    for naming in NAMINGS:
        if any(re.match(naming.sign, name) for name in tensors):
            renamed = naming.rename(tensors, expected)
            if not architecture.startswith(naming.prefix):
                raise ConfigError(
                    f"--architecture: expected {naming.prefix}{architecture}, got {architecture}. "
                    f"The names are {naming.name}'s, which computes as timm's {naming.prefix}* do "
                    "(padding, epsilon of the batch norms)"
                )
            return naming.name, naming.imagenet, renamed
    return "", False, dict(tensors)


def _by_patterns(*patterns: tuple[str, str]) -> Callable[[Tensors, Shapes], Tensors]:
    """Renames by regular expressions, each applied to every name, in order."""

    def rename(tensors: Tensors, _: Shapes) -> Tensors:
        renamed: Tensors = {}
        for name, tensor in tensors.items():
            new = name
            for pattern, replacement in patterns:
                new = re.sub(pattern, replacement, new)
            if new in renamed:
                raise ModelFormatError(f"{name}: a second tensor for timm's {new}")
            renamed[new] = tensor
        return renamed

    return rename


# lightly keeps ``nn.Sequential(*list(resnet.children())[:-1])``: numbers for torchvision's names.
_SEQUENTIAL_RESNET = _by_patterns(
    (r"^0\.", "conv1."),
    (r"^1\.", "bn1."),
    *((rf"^{number}\.", f"layer{number - 3}.") for number in (4, 5, 6, 7)),
)

_TORCHVISION_VIT = _by_patterns(
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    # torchvision before 0.12 had linear_1 and linear_2.
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)

_VMAMBA_NAMES = _by_patterns(
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
    (r"^norm\.", "classifier.norm."),
)


def _vmamba(tensors: Tensors, expected: Shapes) -> Tensors:
    """The earlier names of VMamba, and linear layers that it kept as 1x1 convolutions."""
    renamed = _VMAMBA_NAMES(tensors, expected)
    for name, tensor in renamed.items():
        wanted = expected.get(name, ())
        if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) and len(wanted) == 2:
            renamed[name] = tensor[:, :, 0, 0]
    return renamed


# Within a block of EfficientNet-PyTorch, as its forward pass meets them.
_EFFICIENTNET_PARTS = (
    *("_expand_conv", "_bn0", "_depthwise_conv", "_bn1"),
    *("_se_reduce", "_se_expand", "_project_conv", "_bn2"),
)
_EFFICIENTNET_OUTER = ("_conv_stem", "_bn0", "_conv_head", "_bn1")
_SUFFIXES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _efficientnet(tensors: Tensors, expected: Shapes) -> Tensors:
    """EfficientNet-PyTorch's names, matched by order, shape and suffix.

    The order is that of the forward pass, told from the names: a file may have sorted them.
    """
    theirs = sorted(tensors, key=_place)
    counted = any(name.endswith("num_batches_tracked") for name in tensors)
    ours = [name for name in expected if counted or not name.endswith("num_batches_tracked")]
    wrong = [
        f"{name} {list(tensors[name].shape)} for {wanted} {list(expected[wanted])}"
        for name, wanted in zip(theirs, ours, strict=False)
        if tuple(tensors[name].shape) != tuple(expected[wanted])
        or name.rpartition(".")[2] != wanted.rpartition(".")[2]
    ]
    if wrong or len(theirs) != len(ours):
        raise ModelFormatError(
            f"EfficientNet's names: expected {len(ours)} tensors that fit in order, shape and "
            f"suffix, got {len(theirs)}, of which these do not: {'; '.join(wrong[:5]) or 'none'}. "
            "Is it this architecture?"
        )
    return {wanted: tensors[name] for name, wanted in zip(theirs, ours, strict=True)}


def _place(name: str) -> tuple[int, int, int, int]:
    """Where a tensor comes in the forward pass: stem, blocks, head; part; suffix."""
    module, _, suffix = name.rpartition(".")
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if suffix in _SUFFIXES:
        if found and found[2] in _EFFICIENTNET_PARTS:
            block, part = int(found[1]), _EFFICIENTNET_PARTS.index(found[2])
            return 1, block, part, _SUFFIXES.index(suffix)
        if module in _EFFICIENTNET_OUTER:
            part = _EFFICIENTNET_OUTER.index(module)
            return part // 2 * 2, 0, part, _SUFFIXES.index(suffix)
    raise ModelFormatError(f"{name}: no name of EfficientNet-PyTorch, its place cannot be told")


NAMINGS = (
    Naming("lightly's numbered ResNet", r"^4\.0\.conv1\.", _SEQUENTIAL_RESNET),
    Naming("torchvision", r"^encoder\.layers\.encoder_layer_", _TORCHVISION_VIT),
    # It pads as TensorFlow does, and its epsilon is 1e-3.
    Naming("EfficientNet-PyTorch", r"^_conv_stem\.", _efficientnet, imagenet=False, prefix="tf_"),
    Naming("VMamba", r"^layers\.\d+\.blocks\.\d+\.(op|self_attention)\.", _vmamba),
)
