"""Export a fine-tuned classifier for ONNX Runtime: images in, logits out.

``clever-hub finetune`` writes a folder for transformers: the backbone's weights under timm's names
and a linear head in the same file. The graph refers to that file, as a model's does.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clever_export.onnx import HEAD, trace_shared, write_graph
from clever_export.package import AUTO_MAP, PROCESSOR_NAME, copy_model
from clever_export.progress import Report, silent
from clever_export.verify import BATCH_SIZES, TOLERANCE, pictures
from clever_hub.backends.own import remote_code
from clever_hub.backends.torch import CleverModel, expected_shapes
from clever_hub.backends.variants import GRAPH_NAME, PIXEL_VALUES
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import write_json, write_text
from clever_hub.images.preparing import Preprocessor
from clever_hub.weights import WEIGHTS_NAME, Weights

ARCHITECTURE = "CleverForImageClassification"
LOGITS = "logits"
_FIGURES_NAME = "finetune.json"


class Classifier(nn.Module):
    """A backbone, and a linear head on its embedding or on one part of that.

    Args:
        config: The backbone's.
        part: What the head sees: ``full``, ``invariant`` or ``equivariant``.
        classes: How many outputs it has.

    Raises:
        ModelFormatError: When there is no such part, or timm cannot build the backbone.
    """

    def __init__(self, config: ModelConfig, part: str, classes: int) -> None:
        super().__init__()
        cut = config.invariant_dim
        parts = {"full": slice(None), "invariant": slice(cut), "equivariant": slice(cut, None)}
        widths = {"full": config.num_features, "invariant": cut}
        widths |= {"equivariant": config.equivariant_dim} if config.equivariant_dim else {}
        if part not in widths:
            raise ModelFormatError(f"head_input: expected one of {', '.join(widths)}, got {part!r}")
        self.backbone = CleverModel(config).backbone
        self.clever_head = nn.Linear(widths[part], classes)
        self.columns = parts[part]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The logits (batch, classes) of prepared images (batch, 3, height, width)."""
        embedding = self.backbone(pixel_values)  # (batch, num_features)
        logits: Tensor = self.clever_head(embedding[:, self.columns])
        return logits


@dataclass(frozen=True)
class _Loaded:
    """A classifier's folder, read.

    Attributes:
        network: With the folder's weights, in eval mode.
        content: The folder's config.json, complete.
        config: The backbone's part of it.
    """

    network: Classifier
    content: dict[str, Any]
    config: ModelConfig


def is_classifier(folder: Path) -> bool:
    """Whether a folder is a classifier's, by its config.json.

    Args:
        folder: A folder; where its config cannot be read, other readers say why.
    """
    try:
        content = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, Mapping) and content.get("architectures") == [ARCHITECTURE]


def export_classifier(source: str | Path, target: str | Path, *, report: Report = silent) -> Path:
    """Write a classifier's folder with a graph for ONNX Runtime, and compare the two.

    Args:
        source: A folder that ``clever-hub finetune`` or transformers' ``save_pretrained`` wrote.
        target: An empty folder. It gets model.onnx, the weights, config.json with ``id2label`` and
            ``preprocessing``, and what transformers reads.
        report: Called with each step.

    Returns:
        The path of model.onnx. Input ``pixel_values``, float32 (batch, 3, size, size), as the
        preprocessor makes it; output ``logits``, float32 (batch, classes).

    Raises:
        ModelFormatError: When the folder is damaged, or the graph computes other logits than torch.

    Example:
        >>> export_classifier("tuned", "tuned-onnx")  # doctest: +SKIP
    """
    source, target = Path(source), Path(target)
    report("reading the classifier", 0, 0)
    loaded = _load(source)
    copy_model(source, target)
    if (source / _FIGURES_NAME).is_file():
        shutil.copyfile(source / _FIGURES_NAME, target / _FIGURES_NAME)
    write_json(target / CONFIG_NAME, loaded.content)
    write_json(target / PROCESSOR_NAME, loaded.config.preprocessing.to_dict())
    for name, code in remote_code(loaded.config.architecture).items():
        write_text(target / name, code)
    report("tracing the graph", 0, 0)
    size = loaded.config.preprocessing.crop_size
    graph = trace_shared(loaded.network, size, (LOGITS,))
    path = write_graph(graph, target, loaded.content)
    report("comparing it with torch", 0, 0)
    _compare(loaded, path)
    return path


def _load(folder: Path) -> _Loaded:
    """Read a classifier strictly: every tensor of the backbone and the head, and no other."""
    path = folder / CONFIG_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = ModelConfig.from_dict({**content, "architectures": ["CleverModel"]})
        with Weights(folder / WEIGHTS_NAME) as weights:
            weight = weights.entries.get(f"{HEAD}weight")
            if weight is None or len(weight.shape) != 2:
                raise ModelFormatError(
                    f"{weights.path}: expected a classification head, {HEAD}weight. Load the "
                    "folder with AutoModelForImageClassification and save it again"
                )
            classes = weight.shape[0]
            network = Classifier(config, str(content.get("head_input", "full")), classes)
            head = {f"{HEAD}{k}": tuple(v.shape) for k, v in network.clever_head.named_parameters()}
            weights.check({**expected_shapes(config), **head})
            _fill(network, weights)
    except ModelFormatError as error:
        named = str(folder) in str(error)
        raise error if named else ModelFormatError(f"{path}: {error}") from error
    content |= {
        "id2label": _labels(path, content.get("id2label"), classes),
        "auto_map": AUTO_MAP,
    }
    return _Loaded(network.eval(), content, config)


def _fill(network: Classifier, weights: Weights) -> None:
    tensors = {
        name if name.startswith(HEAD) else f"backbone.{name}": torch.from_numpy(array)
        for name, array in weights.tensors().items()
    }
    if bad := sorted(n for n, tensor in tensors.items() if not torch.isfinite(tensor).all()):
        raise ModelFormatError(f"{weights.path}: not finite: {', '.join(bad[:20])}")
    network.load_state_dict(tensors, strict=True)


def _labels(path: Path, found: object, classes: int) -> dict[str, str]:
    """The name of each class, by its number; transformers leaves out its own names of two."""
    wanted = [str(number) for number in range(classes)]
    if found is None:
        return {number: f"LABEL_{number}" for number in wanted}
    if not isinstance(found, Mapping) or sorted(found) != sorted(wanted):
        raise ModelFormatError(
            f"{path}: id2label: expected a name for each of the head's {classes} outputs, from "
            f"'0' on, got {found!r}"
        )
    return {number: str(found[number]) for number in wanted}


def _compare(loaded: _Loaded, graph: Path) -> None:
    """Refuse a graph whose logits differ from torch's, on pictures as they come from files."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    with tempfile.TemporaryDirectory() as temporary:
        prepare = Preprocessor(loaded.config.preprocessing)
        pixels = prepare.batch(pictures(Path(temporary)))
    with torch.inference_mode():
        expected: NDArray[np.float32] = loaded.network(torch.from_numpy(pixels)).numpy()
    # Of logits, unlike of embeddings, the scale is not known.
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    for size in BATCH_SIZES:
        found = _run(session, [pixels[at : at + size] for at in range(0, len(pixels), size)])
        difference = float(np.abs(found - expected).max())
        if not difference <= allowed:  # NaN is no agreement
            raise ModelFormatError(
                f"{graph.parent}: expected the logits of torch within {allowed:.2g}, those of "
                f"{GRAPH_NAME} differ by {difference:.2g} in batches of {size}. Export again; if "
                "it stays so, report the architecture, "
                f"{loaded.config.architecture}, and the versions of torch and onnxruntime"
            )


def _run(
    session: onnxruntime.InferenceSession, batches: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    found = [session.run([LOGITS], {PIXEL_VALUES: batch})[0] for batch in batches]
    return np.concatenate(found)
