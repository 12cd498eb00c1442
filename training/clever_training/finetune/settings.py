"""The settings of a fine-tuning run, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clever_hub.errors import ConfigError

HEADS = ("full", "invariant", "equivariant")
PRECISIONS = ("auto", "bf16", "fp32")
# Decay per block from the head down. For transformers it is BEiT's (Bao et al. 2021,
# https://arxiv.org/abs/2106.08254, appendix H); a ResNet has more and smaller blocks.
VIT_LAYER_DECAY, CONV_LAYER_DECAY = 0.75, 0.9


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune.

    Attributes:
        head: What the head sees: ``full``, ``invariant`` or ``equivariant``.
        freeze: Train the head alone; the backbone and its BatchNorm statistics do not change.
        share: Share of the training photos to use, drawn evenly from every class; in (0, 1].
        epochs: Passes through these photos.
        batch_size: Photos in a step, per device.
        lr: Learning rate of the head, for AdamW; None is 1e-3, with ``freeze`` 1e-2. The blocks
            below get less, see ``layer_decay``.
        layer_decay: Factor on the learning rate from one block to the block below; None is 0.75
            for transformers (``rates.is_transformer``) and 0.9 for others.
        weight_decay: Weight decay of matrices; biases and norms have none.
        crop_scale: Smallest share of a photo's area that a training crop has; the largest is 1.
        seed: Seed of the head, the order, the crops and the share.
        precision: Of training: ``bf16``, ``fp32``, or ``auto``: bf16 where the hardware supports
            it. Figures are measured in float32.
        workers: Processes that prepare photos; 0 uses the training process.

    Raises:
        ConfigError: When a value is out of range.

    Example:
        >>> FinetuneSettings(freeze=True).learning_rate
        0.01
    """

    head: str = "full"
    freeze: bool = False
    share: float = 1.0
    epochs: int = 10
    batch_size: int = 128
    lr: float | None = None
    layer_decay: float | None = None
    weight_decay: float = 0.05
    crop_scale: float = 0.35
    seed: int = 0
    precision: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        _check("--head", self.head in HEADS, f"one of {', '.join(HEADS)}", self.head)
        _check("--share", 0 < self.share <= 1, "more than 0 and at most 1", self.share)
        _check("--epochs", self.epochs >= 1, "at least 1", self.epochs)
        _check("--batch-size", self.batch_size >= 1, "at least 1", self.batch_size)
        _check("--lr", self.lr is None or self.lr > 0, "more than 0", self.lr)
        decay = self.layer_decay
        _check("--layer-decay", decay is None or 0 < decay <= 1, "in (0, 1]", decay)
        _check("--weight-decay", self.weight_decay >= 0, "0 or more", self.weight_decay)
        _check("--crop-scale", 0 < self.crop_scale <= 1, "in (0, 1]", self.crop_scale)
        _check("--seed", 0 <= self.seed < 2**31, "0 to 2147483647", self.seed)
        known = ", ".join(PRECISIONS)
        _check("--precision", self.precision in PRECISIONS, f"one of {known}", self.precision)
        _check("--workers", self.workers >= 0, "0 or more", self.workers)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the head."""
        return self.lr or (1e-2 if self.freeze else 1e-3)

    @property
    def condition(self) -> str:
        """What was trained on which share, as in finetune.json: ``network/10%``, ``head/1%``."""
        return f"{'head' if self.freeze else 'network'}/{self.share * 100:g}%"

    def decay_for(self, transformer: bool) -> float:
        """The layer decay of a transformer or of another backbone."""
        if self.layer_decay is not None:
            return self.layer_decay
        return VIT_LAYER_DECAY if transformer else CONV_LAYER_DECAY

    @property
    def bf16(self) -> bool:
        """Whether to train in bf16."""
        if self.precision != "auto":
            return self.precision == "bf16"
        from clever_training.runtime.precision import computes_bf16

        return computes_bf16()


def _check(option: str, good: bool, expected: str, value: Any) -> None:
    if not good:
        raise ConfigError(f"{option}: expected {expected}, got {value}")
