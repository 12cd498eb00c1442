"""One weights file: the graph points into it, and every reader gives the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from typer.testing import CliRunner

import clever_hub
from clever_export.onnx import _point_into, check_graph, export_onnx
from clever_export.verify import verify
from clever_hub.backends.onnx import read_graph_config
from clever_hub.backends.timm import build_backbone, embedding_length
from clever_hub.backends.torch import CleverModel
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelFormatError
from clever_hub.weights import Weights

Exported = Callable[..., Path]
BOTH = pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
# How weights are stored is no matter of the architecture: float32 is shown with one.
ALL = pytest.mark.parametrize(
    ("architecture", "half"),
    [("test_resnet", True), ("test_vit", True), ("test_resnet", False)],
    ids=["resnet-float16", "vit-float16", "resnet-float32"],
)


@ALL
def test_torch_and_onnx_agree_on_real_photos_at_every_batch_size(
    architecture: str, half: bool, exported: Exported, photos: dict[str, Path]
) -> None:
    folder = exported(architecture, half)
    torch_model = clever_hub.from_pretrained(folder)
    onnx_model = clever_hub.from_pretrained(folder, backend="onnx", threads=1)
    expected = torch_model.encode(photos.values())
    assert np.abs(expected.full).max() > 0.01
    for batch_size in (1, 3, 4):
        found = onnx_model.encode(photos.values(), batch_size=batch_size)
        np.testing.assert_allclose(found.full, expected.full, rtol=0, atol=1e-4)
        assert found.invariant.shape == expected.invariant.shape


@BOTH
def test_a_bare_session_needs_nothing_but_the_folder(
    architecture: str, exported: Exported, photos: dict[str, Path]
) -> None:
    folder = exported(architecture)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    config = read_graph_config(session)
    assert config == clever_hub.ModelConfig.load(folder)
    pixels = clever_hub.Preprocessor(config.preprocessing).batch(list(photos.values()))
    invariant, equivariant = session.run(["invariant", "equivariant"], {"pixel_values": pixels})
    expected = clever_hub.from_pretrained(folder).encode(photos.values())
    np.testing.assert_allclose(invariant, expected.invariant, rtol=0, atol=1e-4)
    np.testing.assert_allclose(equivariant, expected.equivariant, rtol=0, atol=1e-4)


@ALL
def test_every_weight_lies_in_the_weights_file(
    architecture: str, half: bool, exported: Exported
) -> None:
    folder = exported(architecture, half)
    check_graph(folder)
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    assert (folder / "model.onnx").stat().st_size < 100_000
    external = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in graph.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    assert {place["location"] for place in external} == {"model.safetensors"}
    with Weights(folder / "model.safetensors") as weights:
        learned = {
            (entry.offset, entry.size)
            for name, entry in weights.entries.items()
            if "num_batches_tracked" not in name
        }
    assert {(int(place["offset"]), int(place["length"])) for place in external} == learned


@BOTH
def test_timm_reads_the_folder_bit_for_bit(architecture: str, exported: Exported) -> None:
    folder = exported(architecture)
    backbone = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    ours = clever_hub.from_pretrained(folder).backbone.state_dict()
    theirs = backbone.state_dict()
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_graph_says_nothing_of_the_machine_that_made_it(exported: Exported) -> None:
    content = (exported("test_resnet") / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert str(Path.home()).encode() not in content


@ALL
def test_onnx_runtime_folds_casts_and_batch_norms_into_the_convolutions(
    architecture: str, half: bool, exported: Exported, tmp_path: Path
) -> None:
    """What it cannot fold at load it would compute again for each batch."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Later levels are for this machine's processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(exported(architecture, half) / "model.onnx", options)
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    left = {node.op_type for node in graph.node if constants.issuperset(node.input)}
    assert left <= {"Constant"}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_the_hubs_cache_of_symbolic_links_serves_onnx_and_timm(
    exported: Exported, tmp_path: Path, photos: dict[str, Path]
) -> None:
    """huggingface_hub keeps blobs by hash, and snapshots that link to them."""
    folder, commit = exported("test_resnet"), "c" * 40
    repository = tmp_path / "models--somebody--clever-test"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for number, name in enumerate(("config.json", "model.safetensors", "model.onnx")):
        shutil.copyfile(folder / name, repository / "blobs" / str(number))
        (snapshot / name).symlink_to(repository / "blobs" / str(number))
    expected = clever_hub.from_pretrained(folder)
    found = clever_hub.from_pretrained(snapshot, backend="onnx").encode(photos["coffee"])
    np.testing.assert_allclose(
        found.full, expected.encode(photos["coffee"]).full, rtol=0, atol=1e-4
    )
    backbone = timm.create_model(
        "hf-hub:somebody/clever-test", pretrained=True, num_classes=0, cache_dir=str(tmp_path)
    )
    ours, theirs = expected.backbone.state_dict(), backbone.state_dict()
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_model_without_an_equivariant_part(exported: Exported, tmp_path: Path) -> None:
    """A split ratio of 1.0 is plain SimSiam or DINO: every reader takes it."""
    model = clever_hub.from_pretrained(exported("test_resnet"))
    model.config = replace(model.config, invariant_dim=96)
    export_onnx(model.save_pretrained(tmp_path))
    agreements = verify(tmp_path)
    assert {agreement.reader for agreement in agreements} >= {"timm", "onnxruntime"}
    assert all(agreement.green and "invariant" in agreement.max_abs for agreement in agreements)
    output = clever_hub.from_pretrained(tmp_path, backend="onnx")(np.zeros((1, 3, 32, 32), "f"))
    assert output.equivariant.shape == (1, 0)


def test_a_graph_with_weights_of_its_own_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = exported("test_resnet", False)
    with Weights(folder / "model.safetensors") as weights:
        name = next(n for n in weights.entries if n.endswith("conv1.0.weight") or "conv" in n)
        values = np.array(weights.tensors()[name])
        for tensor in (
            onnx.numpy_helper.from_array(values + 1, f"backbone.{name}"),
            onnx.numpy_helper.from_array(np.zeros((512, 256), np.float32), "made_up"),
        ):
            graph = onnx.helper.make_graph([], "g", [], [], [tensor])
            with pytest.raises(ModelFormatError, match="cannot share the weights file") as told:
                _point_into(onnx.helper.make_model(graph), weights)
        assert "--single-file" in str(told.value)


@pytest.mark.parametrize(
    ("architecture", "arguments", "size"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 56, "depths": [1, 1], "embed_dim": 16, "num_heads": [1, 2]},
            56,
        ),
        (
            "vit_small_patch16_dinov3",
            {"img_size": 128, "depth": 1, "embed_dim": 64, "num_heads": 1},
            128,
        ),
    ],
    ids=["swin", "dinov3"],
)
def test_tables_that_are_no_weights_stand_in_the_graph(
    architecture: str,
    arguments: dict[str, Any],
    size: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Swin's relative positions and rotary embeddings are in no weights file."""
    features = embedding_length(build_backbone(architecture, arguments))
    config = ModelConfig(
        name="tables",
        architecture=architecture,
        model_args=arguments,
        num_features=features,
        invariant_dim=features // 2,
        preprocessing=PreprocessingConfig(size, size),
    )
    model = CleverModel(config)
    export_onnx(model.save_pretrained(tmp_path))
    pixels = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    found = clever_hub.from_pretrained(tmp_path, backend="onnx")(pixels).full
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(pixels)).full
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2)
    assert "Skipping constant folding" not in caplog.text


class TestDamage:
    """A moved folder works; a changed one is refused."""

    @pytest.fixture
    def folder(self, exported: Exported, tmp_path: Path) -> Path:
        return Path(shutil.copytree(exported("test_resnet"), tmp_path / "moved"))

    def test_moved(self, folder: Path, photos: dict[str, Path]) -> None:
        model = clever_hub.from_pretrained(folder, backend="onnx")
        assert model.encode(photos["chelsea"]).full.shape == (1, 96)

    def test_a_flipped_byte_in_the_weights(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match="made for weights with SHA-256"):
            clever_hub.from_pretrained(folder, backend="onnx")
        # torch could read them; then the two backends would no longer agree.
        with pytest.raises(
            ModelFormatError, match=r"safetensors: changed since model\.onnx beside"
        ):
            clever_hub.from_pretrained(folder)
        result = CliRunner().invoke(app, ["info", str(folder)])
        assert result.exit_code == 1
        assert "changed since model.onnx beside" in " ".join(result.output.split())
        # The way that the messages name.
        export_onnx(folder)
        found = [clever_hub.from_pretrained(folder, backend=name) for name in ("torch", "onnx")]
        assert len({model.source and model.source.weights_sha256 for model in found}) == 1

    def test_another_tools_graph_is_no_matter_of_torchs(self, folder: Path) -> None:
        graph = onnx.load(folder / "model.onnx", load_external_data=False)
        graph.ClearField("metadata_props")
        (folder / "model.onnx").write_bytes(graph.SerializeToString())
        assert clever_hub.from_pretrained(folder).config.num_features == 96

    def test_truncated_weights(self, folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ModelFormatError, match="corrupt or incomplete"):
            clever_hub.from_pretrained(folder, backend="onnx")

    def test_truncated_graph(self, folder: Path) -> None:
        path = folder / "model.onnx"
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(ModelFormatError, match=r"model\.onnx: ONNX Runtime .* cannot load it"):
            clever_hub.from_pretrained(folder, backend="onnx")

    def test_no_graph(self, folder: Path) -> None:
        (folder / "model.onnx").unlink()
        with pytest.raises(ModelFormatError, match='load it with backend="torch"'):
            clever_hub.from_pretrained(folder, backend="onnx")

    def test_a_graph_of_other_weights_is_not_written_beside(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        assert config["name"] == "clever-test-resnet"
        model = clever_hub.from_pretrained(folder)
        with torch.no_grad():
            next(model.backbone.parameters()).add_(1)
        with pytest.raises(ModelFormatError, match=r"model\.onnx"):
            model.save_pretrained(folder)
        model.save_pretrained(folder.with_name("elsewhere"))
