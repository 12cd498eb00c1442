"""Variants: other precisions, pixels in, one file. Near to the model, or refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import clever_hub
from clever_export import variants
from clever_export.publish_check import check_folder
from clever_export.quantize import fidelity
from clever_export.variants import export_variant
from clever_hub.backends import variants as hub_variants
from clever_hub.backends.variants import Variant, sums_overflow
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, DataError, DeviceError, ModelFormatError
from clever_hub.files import write_json
from clever_hub.hub import shipped
from clever_hub.weights import sha256_of
from tests.hub_server.client import CallFailed, Client
from tests.hub_server.server import HubServer

Exported = Callable[..., Path]

KINDS: dict[str, dict[str, Any]] = {
    "pixels": {"with_preprocessing": True, "single_file": True},
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
}


@pytest.fixture(scope="session")
def crops(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen pieces of real photos."""
    folder = tmp_path_factory.mktemp("crops")
    paths = []
    for name, path in photos.items():
        photo = Image.open(path)
        for index in range(4):
            left, top = (index % 2) * photo.width // 2, (index // 2) * photo.height // 2
            piece = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2))
            paths.append(folder / f"{name}-{index}.png")
            piece.save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def variant(
    exported: Exported, crops: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives the folder of a kind of variant, made once; not to be written to."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("variant") / kind
            # Photos differ so little to random weights that int8 loses more than it may.
            force = kind == "int8"
            export_variant(
                exported("test_resnet"), made[kind], images=crops, force=force, **KINDS[kind]
            )
        return made[kind]

    return folder


def _stored(folder: Path) -> set[int]:
    """The types of all large initialisers."""
    graph = onnx.load(folder / "model.onnx").graph
    return {t.data_type for t in graph.initializer if np.prod(t.dims) > 500}


def test_pixels_in_gives_the_models_own_embeddings(
    exported: Exported, variant: Callable[[str], Path], photos: dict[str, Path]
) -> None:
    expected = clever_hub.from_pretrained(exported("test_resnet")).encode(photos.values())
    found = clever_hub.from_pretrained(variant("pixels"), backend="onnx").encode(photos.values())
    np.testing.assert_allclose(found.full, expected.full, rtol=0, atol=1e-4)


def test_a_program_without_preprocessing_feeds_pixels_to_one_file(
    exported: Exported, variant: Callable[[str], Path], photos: dict[str, Path], tmp_path: Path
) -> None:
    assert {path.name for path in variant("pixels").iterdir()} == {"config.json", "model.onnx"}
    alone = Path(shutil.copy(variant("pixels") / "model.onnx", tmp_path))
    session = onnxruntime.InferenceSession(alone)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(uint8)", [32, 32, 3])
    image = clever_hub.load_image(photos["chelsea"]).crop((0, 0, 32, 32))
    invariant, equivariant = session.run(None, {"pixels": np.asarray(image)[None]})
    # No resizing: the reference gets these very pixels as well.
    size = PreprocessingConfig(32, 32)
    model = clever_hub.from_pretrained(exported("test_resnet"), backend="onnx")
    expected = model(clever_hub.Preprocessor(size).batch([image]))
    np.testing.assert_allclose(invariant, expected.invariant, rtol=0, atol=1e-4)
    np.testing.assert_allclose(equivariant, expected.equivariant, rtol=0, atol=1e-4)


def test_undoing_the_normalisation_gives_every_level_back() -> None:
    config = PreprocessingConfig(16, 16)
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    prepared = clever_hub.Preprocessor(config).batch([levels])
    assert np.array_equal(Variant("fp32", "pixels", {}).feed(prepared, config)["pixels"][0], levels)


def test_whoever_may_read_the_graph_may_read_its_weights(variant: Callable[[str], Path]) -> None:
    graph, weights = (variant("fp16") / name for name in ("model.onnx", "model.onnx.data"))
    assert weights.stat().st_mode == graph.stat().st_mode
    assert graph.stat().st_mode == (variant("fp16") / "config.json").stat().st_mode


def test_fp16_computes_in_half_and_stays_near(
    exported: Exported, variant: Callable[[str], Path], crops: list[Path]
) -> None:
    assert _stored(variant("fp16")) == {onnx.TensorProto.FLOAT16}
    near = fidelity(exported("test_resnet"), variant("fp16"), crops)
    assert min(near.cosine.values()) > 0.999
    forced = ModelConfig.load(variant("int8")).extra["variant"]["fidelity"]
    assert min(forced["mean_cosine_centred"].values()) < min(near.cosine.values())
    found = clever_hub.from_pretrained(variant("fp16"), backend="onnx").encode(crops[0])
    assert found.full.dtype == np.float32


@pytest.mark.parametrize("kind", ["fp16", "pixels"])
def test_where_nothing_is_calibrated_all_photos_measure(
    kind: str, variant: Callable[[str], Path]
) -> None:
    entry = ModelConfig.load(variant(kind)).extra["variant"]
    assert entry["fidelity"]["images"] == 16
    assert "calibration_images" not in entry


@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_takes_the_licence_along(
    kind: str, exported: Exported, crops: list[Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(exported("test_resnet"), tmp_path / "model")
    (folder / "LICENSE").write_text("of somebody else's weights")
    export_variant(folder, tmp_path / "out", images=crops, force=kind == "int8", **KINDS[kind])
    assert (tmp_path / "out" / "LICENSE").read_text() == "of somebody else's weights"


@pytest.fixture
def overflowing(exported: Exported, tmp_path: Path) -> Callable[[float], Path]:
    """Gives a model with one bias of this size before the last sum; another of 60,000 joins it."""

    def folder(bias: float) -> Path:
        model = clever_hub.from_pretrained(exported("test_resnet"))
        with torch.no_grad():
            last = model.get_parameter("backbone.layer4.0.bn2.bias")
            model.get_parameter("backbone.layer4.0.downsample.2.bias")[-1] = 60_000
            last[-1] = bias
        return model.save_pretrained(tmp_path / "large")

    return folder


@pytest.mark.parametrize("with_photos", [False, True])
@pytest.mark.parametrize(
    ("bias", "words"),
    [
        (70_000, r"weights up to 65,504, got larger ones in 1 tensors: layer4\.0\.bn2\.bias"),
        (60_000, r"embeddings are not finite: .* overflows.* export it in fp32"),
    ],
)
def test_what_overflows_in_fp16_is_refused(
    with_photos: bool,
    bias: float,
    words: str,
    overflowing: Callable[[float], Path],
    crops: list[Path],
    tmp_path: Path,
) -> None:
    """It is in the second part alone, and no use to anybody: not with force either."""
    folder, out = overflowing(bias), tmp_path / "v"
    images = crops if with_photos else []
    for force in (False, True):
        with pytest.raises(ModelFormatError, match=f"(?i){words}"):
            export_variant(folder, out, precision="fp16", images=images, force=force)
        assert [path.name for path in tmp_path.iterdir()] == ["large"]
    assert export_variant(folder, out, with_preprocessing=True) is None


def test_int8_quantises_each_output_channel(variant: Callable[[str], Path]) -> None:
    assert _stored(variant("int8")) == {onnx.TensorProto.INT8}
    graph = onnx.load(variant("int8") / "model.onnx").graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [value for value in values.values() if value.dtype == np.int8 and value.ndim == 4]
    assert weights
    # Seven bits: pairs of products must fit into 16 bits where there is no VNNI.
    assert max(int(np.abs(value.astype(int)).max()) for value in weights) <= 64
    scales = [
        values[node.input[1]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and values.get(node.input[0], weights[0][0]).ndim == 4
    ]
    assert len(scales) == len(weights)
    assert all(scale.size > 1 for scale in scales)


def test_int8_of_a_trained_model_is_faithful_on_photos_it_was_not_calibrated_with(
    tmp_path: Path, crops: list[Path]
) -> None:
    steps: list[tuple[str, int, int]] = []
    measured = export_variant(
        shipped.ZOO / "clever-resnet18",
        tmp_path,
        precision="int8",
        images=crops,
        report=lambda *step: steps.append(step),
    )
    assert [step for step in steps if step[0] == "calibrating"] == [
        ("calibrating", 0, 12),
        ("calibrating", 8, 12),
    ]
    assert steps[-1] == ("measuring, onnx", 4, 4)
    assert measured is not None
    assert measured.images == 4
    assert min(measured.cosine.values()) > 0.995
    entry = ModelConfig.load(tmp_path).extra["variant"]
    assert entry["fidelity"] == measured.figures()
    assert entry["calibration_images"] == 12


def test_what_int8_loses_is_tried_with_the_first_layer_in_float32(
    exported: Exported, crops: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str) -> tuple[dict[str, Any], Any]:
        folder = tmp_path / name
        export_variant(exported("test_resnet"), folder, precision="int8", images=crops, force=True)
        graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
        first = next(node for node in graph.node if node.op_type == "Conv")
        made_by = {output: node.op_type for node in graph.node for output in node.output}
        return ModelConfig.load(folder).extra["variant"], made_by.get(first.input[1])

    monkeypatch.setattr(variants, "sums_overflow", lambda: True)
    monkeypatch.setattr(variants, "MIN_COSINE", -1.0)
    entry, weights = made("all")
    assert "fp32_layers" not in entry
    assert weights == "DequantizeLinear"
    monkeypatch.setattr(variants, "MIN_COSINE", 1.01)
    entry, weights = made("spared")
    assert entry["fp32_layers"] == 1
    assert "weight_bits" not in entry
    assert weights is None


def test_eight_bits_are_for_processors_that_can_add_them(
    exported: Exported, crops: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MIN_COSINE", 1.01)
    monkeypatch.setattr(variants, "sums_overflow", lambda: False)
    monkeypatch.setattr(hub_variants, "sums_overflow", lambda: False)
    folder = tmp_path / "eight"
    export_variant(exported("test_resnet"), folder, precision="int8", images=crops, force=True)
    assert ModelConfig.load(folder).extra["variant"]["weight_bits"] == 8
    graph = onnx.load(folder / "model.onnx").graph
    values = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    weights = [value for value in values if value.dtype == np.int8 and value.ndim == 4]
    assert max(int(np.abs(value.astype(int)).max()) for value in weights) > 64
    clever_hub.from_pretrained(folder, backend="onnx")
    monkeypatch.setattr(hub_variants, "sums_overflow", lambda: True)
    with pytest.raises(DeviceError, match=r"VNNI; on this one .*Export it here"):
        clever_hub.from_pretrained(folder, backend="onnx")


def test_eight_bits_are_not_tried_where_nothing_checks_the_processor(
    exported: Exported, crops: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MIN_COSINE", 1.01)
    monkeypatch.setattr(variants, "sums_overflow", lambda: False)
    taken: dict[str, Any] = {"precision": "int8", "images": crops, "any_processor": True}
    with pytest.raises(ModelFormatError, match=r"--force\. 8 bits of the weights.* not tried"):
        export_variant(exported("test_resnet"), tmp_path / "seven", **taken)
    export_variant(exported("test_resnet"), tmp_path / "seven", force=True, **taken)
    assert "weight_bits" not in ModelConfig.load(tmp_path / "seven").extra["variant"]


def test_eight_bits_are_refused_where_nothing_is_known_of_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_variants, "sums_overflow", lambda: None)  # as on Windows and macOS
    with pytest.raises(DeviceError, match=r"VNNI; whether this one has it is not known"):
        Variant("int8", "pixel_values", {}, weight_bits=8).check_processor()
    Variant("int8", "pixel_values", {}, weight_bits=7).check_processor()


def test_the_default_model_is_faithful_in_int8(tmp_path: Path, crops: list[Path]) -> None:
    """EfficientNet-Lite0: the range of a convolution ends where ReLU6 cuts it off."""
    measured = export_variant(
        shipped.ZOO / "clever-efficientnet-lite0",
        tmp_path,
        precision="int8",
        images=crops,
        force=True,
    )
    assert measured is not None
    assert min(measured.cosine.values()) > (0.97 if sums_overflow() else 0.995)


def test_an_unfaithful_variant_is_refused_with_its_figures(
    exported: Exported, crops: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variants, "MIN_COSINE", 1.01)  # nothing is that faithful
    command = ["export", str(exported("test_resnet")), "--out", str(tmp_path / "v")]
    command += ["--precision", "fp16", "--images", str(crops[0].parent)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    message = " ".join(result.output.split())
    assert "the fp16 variant is not faithful" in message
    assert "over 16 images: invariant 1.0000, equivariant 1.0000" in message
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_refused_before_any_work(
    exported: Exported, crops: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"expected 16 images at least .* got 15"):
        export_variant(exported("test_resnet"), tmp_path, precision="int8", images=crops[1:])
    with pytest.raises(ConfigError, match="expected one of fp32, fp16, int8, got 'int4'"):
        export_variant(exported("test_resnet"), tmp_path, precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_a_variant_of_a_variant_names_the_model_to_export(
    variant: Callable[[str], Path], tmp_path: Path
) -> None:
    for more in ([], ["--single-file"]):
        command = ["export", str(variant("fp16")), "--out", str(tmp_path / "v"), *more]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        message = " ".join(result.output.split())
        assert f"{variant('fp16')}: expected a model, got an ONNX variant" in message
        assert "the model that it was made from, clever-test-resnet" in message
    assert list(tmp_path.iterdir()) == []


def test_photos_that_would_not_be_looked_at_are_refused(
    exported: Exported, crops: list[Path], tmp_path: Path
) -> None:
    """Who forgets --precision would else take the result for the int8 variant."""
    command = ["export", str(exported("test_resnet")), "--out", str(tmp_path / "v")]
    result = CliRunner().invoke(app, [*command, "--images", str(crops[0].parent)])
    assert result.exit_code == 1
    assert "Add --precision int8" in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--triton-device", "gpu"], "--triton-device: is for --triton DIR"),
        (["--limit", "3"], "--limit: without --images"),
        (["--force", "--single-file"], "--force: without --images"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    options: list[str], named: str, exported: Exported, tmp_path: Path
) -> None:
    command = ["export", str(exported("test_resnet")), "--output", str(tmp_path / "v"), *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert named in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_limit_takes_photos_from_all_over_the_folder(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of classes, the first photos are of one."""
    for name in ("cat", "dog", "emu"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "photos" / name / f"{number}.png").touch()
    taken: list[Path] = []

    def note(*_: object, images: list[Path], **__: object) -> None:
        taken.extend(images)

    monkeypatch.setattr(variants, "export_variant", note)
    command = ["export", str(exported("test_resnet")), "--out", str(tmp_path / "v")]
    command += ["--precision", "int8", "--images", str(tmp_path / "photos"), "--limit", "24"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    classes = [path.parent.name for path in taken]
    assert [classes.count(name) for name in ("cat", "dog", "emu")] == [8, 8, 8]
    assert len(set(taken)) == 24


def test_verify_reads_a_variant_with_both_of_its_readers(
    variant: Callable[[str], Path], photos: dict[str, Path], tmp_path: Path
) -> None:
    folder, report = variant("int8"), tmp_path / "report.json"
    arguments = ["verify", str(folder), *map(str, photos.values()), "--report", str(report)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(report.read_text())
    assert content["tolerance"] == {"min_cosine": 0.999}
    assert content["weights_sha256"] == sha256_of(folder / "model.onnx.data")
    readers = {entry["reader"] for entry in content["readers"]}
    assert readers == {"clever_hub onnx", "onnxruntime"}
    assert not (folder / "verify.json").exists()


def test_info_says_what_a_variant_is_and_how_faithful(variant: Callable[[str], Path]) -> None:
    folder = variant("int8")
    result = CliRunner().invoke(app, ["info", str(folder), "--all"])
    assert result.exit_code == 0, result.output
    cosine = ModelConfig.load(folder).extra["variant"]["fidelity"]["mean_cosine_centred"]
    for words in (
        r"int8, for ONNX Runtime alone: backend=\"onnx\"",
        r"made from +clever-test-resnet",
        r"variant input +pixel_values, float32 \(batch, 3, 32, 32\), normalised",
        rf"fidelity · mean_cosine_centred · invariant +{cosine['invariant']:.4g}",
        rf"weights sha256 +{sha256_of(folder / 'model.onnx.data')}",
    ):
        assert re.search(words, result.output), words
    taken = CliRunner().invoke(app, ["info", str(variant("pixels")), "--all"]).output
    assert re.search(r"variant input +pixels, uint8 \(batch, 32, 32, 3\), red green blue", taken)


def test_a_variant_is_not_published_and_the_message_says_what_to_do(
    variant: Callable[[str], Path],
) -> None:
    with pytest.raises(ModelFormatError) as caught:
        check_folder(variant("int8"))
    message = str(caught.value)
    assert "is an ONNX variant (int8) of clever-test-resnet" in message
    assert "Publish the model" in message
    assert "does not belong" not in message, "nothing to be removed"


def test_a_variant_that_somebody_uploaded_loads_with_weights_of_its_own(
    hub: tuple[HubServer, Client],
    variant: Callable[[str], Path],
    photos: dict[str, Path],
    tmp_path: Path,
) -> None:
    server, client = hub
    tasks, photo = "tests.hub_server.tasks", str(photos["chelsea"])
    client.call(f"{tasks}:upload", "alice/small", str(variant("int8")))
    found = client.call(f"{tasks}:embed", "alice/small", [photo], backend="onnx")
    report = tmp_path / "report.json"
    assert client.call(f"{tasks}:command", "verify", "alice/small", "-o", str(report)) == 0
    assert json.loads(report.read_text())["green"]
    model = clever_hub.from_pretrained(variant("int8"), backend="onnx")
    np.testing.assert_allclose(found["full"], model.encode(photo).full, rtol=0, atol=1e-6)
    spoilt = bytearray((variant("int8") / "model.onnx.data").read_bytes())
    spoilt[-1] ^= 1
    server.hub.add_files("alice/small", {"model.onnx.data": bytes(spoilt)})
    with pytest.raises(CallFailed, match=r"model\.onnx\.data: config\.json expects SHA-256"):
        client.call(f"{tasks}:embed", "alice/small", [photo], backend="onnx")


class TestDamage:
    @pytest.fixture
    def folder(self, variant: Callable[[str], Path], tmp_path: Path) -> Path:
        return Path(shutil.copytree(variant("int8"), tmp_path / "moved"))

    @pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
    def test_a_flipped_byte(self, folder: Path, name: str) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ModelFormatError, match=f"{name}: config.json expects SHA-256"):
            clever_hub.from_pretrained(folder, backend="onnx")

    def test_a_missing_file(self, folder: Path) -> None:
        (folder / "model.onnx.data").unlink()
        with pytest.raises(ModelFormatError, match=r"model\.onnx\.data: no such file"):
            clever_hub.from_pretrained(folder, backend="onnx")

    def test_info_refuses_it_too(self, folder: Path) -> None:
        (folder / "model.onnx.data").write_bytes(b"x")
        result = CliRunner().invoke(app, ["info", str(folder)])
        assert result.exit_code == 1
        assert "model.onnx.data: config.json expects SHA-256" in " ".join(result.output.split())

    def test_torch_says_which_backend_reads_it(self, folder: Path) -> None:
        with pytest.raises(ModelFormatError, match=r'an ONNX variant.* backend="onnx"'):
            clever_hub.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("int8", r"variant: malformed \(TypeError.*'int8'$"),
            ({"precision": "int8"}, r"variant: malformed \(KeyError\('input'\)\)"),
            (
                {"precision": "int4", "input": "pixels", "files": {"model.onnx": "0"}},
                "variant: expected a precision of fp32, fp16, int8, .*'int4'",
            ),
            (
                {"precision": "int8", "input": "words", "files": {"model.onnx": "0"}},
                "variant: expected .* an input of pixel_values or pixels, .*'words'",
            ),
            (
                {
                    "precision": "int8",
                    "input": "pixels",
                    "files": {"model.onnx": "0", "../model.onnx": "0"},
                },
                r"variant: expected .* files model\.onnx, model\.onnx\.data, .*'\.\./model\.onnx'",
            ),
            (
                {"precision": "int8", "input": "pixels", "files": {}},
                r"moved: variant\.files does not name model\.onnx$",
            ),
        ],
    )
    def test_a_malformed_entry(self, folder: Path, entry: object, message: str) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["variant"] = entry
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelFormatError, match=message):
            clever_hub.from_pretrained(folder, backend="onnx")


def test_a_folder_with_something_in_it_is_left_as_it_is(
    exported: Exported, crops: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(exported("test_resnet"), tmp_path / "model"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="expected a new folder or an empty one"):
        export_variant(folder, folder, single_file=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    out = tmp_path / "int8"
    monkeypatch.setattr(variants, "MIN_COSINE", 1.1)
    with pytest.raises(ModelFormatError, match="is not faithful"):
        export_variant(folder, out, precision="int8", images=crops)
    assert not out.exists()


def test_int8_of_other_calibrations_is_told_apart_and_of_other_words_is_not(
    exported: Exported, crops: list[Path], tmp_path: Path
) -> None:
    """The scales of activations lie in the graph, and so does the config."""
    renamed = tmp_path / "renamed"
    shutil.copytree(exported("test_resnet"), renamed)
    config = ModelConfig.load(renamed)
    write_json(renamed / "config.json", replace(config, data_terms="Other words.").to_dict())
    dark = [tmp_path / path.name for path in crops]
    for bright, target in zip(crops, dark, strict=True):
        Image.open(bright).point(lambda value: value // 3).save(target)
    made = {
        "one": (exported("test_resnet"), crops),
        "words": (renamed, crops),
        "other": (exported("test_resnet"), dark),
    }
    found, weights = {}, {}
    for name, (folder, photos) in made.items():
        out = tmp_path / name
        export_variant(folder, out, precision="int8", images=photos, force=True)
        source = clever_hub.from_pretrained(out, backend="onnx").source
        assert source is not None
        found[name] = source.weights_sha256
        weights[name] = sha256_of(out / "model.onnx.data")
    assert found["one"] == found["words"] != found["other"]
    assert weights["one"] == weights["words"] != found["one"]
    entry = ModelConfig.load(tmp_path / "one").extra["variant"]
    earlier = {key: value for key, value in entry.items() if key != "scales"}
    config = ModelConfig.load(tmp_path / "one")
    write_json(
        tmp_path / "one" / "config.json",
        replace(config, extra={**config.extra, "variant": earlier}).to_dict(),
    )
    source = clever_hub.from_pretrained(tmp_path / "one", backend="onnx").source
    assert source is not None
    assert source.weights_sha256 == weights["one"], "as an earlier version knew it"
