"""Export an ONNX graph that has no weights of its own but refers to the safetensors file.

ONNX stores large initialisers as external data: a file, an offset and a length. safetensors stores
its tensors uncompressed, one after the other. So ``model.onnx`` can refer to the bytes that every
other reader loads, and there is only one copy of the weights. Matrices stored as float16 pass
through a Cast that ONNX Runtime folds once, at load.

The exporter's optimiser rewrites weights, so it is switched off. The other simplifications that it
would make are done here, because ONNX Runtime fuses a convolution with its batch norm only when the
convolution's bias is a constant or absent.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import optimizer
from torch import Tensor, nn

from clever_hub.backends.onnx import CONFIG_KEY
from clever_hub.backends.torch import CleverModel
from clever_hub.backends.variants import GRAPH_NAME, HASH_KEY, MAX_GRAPH_BYTES, PIXEL_VALUES
from clever_hub.embeddings import split
from clever_hub.errors import ModelFormatError
from clever_hub.files import atomic_path
from clever_hub.weights import WEIGHTS_NAME, Weights

OPSET = 20
# Initialisers that are not in the weights file are shapes, axes and tables, such as the relative
# positions of a Swin. All of them together leave room for the nodes, below MAX_GRAPH_BYTES.
_MAX_INLINE_BYTES = 500_000
_OWN_WEIGHTS = "`clever-hub export … --single-file` writes a graph with weights of its own"
_PREFIX = "backbone."
HEAD = "clever_head."  # of a classifier: under the same name in the weights file
_WEIGHTS = (_PREFIX, HEAD)
_PARTS = ("invariant", "equivariant")


class _Exported(nn.Module):
    """The function to export, with the two parts as two outputs."""

    def __init__(self, model: CleverModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.invariant_dim = model.config.invariant_dim

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.backbone(pixel_values)
        return split(embedding, self.invariant_dim)


def export_onnx(folder: str | Path) -> Path:
    """Write ``model.onnx`` into a model folder.

    Args:
        folder: A model folder; its weights are not changed.

    Returns:
        The path of model.onnx. Input ``pixel_values``, float32 (batch, 3, size, size), as the
        preprocessor makes it; outputs ``invariant`` and ``equivariant``, float32.

    Raises:
        ModelFormatError: When a weight of the graph differs from the weights file, or the graph is
            so large that it must contain weights.

    Example:
        >>> export_onnx("runs/mine/model")  # doctest: +SKIP
    """
    folder = Path(folder)
    model = CleverModel.from_folder(folder)
    graph = trace_shared(_Exported(model), model.config.preprocessing.crop_size, _PARTS)
    return write_graph(graph, folder, model.config.to_dict())


def write_graph(graph: Any, folder: Path, config: Mapping[str, Any]) -> Path:
    """Write a graph beside the weights file that it refers to.

    Args:
        graph: As ``trace_shared`` gives it; changed.
        folder: A folder with the weights.
        config: The content of config.json, which goes into the graph's metadata.

    Returns:
        The path of model.onnx.

    Raises:
        ModelFormatError: As for ``export_onnx``.
    """
    with Weights(folder / WEIGHTS_NAME) as weights:
        _point_into(graph, weights)
        metadata = {HASH_KEY: weights.sha256(), CONFIG_KEY: json.dumps(config)}
    helper.set_model_props(graph, metadata)
    content = graph.SerializeToString(deterministic=True)
    if len(content) >= MAX_GRAPH_BYTES:
        raise ModelFormatError(
            f"{folder}: expected a graph below {MAX_GRAPH_BYTES:,} bytes, got {len(content):,}. "
            f"It carries data that is not in the weights file. {_OWN_WEIGHTS}"
        )
    with atomic_path(folder / GRAPH_NAME) as temporary:
        temporary.write_bytes(content)
    return folder / GRAPH_NAME


def trace_shared(module: nn.Module, size: int, outputs: Sequence[str]) -> Any:
    """The graph by torch's exporter, unoptimised: optimising rewrites weights.

    Args:
        module: From prepared images to the outputs; its tensors are the weights file's.
        size: Side of the images in pixels.
        outputs: Names of the outputs.

    Returns:
        As ``trace``.
    """
    # Two images: an exporter may take a batch of one for a constant.
    example = torch.zeros(2, 3, size, size)
    return trace(module, example, PIXEL_VALUES, fold=_fold_all_but_weights, outputs=outputs)


def trace(
    module: nn.Module,
    example: Tensor,
    input_name: str,
    fold: Callable[[Any], None],
    outputs: Sequence[str] = _PARTS,
) -> Any:
    """Trace a module; the batch dimension is dynamic.

    Args:
        module: From a batch to the outputs.
        example: A batch of two.
        input_name: Name of the graph's input.
        fold: Simplifies the onnx_ir model in place.
        outputs: Names of the outputs.

    Returns:
        The onnx.ModelProto with its weights, without paths of this machine.
    """
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=[input_name],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        fold(program.model)
        graph = program.model_proto
    _drop_zero_biases(graph)
    _strip(graph)
    return graph


def _fold_all_but_weights(model: Any) -> None:
    """Fold constants and shapes, but no weights."""

    def should_fold(node: Any) -> bool | None:
        reads_weights = any(
            value is not None and value.name.startswith(_WEIGHTS) for value in node.inputs
        )
        return False if reads_weights and node.op_type != "Shape" else None

    optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=should_fold)
    optimizer.remove_unused_nodes(model)


def _drop_zero_biases(graph: Any) -> None:
    """Remove the zeros that the exporter adds to convolutions without a bias."""
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    for node in graph.graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Conv" and node.input[2:] else None
        if bias is None or bias.name.startswith(_WEIGHTS):
            continue
        if not numpy_helper.to_array(bias).any():
            del node.input[2]
    used = {name for node in graph.graph.node for name in node.input}
    kept = [tensor for tensor in graph.graph.initializer if tensor.name in used]
    graph.graph.ClearField("initializer")
    graph.graph.initializer.extend(kept)


def _strip(graph: Any) -> None:
    """Remove the exporter's metadata: most of the file's size, and paths of this machine."""
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
    kept, casts, inline = [], [], 0
    for initializer in graph.graph.initializer:
        name = initializer.name.removeprefix(_PREFIX)
        if not initializer.name.startswith(_WEIGHTS) or name not in weights.entries:
            inline += len(initializer.SerializeToString())
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
    if inline > _MAX_INLINE_BYTES:
        raise ModelFormatError(
            f"the exported graph carries {inline:,} bytes that are not in {weights.path}; it "
            f"cannot share the weights file. {_OWN_WEIGHTS}"
        )
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's and the optimiser's warnings about their own internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check_graph(folder: str | Path) -> None:
    """Run ONNX's own checker on a folder's graph and the weights it points to.

    Args:
        folder: A real folder: the checker refuses symbolic links.

    Raises:
        onnx.checker.ValidationError: When the graph is not valid.
    """
    onnx.checker.check_model(str(Path(folder) / GRAPH_NAME))
