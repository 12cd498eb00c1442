"""Write variants: folders that only ONNX Runtime reads, with weights of their own.

``model.onnx`` of a model folder refers to the weights file that every reader shares. The graph of a
variant has its own weights: in half precision for GPUs, in int8 for small processors, with the
normalisation in the graph for programs that have only pixels, or in a single file for tools that do
not read external data.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from numpy.typing import NDArray
from onnx import helper
from onnxscript import optimizer
from torch import Tensor, nn

from clever_export.onnx import trace
from clever_export.package import check_processor, copy_license
from clever_export.progress import Report, silent
from clever_export.quantize import Fidelity, fidelity, finite_parts, quantize
from clever_export.verify import pictures
from clever_hub.backends.onnx import CONFIG_KEY
from clever_hub.backends.torch import CleverModel
from clever_hub.backends.variants import (
    DATA_NAME,
    GRAPH_NAME,
    PIXEL_VALUES,
    PIXELS,
    PRECISIONS,
    VARIANT_KEY,
    Variant,
    check_graph_beside,
    sums_overflow,
)
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.embeddings import split
from clever_hub.errors import ConfigError, DataError, ModelFormatError
from clever_hub.files import whole_folder, write_json
from clever_hub.jobs.heads import copy_heads

MIN_IMAGES = 16
# int8 of clever-resnet18's second stage, calibrated on 192 photos of Tiny ImageNet: 0.9995
# (invariant) and 0.9988 (equivariant). With the saturating kernels that quantize.py avoids: 0.994
# and 0.990, the worst photo at 0.82. Rounding alone stays above this threshold.
MIN_COSINE = 0.995
# The attempts at int8: the name of the step, and its entries in config.json.
_ATTEMPTS: tuple[tuple[str, dict[str, int]], ...] = (
    ("calibrating", {}),
    ("calibrating again, the first layer in float32", {"fp32_layers": 1}),
    # Of EfficientNet-Lite0 they are its first stage.
    (
        "calibrating again, 8 bits of the weights, three layers in float32",
        {"fp32_layers": 3, "weight_bits": 8},
    ),
)
# Why the last attempt was not made.
_SEVEN_BITS = (
    ". 8 bits of the weights, which may be nearer, are not tried: nothing would keep this graph "
    "from processors that add their products wrongly"
)


class _Prepared(nn.Module):
    """The function that a variant's graph computes; inputs and outputs are float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: CleverModel, half: bool, pixels: bool) -> None:
        super().__init__()
        # half() works in place, so the caller's model is copied.
        self.backbone = copy.deepcopy(model.backbone).half() if half else model.backbone
        self.half_precision, self.pixels = half, pixels
        self.invariant_dim = model.config.invariant_dim
        preprocessing = model.config.preprocessing
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name))
            self.register_buffer(name, values[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.pixels:
            levels = images.permute(0, 3, 1, 2).to(torch.float32)  # (batch, 3, size, size)
            images = (levels / 255 - self.mean) / self.std
        embedding = self.backbone(images.half() if self.half_precision else images).float()
        return split(embedding, self.invariant_dim)


def export_variant(
    model_folder: str | Path,
    out: str | Path,
    *,
    precision: str = "fp32",
    with_preprocessing: bool = False,
    single_file: bool = False,
    images: Iterable[str | Path] = (),
    force: bool = False,
    any_processor: bool = False,
    report: Report = silent,
) -> Fidelity | None:
    """Write a variant of a model folder.

    Args:
        model_folder: The model folder; it is not changed.
        out: An empty folder, created when missing; empty again, or gone, when something fails.
        precision: ``"fp32"``; ``"fp16"`` for GPUs (its CPU kernels are slow); or ``"int8"``:
            static QDQ quantisation, per channel, calibrated on ``images``. If int8 fails the
            fidelity check, it is tried again with the first layer in float32, which is slower, and
            then, where the processor has VNNI, with three layers in float32 and 8 instead of 7 bits
            of the weights.
        with_preprocessing: The graph takes uint8 ``pixels`` (batch, size, size, 3), red green blue,
            resized and cropped, and normalises them.
        single_file: Store the weights in model.onnx. Otherwise they are in model.onnx.data: a
            protobuf file cannot be larger than 2 GB.
        images: Image files like those that the model will be used on; at least 16 for int8. The
            fidelity of the variant is measured on them; of int8 on a quarter, which is held out
            from calibration.
        force: Also write a variant that fails the fidelity check.
        any_processor: What runs the graph does not check the processor as ``backend="onnx"`` does,
            so int8 keeps to 7 bits of the weights.
        report: Called with the progress of each step.

    Returns:
        How close the variant's embeddings are to the model's; None without images.

    Raises:
        ConfigError: When the precision is unknown, or the folder holds something.
        DataError: When there are too few images.
        ModelFormatError: When the variant is not faithful: the mean cosine between its embeddings
            and the model's, each centred, is below ``MIN_COSINE`` in a part. When its weights or
            embeddings overflow; without images, those of fp16 are computed of generated pictures.
            When the weights have changed since the graph beside them was made.

    Example:
        >>> export_variant("my-model", "my-model-int8", precision="int8",
        ...                images=Path("photos").glob("*.jpg"))  # doctest: +SKIP
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    paths = [Path(path) for path in images]
    if len(paths) < MIN_IMAGES and (paths or precision == "int8"):
        raise DataError(
            f"expected {MIN_IMAGES} images at least to calibrate and to measure the loss, got "
            f"{len(paths)}. Give photos like those that the model will be used on: --images FOLDER"
        )
    kind = _Kind(precision, with_preprocessing, single_file, force, any_processor)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: expected a new folder or an empty one. Name another")
    with whole_folder(out) as folder:
        return _export(Path(model_folder), folder, kind, paths, report)


class _Kind(NamedTuple):
    """What ``export_variant`` was asked for."""

    precision: str
    with_preprocessing: bool
    single_file: bool
    force: bool
    any_processor: bool


def _export(
    model_folder: Path, out: Path, kind: _Kind, paths: Sequence[Path], report: Report
) -> Fidelity | None:
    precision = kind.precision
    calibration, others = _divided(paths, precision)
    model = CleverModel.from_folder(model_folder)
    assert model.source is not None
    check_graph_beside(model_folder, str(model.source.weights_sha256))
    check_processor(model_folder)
    if precision == "fp16":
        _refuse_overflow(model)
    copy_heads(model_folder, out)
    copy_license(model_folder, out)
    variant = Variant(precision, PIXELS if kind.with_preprocessing else PIXEL_VALUES, {})
    graph = _graph(model, variant, report)
    for step, more in _attempts(kind):
        written = graph
        if precision == "int8":
            batches = _inputs(model, variant, calibration, step, report)
            bits = more.get("weight_bits", variant.weight_bits)
            layers = more.get("fp32_layers", 0)
            written = quantize(graph, batches, keep_first=layers, weight_bits=bits)
        _write(written, out, model, variant, kind.single_file)
        if not paths:
            if precision == "fp16":
                with tempfile.TemporaryDirectory() as temporary:
                    finite_parts(out, "onnx", pictures(Path(temporary)), report)
            return None
        measured = fidelity(model_folder, out, others, report)
        calibrated = {"calibration_images": len(calibration)} if calibration else {}
        _update(out, fidelity=measured.figures(), **calibrated, **more)
        if all(cosine >= MIN_COSINE for cosine in measured.cosine.values()):
            return measured
    if not kind.force:
        raise _unfaithful(kind, measured)
    return measured


def _divided(paths: Sequence[Path], precision: str) -> tuple[list[Path], list[Path]]:
    """The images to calibrate on, which int8 alone needs, and those to measure on."""
    if precision != "int8":
        return [], list(paths)
    return [path for i, path in enumerate(paths) if i % 4], list(paths[::4])


def _unfaithful(kind: _Kind, measured: Fidelity) -> ModelFormatError:
    int8 = kind.precision == "int8"
    advice = (
        "Calibrate on more photos like those that the model will be used on, or write it"
        if int8
        else "Export it in fp32, or write it"
    )
    return ModelFormatError(
        f"the {kind.precision} variant is not faithful: mean cosine to the model's embeddings "
        f"after centring, over {measured.images} {'held-out ' if int8 else ''}images: "
        f"{measured.describe()}; expected {MIN_COSINE} at least. {advice} anyway with "
        f"--force{_SEVEN_BITS if int8 and kind.any_processor else ''}"
    )


def _attempts(kind: _Kind) -> tuple[tuple[str, dict[str, int]], ...]:
    """Those that this machine can make and measure, and that the graph's reader can run."""
    if kind.precision != "int8":
        return _ATTEMPTS[:1]
    eight_bits = sums_overflow() is False and not kind.any_processor
    return _ATTEMPTS if eight_bits else _ATTEMPTS[:-1]


def _refuse_overflow(model: CleverModel) -> None:
    """Refuse weights that are infinite in float16."""
    weights = model.backbone.state_dict().items()
    real = [(name, value) for name, value in weights if value.is_floating_point()]
    large = [name for name, value in real if value.half().isinf().any()]
    if large:
        raise ModelFormatError(
            f"the fp16 variant: expected weights up to 65,504, got larger ones in {len(large)} "
            f"tensors: {', '.join(large[:5])}{' …' if len(large) > 5 else ''}. Export it in fp32"
        )


def _graph(model: CleverModel, variant: Variant, report: Report) -> Any:
    """The graph before quantisation: with its weights, constants folded, operators fused."""
    size = model.config.preprocessing.crop_size
    pixels = variant.input == PIXELS
    shape = (2, size, size, 3) if pixels else (2, 3, size, size)
    example = torch.zeros(shape, dtype=torch.uint8 if pixels else torch.float32)
    module = _Prepared(model, half=variant.precision == "fp16", pixels=pixels)
    report("tracing the graph", 0, 0)
    return trace(module, example, variant.input, fold=optimizer.optimize)


def _inputs(
    model: CleverModel, variant: Variant, photos: Sequence[Path], step: str, report: Report
) -> Iterator[dict[str, NDArray[Any]]]:
    """The graph's inputs, eight photos at once."""
    for start in range(0, len(photos), 8):
        report(step, start, len(photos))
        pixel_values = model.preprocessor.batch(photos[start : start + 8])
        yield variant.feed(pixel_values, model.config.preprocessing)
    report("quantising", 0, 0)


def _write(graph: Any, out: Path, model: CleverModel, variant: Variant, single_file: bool) -> None:
    config, source = model.config, model.source
    assert source is not None
    origin = {"name": config.name, "weights_sha256": source.weights_sha256}
    if variant.precision == "int8":
        digest = hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
        variant = replace(variant, scales=digest)
    # A graph cannot contain its own hash, so the config in its metadata has no file hashes.
    inside = replace(config, extra=_extra(config, variant.entry(of=origin)))
    helper.set_model_props(graph, {CONFIG_KEY: json.dumps(inside.to_dict())})
    with tempfile.TemporaryDirectory(dir=out) as temporary:
        path = Path(temporary) / GRAPH_NAME
        if single_file:
            onnx.save_model(graph, str(path))
        else:
            onnx.save_model(
                graph, str(path), save_as_external_data=True, location=DATA_NAME, size_threshold=256
            )
        # onnx makes the weights file readable by its owner only; a server may be another user.
        for data in Path(temporary).glob(DATA_NAME):
            shutil.copymode(path, data)
        for file in Path(temporary).iterdir():
            file.replace(out / file.name)
    entry = variant.with_files(out).entry(of=origin)
    write_json(out / CONFIG_NAME, replace(config, extra=_extra(config, entry)).to_dict())


def _extra(config: ModelConfig, entry: dict[str, Any]) -> dict[str, Any]:
    """The config's other keys, without ``auto_map``: a variant has no remote code."""
    kept = {key: value for key, value in config.extra.items() if key != "auto_map"}
    return {**kept, VARIANT_KEY: entry}


def _update(out: Path, **more: Any) -> None:
    config = ModelConfig.load(out)
    entry = {**config.extra[VARIANT_KEY], **more}
    write_json(out / CONFIG_NAME, replace(config, extra=_extra(config, entry)).to_dict())
