"""What reads files of strangers, each with whole files to begin from."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import skimage.data
from PIL import Image

import clever_hub
from clever_hub.backends.onnx import CONFIG_KEY
from clever_hub.backends.variants import (
    DATA_NAME,
    GRAPH_NAME,
    PIXEL_VALUES,
    VARIANT_KEY,
    Variant,
)
from clever_hub.config import CONFIG_NAME, ModelConfig, PreprocessingConfig
from clever_hub.hub.evaluation import read_evaluation
from clever_hub.hub.shipped import ZOO, model_names
from clever_hub.images.opening import load_image
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME, Heads, HeadsConfig
from clever_hub.weights import WEIGHTS_NAME, Weights
from tests.fuzz.graphs import mutated_graph
from tests.fuzz.mutate import Rng, mutated
from tests.hub.jobs.conftest import CALIBRATION, write_heads


class Target(NamedTuple):
    """Something that reads a file.

    Attributes:
        seeds: Whole files.
        read: Reads the damaged bytes; may write into the folder that it is given.
        mutate: Damages one of the seeds.
        tries: How many damaged files the suite tries.
    """

    seeds: list[bytes]
    read: Callable[[bytes, Path], object]
    mutate: Callable[[Sequence[bytes], Rng], bytes] = mutated
    tries: int = 250


def images() -> Target:
    """A small photo in every format that is read."""
    cat = Image.fromarray(np.ascontiguousarray(getattr(skimage.data, "chelsea")()[::8, ::8]))  # noqa: B009
    seeds = []
    for form, mode, options in (
        ("JPEG", "RGB", {"quality": 80}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("PNG", "LA", {}),
        ("WEBP", "RGB", {}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("PPM", "RGB", {}),
        ("JPEG2000", "RGB", {}),
        ("AVIF", "RGB", {}),
    ):
        buffer = io.BytesIO()
        cat.convert(mode).save(buffer, form, **options)
        seeds.append(buffer.getvalue())
    managed = {"color_management": True, "background": "white", "decode": "reduced", "target": 8}
    return Target(seeds, lambda data, _: (load_image(data), load_image(data, **managed)))  # type: ignore[arg-type]


def configs() -> Target:
    """config.json of a model, with and without heads, and those of the shipped models."""
    config = ModelConfig(
        *("clever-tiny", "resnet18", 512, 409, PreprocessingConfig(36, 32)),
        {"in_chans": 3},
        {"data": "none"},
    )

    def read(data: bytes, folder: Path) -> object:
        (folder / CONFIG_NAME).write_bytes(data)
        return HeadsConfig.of(ModelConfig.load(folder))

    shipped = [(ZOO / name / CONFIG_NAME).read_bytes() for name in model_names()]
    return Target([json.dumps(config.to_dict()).encode(), _headed()[0], *shipped], read)


def _headed() -> tuple[bytes, bytes]:
    """config.json and heads.safetensors of a model with small heads."""
    plain = ModelConfig("clever-tiny", "resnet18", 512, 409, PreprocessingConfig(36, 32))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / CONFIG_NAME).write_text(json.dumps(plain.to_dict()))
        write_heads(folder, CALIBRATION)
        return (folder / CONFIG_NAME).read_bytes(), (folder / HEADS_NAME).read_bytes()


def heads() -> Target:
    """heads.safetensors of a model whose config.json has the damaged file's very hash."""
    config, whole = _headed()
    content = json.loads(config)

    def read(data: bytes, folder: Path) -> object:
        (folder / HEADS_NAME).write_bytes(data)
        content[HEADS_KEY]["sha256"] = hashlib.sha256(data).hexdigest()
        (folder / CONFIG_NAME).write_text(json.dumps(content))
        return Heads.load(folder)

    # Damage among the numbers is none that a reader could see.
    return Target([whole], read, lambda seeds, rng: mutated([seeds[0][:2048]], rng) + whole[2048:])


def evaluations() -> Target:
    """evaluation.json of a model."""
    figures = {
        "knn": {"upright": {"full": {"top1": {"mean": 15.2, "std": None, "values": [15.2]}}}}
    }
    content = {"schema_version": 1, "model": {"name": "a"}, "figures": figures, "baselines": {}}

    def read(data: bytes, folder: Path) -> object:
        (folder / "evaluation.json").write_bytes(data)
        return read_evaluation(folder)

    return Target([json.dumps(content).encode()], read)


def weights() -> Target:
    """The header of model.safetensors, and its tensors."""
    from safetensors.numpy import save

    tensors: dict[str, Any] = {
        "a.weight": np.zeros((2, 3), np.float32),
        "b": np.zeros((), np.int64),
    }

    def read(data: bytes, folder: Path) -> object:
        path = folder / WEIGHTS_NAME
        path.write_bytes(data)
        with Weights(path) as found:
            found.sha256()
            return found.tensors()

    return Target([save(tensors), save({"c": np.ones(5, np.float16)})], read)


def recipes() -> Target:
    """A recipe in YAML."""
    from clever_training.recipe.reading import read_recipe

    text = (
        b"name: mine\nimage_size: 32\nbackbone: {architecture: resnet18, drop_path: 0.1}\n"
        b"method: {name: clever-dino, objective_args: {prototypes: 64}}\n"
        b"views:\n  strategy: caug\n  growth: [{after: 0.5, global_size: 48}]\n"
        b"run: {epochs: 2, batch_size: 8, seed: 3}\n"
    )

    def read(data: bytes, folder: Path) -> object:
        path = folder / "recipe.yaml"
        path.write_bytes(data)
        return read_recipe(path)

    return Target([text], read)


def graphs() -> Target:
    """model.onnx of a variant whose config.json has the damaged file's very hash."""
    from onnx import TensorProto, helper

    shape: list[str | int | None] = ["batch", 3, 4, 4]
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["full"]),
        helper.make_node("Split", ["full"], ["invariant", "equivariant"], axis=1, num_outputs=2),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 24])
        for name in ("invariant", "equivariant")
    ]
    values = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "tiny", values, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    preprocessing = PreprocessingConfig(4, 4)
    plain = ModelConfig("clever-tiny", "resnet18", 48, 24, preprocessing)
    helper.set_model_props(model, {CONFIG_KEY: json.dumps(plain.to_dict())})

    def read(data: bytes, folder: Path) -> object:
        (folder / GRAPH_NAME).write_bytes(data)
        variant = Variant("fp32", PIXEL_VALUES, {}).with_files(folder)
        config = replace(plain, extra={VARIANT_KEY: variant.entry()})
        (folder / CONFIG_NAME).write_text(json.dumps(config.to_dict()))
        return clever_hub.from_pretrained(folder, backend="onnx", threads=1)

    return Target([model.SerializeToString()], read)


def shipped_graph(name: str) -> Target:
    """model.onnx of a shipped model, beside its weights: loaded, and run once."""
    return _graph_beside(ZOO / name, WEIGHTS_NAME)


def int8_graph(name: str) -> Target:
    """The same of its int8 variant, whose config.json has the damaged file's very hash."""
    with tempfile.TemporaryDirectory() as kept:
        with mock.patch.dict(os.environ, {"CLEVER_HUB_CACHE": kept}):
            made = clever_hub.from_pretrained(name, backend="onnx", precision="int8", threads=1)
        assert made.folder.is_relative_to(kept)
        return _graph_beside(made.folder, DATA_NAME)


def _graph_beside(source: Path, weights: str) -> Target:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # its allocator's, which no session sets
    content = json.loads((source / CONFIG_NAME).read_text())
    numbers = (source / weights).read_bytes()

    def read(data: bytes, folder: Path) -> object:
        (folder / GRAPH_NAME).write_bytes(data)
        if VARIANT_KEY in content:
            content[VARIANT_KEY]["files"][GRAPH_NAME] = hashlib.sha256(data).hexdigest()
        (folder / CONFIG_NAME).write_text(json.dumps(content))
        if not (folder / weights).exists():
            (folder / weights).write_bytes(numbers)
        model = clever_hub.from_pretrained(folder, backend="onnx", threads=1)
        size, dims = model.config.preprocessing.crop_size, model.config.num_features
        found = model(np.zeros((1, 3, size, size), np.float32)).full
        assert found.shape == (1, dims), found.shape
        return found

    graph = (source / GRAPH_NAME).read_bytes()
    # Bytes changed at random rarely leave a graph that parses, but the parser is tried, too.
    return Target(
        [graph],
        read,
        lambda seeds, rng: mutated_graph(graph, rng) if rng.integers(5) else mutated(seeds, rng),
        tries=100,
    )


def tables() -> Target:
    """A parquet file of embeddings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clever_hub.jobs.embedded import read_embeddings

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(12, dtype=np.float32)), 4)
    table = pa.table({"path": ["a", "b", "c"], "invariant": vectors, "equivariant": vectors})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)

    def read(data: bytes, folder: Path) -> object:
        path = folder / "photos.parquet"
        path.write_bytes(data)
        return read_embeddings(path)

    return Target([buffer.getvalue()], read)


TARGETS: dict[str, Callable[[], Target]] = {
    "images": images,
    "configs": configs,
    "evaluations": evaluations,
    "weights": weights,
    "recipes": recipes,
    "graphs": graphs,
    "tables": tables,
    "heads": heads,
    **{
        f"graph of {name}": partial(shipped_graph, name)
        for name in ("clever-resnet18", "clever-vit-tiny")
        if name in model_names()
    },
    **(
        {"int8 graph": partial(int8_graph, "clever-resnet18")}
        if "clever-resnet18" in model_names()
        else {}
    ),
}
