"""A model repository for NVIDIA's Triton Inference Server.

    DIR/clever-resnet18/config.pbtxt    what Triton is told about the model
    DIR/clever-resnet18/1/model.onnx    the graph with its weights, version 1
    DIR/clever-resnet18/LICENSE         where the model has one

The graph takes uint8 pixels and normalises them, so that a client sends a third of the bytes and
needs no numbers of the model's but its size.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from clever_export.package import copy_license, new_folder
from clever_export.progress import Report, silent
from clever_export.quantize import Fidelity
from clever_export.variants import export_variant
from clever_hub.backends.variants import GRAPH_NAME, PIXELS
from clever_hub.config import ModelConfig
from clever_hub.errors import ConfigError, ModelFormatError
from clever_hub.files import write_text

CONFIG_NAME = "config.pbtxt"
VERSION = "1"
DEVICES = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
# Triton reads the name as that of a folder, a field of protobuf text and a part of addresses.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export_triton(
    model_folder: str | Path,
    repository: str | Path,
    *,
    device: str = "auto",
    max_batch: int = 32,
    precision: str = "fp32",
    images: Iterable[str | Path] = (),
    force: bool = False,
    report: Report = silent,
) -> tuple[Path, Fidelity | None]:
    """Add a model to a model repository of Triton.

    Args:
        model_folder: The model folder; it is only read.
        repository: The folder that ``tritonserver --model-repository`` names; created when
            missing.
        device: ``"auto"``: instances on the GPUs where there are some, else on the CPU; ``"cpu"``
            or ``"gpu"``: there and nowhere else.
        max_batch: Most images that Triton puts into one batch.
        precision: As for ``export_variant``, but int8 has 7 bits of the weights: Triton does not
            check its processor. Of another than ``"fp32"``, the name says so.
        images: As for ``export_variant``.
        force: As for ``export_variant``.
        report: Called with each step and its progress.

    Returns:
        The folder ``repository/NAME``, and how faithful the graph is; None without images.

    Raises:
        ConfigError: When an option is wrong, or the repository has a model of this name.
        ModelFormatError: When the model's name is none for Triton; or as for ``export_variant``.
        DataError: As for ``export_variant``.

    Example:
        >>> export_triton("my-model", "triton")  # doctest: +SKIP
        (PosixPath('triton/my-model'), None)
    """
    if device not in DEVICES:
        raise ConfigError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if max_batch < 1:
        raise ConfigError(f"max_batch: expected 1 or more, got {max_batch}")
    config = ModelConfig.load(model_folder)
    name = config.name if precision == "fp32" else f"{config.name}-{precision}"
    if not _NAME.fullmatch(name):
        raise ModelFormatError(f"name: expected letters, digits, '.', '_' and '-', got {name!r}")
    folder = Path(repository) / name
    with new_folder(folder, "--triton") as temporary, tempfile.TemporaryDirectory() as made:
        measured = export_variant(
            model_folder,
            made,
            precision=precision,
            with_preprocessing=True,
            single_file=True,
            images=images,
            force=force,
            any_processor=True,
            report=report,
        )
        copy_license(Path(model_folder), temporary)
        write_text(temporary / CONFIG_NAME, config_text(config, name, device, max_batch))
        (temporary / VERSION).mkdir()
        target = temporary / VERSION / GRAPH_NAME
        target.write_bytes((Path(made) / GRAPH_NAME).read_bytes())
    return folder, measured


def config_text(config: ModelConfig, name: str, device: str, max_batch: int) -> str:
    """What ``config.pbtxt`` says: the message ModelConfig of Triton, in protobuf's text form.

    Args:
        config: The model's.
        name: What requests call it, and what its folder is called.
        device: One of ``DEVICES``.
        max_batch: Most images of a batch.

    Returns:
        The text. Source: triton-inference-server/common, protobuf/model_config.proto.
    """
    preprocessing = config.preprocessing
    size, provenance = preprocessing.crop_size, config.provenance
    lengths = {"invariant": config.invariant_dim, "equivariant": config.equivariant_dim}
    outputs = ",\n".join(
        f'  {{ name: "{part}" data_type: TYPE_FP32 dims: [ {length} ] }}'
        for part, length in lengths.items()
        if length
    )
    return f"""\
# {config.name}: {config.architecture}, trained on {_comment(provenance.get("data", "unknown"))}
# Input: RGB photos, the shortest side resized to {preprocessing.resize_size} pixels \
({preprocessing.interpolation}, antialiased),
# the middle {size} x {size} pixels of it, uint8. The graph normalises them.
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{ name: "{PIXELS}" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }}
]
output [
{outputs}
]
# KIND_AUTO: on the GPUs where there are some, else on the CPU. KIND_GPU and KIND_CPU: there only.
instance_group [
  {{ kind: {DEVICES[device]} count: 1 }}
]
# Requests that come within 4 ms of each other go through the network together. What does not find
# room in the queue, or waits for 30 s, is refused at once rather than answered late.
dynamic_batching {{
  max_queue_delay_microseconds: 4000
  default_queue_policy {{
    max_queue_size: 256
    default_timeout_microseconds: 30000000
    timeout_action: REJECT
  }}
}}
# One batch before the first request: the first run of a session is the slow one.
model_warmup [
  {{
    name: "black"
    batch_size: 1
    inputs {{
      key: "{PIXELS}"
      value: {{ data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] zero_data: true }}
    }}
  }}
]
"""


def _comment(text: object) -> str:
    """A stranger's text on one line."""
    return " ".join(str(text).split())[:200]
