"""Variants: model folders that only ONNX Runtime reads, with weights of their own.

``clever-hub export`` makes them for GPUs (float16), for small processors (int8), for programs that
have pixels and no preprocessing, and for tools that need a single file. The entry ``variant`` of
their config.json describes them and has the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import DeviceError, ModelFormatError
from clever_hub.weights import WEIGHTS_NAME, sha256_of

VARIANT_KEY = "variant"
GRAPH_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
# Metadata key of a graph that refers to model.safetensors: the SHA-256 of that file. Such a graph
# is small, because it has no weights of its own.
HASH_KEY = "clever_weights_sha256"
MAX_GRAPH_BYTES = 1_000_000
PRECISIONS = ("fp32", "fp16", "int8")
# Input of a graph: prepared images, or the 8-bit pixels of resized and cropped ones.
PIXEL_VALUES, PIXELS = "pixel_values", "pixels"


@dataclass(frozen=True)
class Variant:
    """Precision and input of a variant's graph.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``int8``.
        input: ``pixel_values``, float32 (batch, 3, size, size), normalised; or ``pixels``, uint8
            (batch, size, size, 3), red green blue.
        files: SHA-256 of the graph and of its weights file, if it has one.
        weight_bits: Of int8: how many bits of a weight are used. Eight need VNNI on x86.
        scales: Of int8: a hash of the graph without its metadata, which has the scales of
            activations; empty of a variant that an earlier version made.
    """

    precision: str
    input: str
    files: Mapping[str, str]
    weight_bits: int = 7
    scales: str = ""

    @classmethod
    def of(cls, config: ModelConfig) -> Self | None:
        """The variant that a config describes; None for a folder with model.safetensors.

        Args:
            config: The content of config.json.

        Returns:
            The variant.

        Raises:
            ModelFormatError: When the entry is malformed.
        """
        entry = config.extra.get(VARIANT_KEY)
        if entry is None:
            return None
        try:
            found = cls(
                entry["precision"],
                entry["input"],
                dict(entry.get("files", {})),
                int(entry.get("weight_bits", 7)),
                str(entry.get("scales", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFormatError(f"{VARIANT_KEY}: malformed ({error!r}): {entry!r}") from error
        known = found.precision in PRECISIONS and found.input in (PIXEL_VALUES, PIXELS)
        known = known and found.weight_bits in (7, 8)
        if not known or not found.files.keys() <= {GRAPH_NAME, DATA_NAME}:
            raise ModelFormatError(
                f"{VARIANT_KEY}: expected a precision of {', '.join(PRECISIONS)}, an input of "
                f"{PIXEL_VALUES} or {PIXELS}, files {GRAPH_NAME}, {DATA_NAME}, weight_bits of 7 "
                f"or 8; got {entry!r}"
            )
        return found

    def check_processor(self) -> None:
        """Refuse a variant that this processor would compute wrongly.

        Raises:
            DeviceError: When the weights have eight bits and sums of their products overflow here,
                or may overflow.
        """
        if self.precision != "int8" or self.weight_bits != 8 or (found := sums_overflow()) is False:
            return
        here = "on this one sums of its products overflow"
        unknown = "whether this one has it is not known: only Linux tells"
        raise DeviceError(
            f"this int8 variant was made for processors with VNNI; {here if found else unknown}. "
            "Export it here: clever-hub export MODEL --precision int8 --images PHOTOS -o FOLDER"
        )

    def check(self, folder: Path) -> str:
        """Compare the files with their hashes in config.json.

        Args:
            folder: The variant's folder.

        Returns:
            SHA-256 of the file that holds the weights.

        Raises:
            ModelFormatError: When a file is missing or has another hash.
        """
        if GRAPH_NAME not in self.files:
            raise ModelFormatError(f"{folder}: {VARIANT_KEY}.files does not name {GRAPH_NAME}")
        for name, expected in self.files.items():
            path = folder / name
            if not path.is_file():
                raise ModelFormatError(f"{path}: no such file. Fetch the folder again")
            if (found := sha256_of(path)) != expected:
                raise ModelFormatError(
                    f"{path}: config.json expects SHA-256 {expected}, got {found}. The file is "
                    "corrupt or from another export; fetch the folder again, or export it again"
                )
        return self.files[self.weights_file(folder).name]

    def known_by(self, folder: Path) -> str:
        """By what the vectors of a folder that ``check`` has passed are known.

        Args:
            folder: The variant's folder.

        Returns:
            SHA-256 of the file that holds the weights. Of int8 it is one over that and ``scales``:
            the scales of activations differ between calibrations, and lie in the graph.
        """
        weights = self.files[self.weights_file(folder).name]
        if not self.scales:
            return weights
        return hashlib.sha256(f"{weights} {self.scales}".encode()).hexdigest()

    def weights_file(self, folder: Path) -> Path:
        """The file that holds the weights."""
        return folder / (DATA_NAME if DATA_NAME in self.files else GRAPH_NAME)

    def describe_input(self, size: int) -> str:
        """The graph's input, as text.

        Args:
            size: Side of the images in pixels.

        Returns:
            Name, type and shape.
        """
        if self.input == PIXELS:
            return f"{PIXELS}, uint8 (batch, {size}, {size}, 3), red green blue"
        return f"{PIXEL_VALUES}, float32 (batch, 3, {size}, {size}), normalised"

    def feed(
        self, pixel_values: NDArray[np.float32], preprocessing: PreprocessingConfig
    ) -> dict[str, NDArray[Any]]:
        """The inputs of a session.

        Args:
            pixel_values: float32 (batch, 3, size, size), normalised.
            preprocessing: How they were made from pixels.

        Returns:
            Inputs by name. For ``pixels`` the normalisation is undone, which gives exactly the
            original pixels: float32 is precise enough to round to 256 levels.

        Example:
            >>> config = PreprocessingConfig(2, 2)
            >>> black = -np.asarray(config.mean, np.float32) / np.asarray(config.std, np.float32)
            >>> images = np.broadcast_to(black[:, None, None], (1, 3, 2, 2))
            >>> Variant("fp32", "pixels", {}).feed(images, config)["pixels"].max()
            np.uint8(0)
        """
        if self.input == PIXEL_VALUES:
            return {PIXEL_VALUES: np.ascontiguousarray(pixel_values)}
        mean = np.asarray(preprocessing.mean, np.float32)
        std = np.asarray(preprocessing.std, np.float32)
        levels = (pixel_values.transpose(0, 2, 3, 1) * std + mean) * np.float32(255)  # NHWC
        return {PIXELS: np.rint(levels).clip(0, 255).astype(np.uint8)}

    def entry(self, **more: Any) -> dict[str, Any]:
        """The entry of config.json.

        Args:
            **more: Figures and origin. They are information for users and not read back.

        Returns:
            Ready for JSON.
        """
        return {
            "precision": self.precision,
            "input": self.input,
            "files": dict(self.files),
            **({"scales": self.scales} if self.scales else {}),
            **more,
        }

    def with_files(self, folder: Path) -> Self:
        """The same with the hashes of a folder's files."""
        names = [name for name in (GRAPH_NAME, DATA_NAME) if (folder / name).is_file()]
        return replace(self, files={name: sha256_of(folder / name) for name in names})


def check_graph_beside(folder: Path, digest: str) -> None:
    """Refuse a weights file that has changed since the graph beside it was made.

    Args:
        folder: A model folder, with or without a graph.
        digest: SHA-256 of its weights file.

    Raises:
        ModelFormatError: When the graph names the hash of another file.
    """
    graph = folder / GRAPH_NAME
    if not graph.is_file() or graph.stat().st_size > MAX_GRAPH_BYTES:
        return
    # The graph holds the hash as text; searching for it avoids a dependency on onnx. A graph
    # without the key was made by another tool and says nothing about the weights file.
    content = graph.read_bytes()
    if HASH_KEY.encode() in content and digest.encode() not in content:
        raise ModelFormatError(
            f"{folder / WEIGHTS_NAME}: changed since {GRAPH_NAME} beside it was made, or damaged. "
            f"Fetch the folder again; or, if these weights are meant, remove {GRAPH_NAME}, and "
            "export the folder again for the other readers"
        )


def sums_overflow() -> bool | None:
    """Whether this processor adds pairs of 8-bit products in 16 bits, which is too few.

    x86 processors without VNNI do (https://onnxruntime.ai/docs/performance/model-optimizations/
    quantization.html, "When and why do I need to try U8U8?").

    Returns:
        None where it is not known: x86 without /proc/cpuinfo.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
