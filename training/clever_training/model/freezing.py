"""Frozen parts of a backbone: its first stages, or its BatchNorm."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.drop import DropPath
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clever_hub.errors import ConfigError


class FrozenBatchNorm(nn.Module):
    """BatchNorm that uses its running statistics also in training; tensors keep their names.

    It is deliberately no sub-class of BatchNorm, so that code which changes a model's BatchNorm
    layers, such as sharing their statistics among processes, does not touch it.
    """

    def forward(self, input: Float[Tensor, "batch channels *rest"]) -> Tensor:  # noqa: A002 -- torch's name
        """The normalised inputs."""
        norm = self._parameters | self._buffers
        result = F.batch_norm(
            input,
            norm["running_mean"],
            norm["running_var"],
            norm["weight"],
            norm["bias"],
            training=False,
            eps=self.__dict__["eps"],
        )
        for name in ("drop", "act"):  # timm's BatchNorm with activation
            if name in self._modules:
                result = self.get_submodule(name)(result)
        return result


def freeze_all_but(backbone: nn.Module, trainable: str) -> list[str]:
    """Freeze all but the last stages of a backbone: weights and BatchNorm's statistics.

    The stages are timm's: a ResNet has the stem and four stages, a ViT the patch embedding and its
    blocks. Later layers without a weight matrix, such as a final norm, belong to the last stage.

    Args:
        backbone: A timm model, changed in place; parameters and buffers keep their names.
        trainable: ``all``, or ``last-N-stages``.

    Returns:
        Names of the trainable parameters.

    Raises:
        ConfigError: When it has at most N stages, or timm does not know its stages.

    Example:
        >>> import timm
        >>> learning = freeze_all_but(timm.create_model("resnet18", num_classes=0), "last-1-stages")
        >>> learning[0]
        'layer4.0.conv1.weight'
    """
    named = dict(backbone.named_parameters())
    if trainable == "all":
        return list(named)
    stages = _stages(backbone)
    count = int(trainable.split("-")[1])
    if count >= len(stages):
        raise ConfigError(
            f"backbone.trainable: {trainable}, but {type(backbone).__name__} has {len(stages)} "
            f"stages. Use at most last-{len(stages) - 1}-stages, or all"
        )
    frozen = {name for stage in stages[:-count] for name in stage}
    for name in frozen:
        named[name].requires_grad_(False)
    for part in backbone.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            _settle(part)
    return [name for name in named if name not in frozen]


def freeze_batch_norm(backbone: nn.Module) -> None:
    """Keep BatchNorm's statistics as they are, in training too; its scale and offset still learn.

    Args:
        backbone: Changed in place. Names of parameters and buffers stay.
    """
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = FrozenBatchNorm  # type: ignore[assignment]


def _stages(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters of each stage."""
    try:
        groups = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
    except AttributeError as error:
        raise ConfigError(
            f"backbone.trainable: timm names no stages of {type(backbone).__name__}. Use all"
        ) from error
    stages = [list(groups[key]) for key in sorted(groups)]
    named = dict(backbone.named_parameters())
    while len(stages) > 1 and all(named[name].ndim <= 1 for name in stages[-1]):
        tail = stages.pop()
        stages[-1] += tail
    return stages


def _settle(part: nn.Module) -> None:
    """Make layers that differ in training mode always behave as in evaluation mode."""
    for module in part.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = FrozenBatchNorm  # type: ignore[assignment]
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
