"""ONNX whose weights are the safetensors file: the graph alone, pointing into it by offset.

ONNX stores large initialisers as external data: a file, an offset, a length. safetensors lays its
tensors out uncompressed, one after the other. So ``model.onnx`` can name the very bytes that every
other reader loads, and there is one copy of the weights that nothing can drift from. Matrices
stored as float16 pass through a Cast that ONNX Runtime folds once, at load.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from clever_hub.errors import ModelFormatError
from clever_hub.files import atomic_path
from clever_hub.onnx_model import CONFIG_KEY, GRAPH_NAME, HASH_KEY
from clever_hub.torch_model import CleverModel
from clever_hub.weights import WEIGHTS_NAME, Weights

OPSET = 20
MAX_GRAPH_BYTES = 1_000_000
# What is not in the weights file must be no more than shapes, axes and constants of the formula.
_MAX_INLINE_BYTES = 4_096
_PREFIX = "backbone."


class _Exported(nn.Module):
    """What the graph computes: the two parts as two outputs."""

    def __init__(self, model: CleverModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.split = model.config.invariant_dim

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.backbone(pixel_values)
        return embedding[:, : self.split], embedding[:, self.split :]


def export_onnx(folder: str | Path) -> Path:
    """Write ``model.onnx`` into a model folder.

    Args:
        folder: A model folder; its weights are read, never written.

    Returns:
        The path of model.onnx. Input ``pixel_values``, float32 (batch, 3, size, size), as the
        preprocessor makes it; outputs ``invariant`` and ``equivariant``, float32.

    Raises:
        ModelFormatError: When a weight of the graph is not in the weights file byte for byte, or
            the graph is not small: then it would carry weights of its own.

    Example:
        >>> export_onnx("runs/mine/model")  # doctest: +SKIP
    """
    folder = Path(folder)
    model = CleverModel.from_folder(folder)
    graph = _trace(model)
    _strip(graph)
    with Weights(folder / WEIGHTS_NAME) as weights:
        _point_into(graph, weights)
        metadata = {HASH_KEY: weights.sha256(), CONFIG_KEY: json.dumps(model.config.to_dict())}
    helper.set_model_props(graph, metadata)
    content = graph.SerializeToString(deterministic=True)
    if len(content) >= MAX_GRAPH_BYTES:
        raise ModelFormatError(
            f"{folder}: expected a graph below {MAX_GRAPH_BYTES:,} bytes, got {len(content):,}. "
            "It carries data that is not in the weights file"
        )
    with atomic_path(folder / GRAPH_NAME) as temporary:
        temporary.write_bytes(content)
    return folder / GRAPH_NAME


def _trace(model: CleverModel) -> Any:
    """The graph by torch's exporter, unoptimised: optimising rewrites weights."""
    size = model.config.preprocessing.crop_size
    # Two images: an exporter may take a batch of one for a constant.
    example = torch.zeros(2, 3, size, size)
    with _quiet():
        program = torch.onnx.export(
            _Exported(model).eval(),
            (example,),
            input_names=["pixel_values"],
            output_names=["invariant", "equivariant"],
            dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _strip(graph: Any) -> None:
    """Drop what the exporter notes about itself: most of the size, and paths of this machine."""
    graph.ClearField("functions")
    for part in (graph, graph.graph, *graph.graph.node):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    for values in (graph.graph.input, graph.graph.output, graph.graph.value_info):
        for value in values:
            value.ClearField("metadata_props")
            value.ClearField("doc_string")
    graph.graph.ClearField("value_info")


def _point_into(graph: Any, weights: Weights) -> None:
    """Replace every weight of the graph by a reference into the weights file."""
    tensors = weights.tensors()
    kept, casts = [], []
    for initializer in graph.graph.initializer:
        name = initializer.name.removeprefix(_PREFIX)
        if name == initializer.name or name not in weights.entries:
            _check_inline(initializer, weights)
            kept.append(initializer)
            continue
        stored = tensors[name]
        value = numpy_helper.to_array(initializer)
        if value.tobytes() != stored.astype(value.dtype).tobytes() or value.shape != stored.shape:
            raise ModelFormatError(
                f"{name}: the exported graph holds other values than {weights.path}; "
                "it cannot share the weights file"
            )
        reference = _reference(initializer.name, weights, name)
        if stored.dtype == np.float16:
            reference.name = f"{initializer.name}.float16"
            casts.append(
                helper.make_node("Cast", [reference.name], [initializer.name], to=TensorProto.FLOAT)
            )
        kept.append(reference)
    nodes = list(graph.graph.node)
    graph.graph.ClearField("initializer")
    graph.graph.initializer.extend(kept)
    graph.graph.ClearField("node")
    graph.graph.node.extend([*casts, *nodes])


def _reference(name: str, weights: Weights, key: str) -> Any:
    """A tensor whose bytes are a range of the weights file."""
    entry = weights.entries[key]
    types = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT, "I64": TensorProto.INT64}
    tensor = TensorProto(
        name=name,
        data_type=types[entry.dtype],
        dims=entry.shape,
        data_location=TensorProto.EXTERNAL,
    )
    place = {"location": WEIGHTS_NAME, "offset": str(entry.offset), "length": str(entry.size)}
    for field, value in place.items():
        tensor.external_data.add(key=field, value=value)
    return tensor


def _check_inline(initializer: Any, weights: Weights) -> None:
    size = numpy_helper.to_array(initializer).nbytes
    if size > _MAX_INLINE_BYTES:
        raise ModelFormatError(
            f"{initializer.name}: the exported graph carries {size:,} bytes that are not in "
            f"{weights.path}; it cannot share the weights file"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_graph(folder: str | Path) -> None:
    """Run ONNX's own checker on a folder's graph and the weights it points to.

    Args:
        folder: A real folder: the checker refuses symbolic links.

    Raises:
        onnx.checker.ValidationError: When the graph is not valid.
    """
    onnx.checker.check_model(str(Path(folder) / GRAPH_NAME))
