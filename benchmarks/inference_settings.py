"""What ``inference.py`` measures, and where it keeps the figures for ``inference_report.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

REFERENCE, ONNX = "timm eager", "clever_hub onnx"
SETTINGS = [(name, size) for name in ("resnet18", "resnet50") for size in (64, 224)]


@dataclass
class Measured:
    """Figures of one contender in one setting, a list entry for each round.

    Attributes:
        model: Images/s of the model alone.
        files: Images/s from file to vector.
        memory: Resident bytes after all rounds.
        failure: Why it was not measured; empty when it was.
    """

    model: list[float] = field(default_factory=list)
    files: list[float] = field(default_factory=list)
    memory: int = 0
    failure: str = ""


@dataclass
class Setting:
    """A model, an image size and a batch size, with the figures of every contender.

    Attributes:
        architecture: timm's name.
        size: Side of the images in pixels.
        batch: Images in a batch.
        contenders: Figures by name.
        decode: Images/s of reading files and preparing images alone, with all threads.
    """

    architecture: str
    size: int
    batch: int
    contenders: dict[str, Measured] = field(default_factory=dict)
    decode: list[float] = field(default_factory=list)
