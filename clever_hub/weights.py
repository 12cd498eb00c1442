"""Read ``model.safetensors``: checked before anything is allocated, never unpickled.

The header is read here rather than with the safetensors library for two reasons: the light install
needs it without torch, and hash, header and tensors must come from one opened file, because a
training run may replace it at any moment. The format is described at
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from clever_hub.errors import ModelFormatError

WEIGHTS_NAME = "model.safetensors"
DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I64": np.dtype("<i8"),
}
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in the header.

    Attributes:
        dtype: A key of ``DTYPES``.
        shape: Its shape; empty for a scalar.
        offset: Position of its first byte in the file.
        size: How many bytes it has.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


class Weights:
    """An opened ``model.safetensors``, its header checked.

    Attributes:
        path: The file.
        entries: Every tensor in the header, by name.
        size: Size of the file in bytes.

    Example:
        >>> weights = Weights("clever-resnet18/model.safetensors")  # doctest: +SKIP
        >>> weights.entries["conv1.weight"].shape  # doctest: +SKIP
        (64, 3, 7, 7)
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file and check its header.

        Raises:
            ModelFormatError: When the file is missing, truncated or no safetensors file.
        """
        self.path = Path(path)
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise ModelFormatError(
                f"{self.path}: expected the model's weights, cannot open: {error.strerror}"
            ) from error
        try:
            self.size = self._file.seek(0, 2)
            self.entries = _read_header(self._file, self.size)
        except ModelFormatError as error:
            self._file.close()
            raise ModelFormatError(
                f"{self.path}: {error}. The file is corrupt or incomplete; fetch it again"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Compare names and shapes with those of the model.

        Args:
            expected: The shape of every tensor of the model, by name.

        Raises:
            ModelFormatError: Lists what is missing, what is unexpected, and every wrong shape.
        """
        found = {name: entry.shape for name, entry in self.entries.items()}
        check_shapes(str(self.path), found, expected)

    @property
    def parameters(self) -> int:
        """How many numbers were trained: all but BatchNorm's statistics."""
        counted = (
            math.prod(entry.shape)
            for name, entry in self.entries.items()
            if not name.endswith(_STATISTICS)
        )
        return sum(counted)

    def sha256(self) -> str:
        """SHA-256 of the whole file, in hexadecimal."""
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Every tensor, mapped from the file: pages are read when they are touched.

        Returns:
            Arrays in the stored dtype. Writing to them does not change the file.
        """
        # Little-endian on disk; copy-on-write, so that torch gets writable memory.
        mapped = np.memmap(self._file, dtype=np.uint8, mode="c")
        return {
            name: mapped[entry.offset : entry.offset + entry.size]
            .view(DTYPES[entry.dtype])
            .reshape(entry.shape)
            for name, entry in self.entries.items()
        }


def check_shapes(
    what: str,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Compare the tensors of a file with those of a model.

    Args:
        what: Name of the weights in the message.
        found: The shapes in the file, by name.
        expected: The shapes that the model has, by name.

    Raises:
        ModelFormatError: Lists what is missing, what is unexpected, and every wrong shape.
    """
    wrong = [
        f"{name} expected {list(expected[name])}, got {list(found[name])}"
        for name in sorted(found.keys() & expected.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    problems = [
        *_some("missing", sorted(expected.keys() - found.keys())),
        *_some("unexpected", sorted(found.keys() - expected.keys())),
        *_some("wrong shape", wrong),
    ]
    if problems:
        raise ModelFormatError(
            f"{what}: the weights do not fit the model that config.json describes\n  "
            + "\n  ".join(problems)
        )


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(label: str, names: list[str], limit: int = 20) -> Iterable[str]:
    if names:
        more = f", … ({len(names)} in all)" if len(names) > limit else ""
        yield f"{label}: {', '.join(names[:limit])}{more}"


def _read_header(file: BufferedReader, size: int) -> dict[str, TensorEntry]:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        raise ModelFormatError(
            f"expected a safetensors file; its header would be {length} bytes, the file has {size}"
        )
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelFormatError("the header is not a JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(name, value, 8 + length) for name, value in header.items()}
    _check_layout(entries, 8 + length, size)
    return entries


def _entry(name: str, value: object, start: int) -> TensorEntry:
    try:
        assert isinstance(value, dict)
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"{shape}, {begin}, {end}")
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"the header's entry for {name} is malformed") from error
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelFormatError(f"{name}: expected one of {', '.join(DTYPES)}, got dtype {dtype!r}")
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ModelFormatError(
            f"{name}: {end - begin} bytes do not hold shape {shape} of dtype {dtype}"
        )
    return TensorEntry(dtype, tuple(shape), start + begin, end - begin)


def _check_layout(entries: Mapping[str, TensorEntry], start: int, size: int) -> None:
    """Tensors must lie end to end and fill the file; a truncated file fails this."""
    position = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset != position:
            raise ModelFormatError(f"{name} begins at byte {entry.offset}, not {position}")
        position += entry.size
    if position != size:
        raise ModelFormatError(f"expected {position} bytes, the file has {size}")
