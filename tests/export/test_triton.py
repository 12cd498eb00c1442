"""A model repository for Triton: what it is told, and what the graph in it computes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

import clever_hub
from clever_export import variants
from clever_export.triton import config_text, export_triton
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, ModelFormatError

Exported = Callable[..., Path]
# Read by Triton's own definition of its configuration, in an environment of its own: the client
# wants an older protobuf than onnx does.
READ = """
import sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
text = open(sys.argv[1], encoding="utf-8").read()
message = text_format.Parse(text, model_config_pb2.ModelConfig())
print(json_format.MessageToJson(message, preserving_proto_field_name=True))
"""


@pytest.fixture(scope="session")
def read_config(repository: Path) -> Callable[[Path], dict[str, Any]]:
    """Reads a config.pbtxt as Triton does."""
    python = repository / ".venv-triton" / "bin" / "python"
    if not python.exists():
        reason = "no .venv-triton; `make test` makes it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def read(path: Path) -> dict[str, Any]:
        done = subprocess.run(
            [python, "-c", READ, path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        content: dict[str, Any] = json.loads(done.stdout)
        return content

    return read


@pytest.fixture(scope="session")
def triton(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two models; not to be written to."""
    folder = tmp_path_factory.mktemp("triton") / "models"
    for architecture in ("test_resnet", "test_vit"):
        made, measured = export_triton(exported(architecture), folder, max_batch=16)
        assert made.parent == folder
        assert measured is None
    return folder


def _config(width: int = 10, split: int = 8, name: str = "clever-a") -> ModelConfig:
    return ModelConfig(name, "resnet18", width, split, PreprocessingConfig(36, 32))


def test_a_repository_has_nothing_else(triton: Path) -> None:
    files = {path.relative_to(triton).as_posix() for path in triton.rglob("*") if path.is_file()}
    assert files == {
        f"clever-test-{kind}/{file}"
        for kind in ("resnet", "vit")
        for file in ("config.pbtxt", "1/model.onnx")
    }


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_triton_is_told_what_the_graph_has(
    triton: Path, kind: str, read_config: Callable[[Path], dict[str, Any]]
) -> None:
    folder = triton / f"clever-test-{kind}"
    told = read_config(folder / "config.pbtxt")
    session = onnxruntime.InferenceSession(folder / "1/model.onnx")
    types = {"TYPE_UINT8": "tensor(uint8)", "TYPE_FP32": "tensor(float)"}
    for tensors, key in ((session.get_inputs(), "input"), (session.get_outputs(), "output")):
        assert len(tensors) == len(told[key])
        for tensor, entry in zip(tensors, told[key], strict=True):
            assert tensor.name == entry["name"]
            assert tensor.type == types[entry["data_type"]]
            assert isinstance(tensor.shape[0], str)  # any number of images, as Triton needs it
            assert tensor.shape[1:] == [int(length) for length in entry["dims"]]
    assert told["name"] == folder.name
    assert told["backend"] == "onnxruntime"
    assert told["max_batch_size"] == 16
    assert told["dynamic_batching"]["max_queue_delay_microseconds"] == "4000"
    assert told["model_warmup"][0]["inputs"]["pixels"]["dims"] == told["input"][0]["dims"]


@pytest.mark.parametrize(
    ("device", "kind"), [("auto", None), ("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")]
)
def test_triton_is_told_where_to_run(
    tmp_path: Path, device: str, kind: str | None, read_config: Callable[[Path], dict[str, Any]]
) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(config_text(_config(), "clever-a", device, 8), encoding="utf-8")
    (group,) = read_config(path)["instance_group"]
    assert group.get("kind") == kind  # KIND_AUTO is the default, which protobuf leaves out
    assert group["count"] == 1


def test_a_part_without_dimensions_is_no_output(
    tmp_path: Path, read_config: Callable[[Path], dict[str, Any]]
) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(config_text(_config(split=10), "clever-a", "auto", 8), encoding="utf-8")
    assert [entry["name"] for entry in read_config(path)["output"]] == ["invariant"]


def test_a_strangers_text_stays_a_comment(
    tmp_path: Path, read_config: Callable[[Path], dict[str, Any]]
) -> None:
    config = _config()
    config.provenance["data"] = 'photos\nname: "another"\n'
    path = tmp_path / "config.pbtxt"
    path.write_text(config_text(config, "clever-a", "auto", 8), encoding="utf-8")
    assert read_config(path)["name"] == "clever-a"


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_every_batch_size_gives_the_models_embeddings(
    triton: Path, exported: Exported, photos: dict[str, Path], architecture: str, count: int
) -> None:
    """An exporter may take a size that it has seen for the only one (pytorch #157621)."""
    name = f"clever-{architecture.replace('_', '-')}"
    paths = (list(photos.values()) * 2)[:count]
    # What a client does, by the first lines of config.pbtxt.
    pixels = []
    for path in paths:
        photo = Image.open(path).convert("RGB")
        short = min(photo.size)
        size = (36 * photo.width // short, 36 * photo.height // short)
        photo = photo.resize(size, Image.Resampling.BICUBIC)
        left, top = round((photo.width - 32) / 2), round((photo.height - 32) / 2)
        pixels.append(np.asarray(photo.crop((left, top, left + 32, top + 32))))
    session = onnxruntime.InferenceSession(triton / name / "1/model.onnx")
    found = session.run(["invariant", "equivariant"], {"pixels": np.stack(pixels)})
    expected = clever_hub.from_pretrained(exported(architecture), backend="onnx").encode(paths)
    np.testing.assert_allclose(found[0], expected.invariant, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], expected.equivariant, rtol=0, atol=1e-4)


def test_the_graph_needs_no_other_file_and_no_new_onnxruntime(triton: Path) -> None:
    for path in triton.rglob("model.onnx"):
        graph = onnx.load(path, load_external_data=False)
        assert all(
            tensor.data_location == onnx.TensorProto.DEFAULT for tensor in graph.graph.initializer
        )
        # What the onnxruntime in Triton's images of 2024 reads.
        assert graph.ir_version <= 10
        assert {entry.version for entry in graph.opset_import if not entry.domain} == {20}


def test_int8_needs_no_processor_of_a_kind(
    exported: Exported, photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton reads no config.json, which would refuse 8 bits of the weights where sums overflow."""
    monkeypatch.setattr(variants, "MIN_COSINE", 1.01)  # all attempts are made
    monkeypatch.setattr(variants, "sums_overflow", lambda: False)
    images = [*photos.values()] * 4
    made, _ = export_triton(
        exported("test_resnet"), tmp_path, precision="int8", images=images, force=True
    )
    tensors = onnx.load(made / "1/model.onnx").graph.initializer
    values = [onnx.numpy_helper.to_array(tensor) for tensor in tensors]
    weights = [value for value in values if value.dtype == np.int8 and value.ndim == 4]
    assert max(int(np.abs(value.astype(int)).max()) for value in weights) <= 64


def test_the_licence_comes_along(exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported("test_resnet"), tmp_path / "model")
    (folder / "LICENSE").write_text("of somebody else's weights")
    made, _ = export_triton(folder, tmp_path / "triton")
    assert (made / "LICENSE").read_text() == "of somebody else's weights"


def test_a_model_that_is_there_is_not_overwritten(triton: Path, exported: Exported) -> None:
    before = (triton / "clever-test-resnet/1/model.onnx").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="clever-test-resnet is there already"):
        export_triton(exported("test_resnet"), triton)
    assert (triton / "clever-test-resnet/1/model.onnx").stat().st_mtime_ns == before
    assert sorted(path.name for path in triton.iterdir()) == [
        "clever-test-resnet",
        "clever-test-vit",
    ]


def test_what_cannot_be_written_is_told(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device: expected one of auto, cpu, gpu, got 'tpu'"):
        export_triton(exported("test_resnet"), tmp_path / "models", device="tpu")
    with pytest.raises(ConfigError, match="max_batch: expected 1 or more, got 0"):
        export_triton(exported("test_resnet"), tmp_path / "models", max_batch=0)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_config(name="a b/c").to_dict()))
    with pytest.raises(ModelFormatError, match="name: expected letters"):
        export_triton(folder, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_command(exported: Exported, tmp_path: Path) -> None:
    model, out = str(exported("test_resnet")), str(tmp_path / "models")
    for arguments in ((), ("-o", "a", "--triton", "b")):
        result = CliRunner().invoke(app, ["export", model, *arguments])
        assert result.exit_code == 1
        assert "expected --output FOLDER or --triton DIR" in result.output
    half = ["--precision", "fp16", "--triton-device", "gpu"]
    result = CliRunner().invoke(app, ["export", model, "--triton", out, *half])
    assert result.exit_code == 0, result.output
    folder = tmp_path / "models/clever-test-resnet-fp16"
    assert f"Wrote {folder}" in result.output
    assert "kind: KIND_GPU" in (folder / "config.pbtxt").read_text()
    graph = onnx.load(folder / "1/model.onnx").graph
    stored = {tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) > 500}
    assert stored == {onnx.TensorProto.FLOAT16}


def test_a_second_export_names_the_option_that_was_given(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    folder = exported("test_resnet")
    (tmp_path / "models" / ModelConfig.load(folder).name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"--triton: .* is there already"):
        export_triton(folder, tmp_path / "models")
