"""Which of a checkpoint's tensors are the backbone: the layouts of published training code.

Every tensor is accounted for: it belongs to the backbone, or to a part that is known to be no part
of it (a head, a projector, the momentum copy), or the import is refused and lists it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from clever_hub.errors import ConfigError, ModelFormatError

# Beginnings of a classifier's or projector's names inside a backbone, where timm's model has no
# tensor of that name: ``heads`` are torchvision's, ``_fc`` is EfficientNet-PyTorch's.
_HEADS = ("fc.", "head.", "heads.", "head_dist.", "_fc.", "classifier.")
# Wrappers around a whole module: DistributedDataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Layout:
    """How some training code names its tensors.

    Attributes:
        name: What the user is told; empty for names without any prefix.
        prefix: What stands before the backbone's names.
        others: Beginnings of names outside of it that may be left out.
        needs: A name that begins so must be there, too.
        own_normalisation: Trained with timm's settings for the architecture; else, as published
            self-supervised code does, with ImageNet's mean and deviation.
    """

    name: str
    prefix: str
    others: tuple[str, ...] = ()
    needs: str = ""
    own_normalisation: bool = False


_MOMENTUM = ("momentum_encoder.", "encoder_k.", "queue", "center")
_PROJECTORS = ("projector", "predictor", "projection_head", "prediction_head", "prototypes")
_LIGHTLY = (
    *_PROJECTORS,
    *("backbone_momentum.", "projection_head_momentum.", "student_", "teacher_", "criterion."),
)
# The first one whose prefix is there is taken: the more special come first.
LAYOUTS = (
    Layout("MoCo v3", "base_encoder.", (*_MOMENTUM, *_PROJECTORS)),
    Layout("MoCo", "encoder_q.", _MOMENTUM),
    Layout("lightly, teacher", "teacher_backbone.", _LIGHTLY),
    Layout("lightly, student", "student_backbone.", _LIGHTLY),
    Layout("CLeVER", "backbone.", ("head.", "head2."), needs="head2."),
    Layout("DINO", "backbone.", ("head.",), needs="head."),
    Layout("lightly", "backbone.", _LIGHTLY),
    Layout("SimSiam", "encoder.", (*_PROJECTORS, *_MOMENTUM), needs="predictor"),
    Layout("", "", own_normalisation=True),
)


# What may stand beside a network under a prefix of its own, as in a module of Lightning.
_BESIDE = (*_HEADS, *_PROJECTORS, "criterion.")


@dataclass(frozen=True)
class Found:
    """A backbone's tensors under the names of its training code.

    Attributes:
        layout: Whose code that is.
        tensors: The backbone's, without prefix and heads.
        left_out: Names of those that are no part of it.
    """

    layout: Layout
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...]


def find_backbone(
    tensors: Mapping[str, Tensor], expected: Collection[str], ignore: Sequence[str] = ()
) -> Found:
    """Recognise a layout, and take the backbone out of it.

    Args:
        tensors: The checkpoint's.
        expected: Names in timm's model, which are no head's.
        ignore: Regular expressions of further names to leave out, as they stand in the file.

    Returns:
        The backbone's tensors.

    Raises:
        ModelFormatError: When a tensor is neither of the backbone nor of a known other part, or
            there are several whole networks.
        ConfigError: When one of ``ignore`` is no regular expression.

    Example:
        >>> import torch
        >>> state = {"module.encoder_q.conv1.weight": torch.ones(1), "module.queue": torch.ones(1)}
        >>> found = find_backbone(state, ["conv1.weight"])
        >>> found.layout.name, list(found.tensors), found.left_out
        ('MoCo', ['conv1.weight'], ('module.queue',))
    """
    patterns = [_pattern(text) for text in ignore]
    ignored = [name for name in tensors if any(pattern.search(name) for pattern in patterns)]
    named = {name: _unwrapped(name) for name in tensors if name not in ignored}
    layout = _recognised(named.values())
    if not layout.prefix and (prefix := _own_prefix(set(named.values()), expected)):
        name = f"a network under {prefix!r}"
        layout = Layout(name, prefix, _BESIDE, own_normalisation=layout.own_normalisation)
    inside: dict[str, Tensor] = {}
    left_out, unknown = list(ignored), []
    for name, plain in named.items():
        if plain.startswith(layout.prefix):
            inner = _unwrapped(plain.removeprefix(layout.prefix))
            if inner.startswith(_HEADS) and inner not in expected:
                left_out.append(name)
            else:
                inside[inner] = tensors[name]
        elif plain.startswith(layout.others):
            left_out.append(name)
        else:
            unknown.append(name)
    if unknown:
        raise ModelFormatError(
            f"The names look like those of {layout.name} (backbone under {layout.prefix!r}), but "
            f"{len(unknown)} tensors are neither the backbone's nor a known head's: "
            f"{', '.join(unknown[:20])}{' …' if len(unknown) > 20 else ''}. Leave out what is no "
            "part of the backbone with --ignore REGEX"
        )
    return Found(layout, inside, tuple(left_out))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(f"--ignore: {text!r} is no regular expression: {error}") from error


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _recognised(names: Iterable[str]) -> Layout:
    known = list(names)
    # torchvision's vision transformers have an encoder of their own kind.
    torchvision = any(name.startswith("encoder.layers.encoder_layer_") for name in known)
    for layout in LAYOUTS:
        there = any(name.startswith(layout.prefix) for name in known)
        needed = any(name.startswith(layout.needs) for name in known)
        if there and needed and not (torchvision and layout.prefix == "encoder."):
            return layout
    return LAYOUTS[-1]


def _own_prefix(names: Collection[str], expected: Collection[str]) -> str:
    """What somebody's module calls its network, with a dot; nothing where names begin with none.

    Either the network's tensors are all there under it, or every tensor of the file is.
    """
    wanted = [name for name in expected if not name.endswith("num_batches_tracked")]
    if not wanted or any(name in names for name in wanted):
        return ""
    first = f".{wanted[0]}"
    ends = {name.removesuffix(first) + "." for name in names if name.endswith(first)}
    whole = sorted(end for end in ends if all(f"{end}{name}" in names for name in wanted))
    if len(whole) > 1:
        raise ModelFormatError(
            f"The file has {len(whole)} whole networks, under {', '.join(map(repr, whole))}. Leave "
            f"out all but one: --ignore '^{re.escape(whole[-1])}'"
        )
    shared = os.path.commonprefix([*names]).rpartition(".")  # noqa: RUF071 -- names, no paths
    if whole or shared[0].partition(".")[0] in {name.partition(".")[0] for name in expected}:
        return "".join(whole)
    return shared[0] + shared[1]
