"""The torch backend: strict loading, one split, gradients, nothing left changed."""

from __future__ import annotations

import copy
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import clever_hub
from clever_hub.backends.torch import CleverModel, expected_shapes, write_model_folder
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, DeviceError, ModelFormatError
from clever_hub.hub.origin import origin, without_labels
from clever_hub.weights import sha256_of


def test_the_split_is_the_beginning_and_the_rest(model: CleverModel) -> None:
    pixels = torch.randn(3, 3, 32, 32)
    out = model(pixels)
    assert out.invariant.shape == (3, 19)
    assert out.equivariant.shape == (3, 5)
    torch.testing.assert_close(out.full, model.backbone(pixels), rtol=0, atol=0)


def test_gradients_reach_the_backbone_through_either_part(model: CleverModel) -> None:
    for part in ("invariant", "equivariant", "full"):
        model.zero_grad()
        getattr(model(torch.randn(2, 3, 32, 32)), part).sum().backward()
        gradient = next(model.backbone.parameters()).grad
        assert gradient is not None
        assert gradient.abs().sum() > 0


def test_encode_is_the_forward_pass_on_prepared_images(
    model: CleverModel, photos: dict[str, Path]
) -> None:
    pixels = torch.from_numpy(model.preprocessor.batch(photos.values()))
    with torch.no_grad():
        expected = model(pixels).full.numpy()
    embeddings = model.encode(photos.values())
    np.testing.assert_allclose(embeddings.full, expected, atol=1e-6)
    assert embeddings.full.dtype == np.float32
    assert len(np.unique(embeddings.full.round(4), axis=0)) == 4, "different photos, same vector"


def test_a_call_takes_the_array_that_the_preprocessor_makes(
    model: CleverModel, photos: dict[str, Path]
) -> None:
    """As with the onnx backend."""
    pixels = model.preprocessor.batch(photos.values())
    out = model(pixels)
    torch.testing.assert_close(out.full, model(torch.from_numpy(pixels)).full, rtol=0, atol=0)
    assert out.full.requires_grad
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half(pixels).full.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"expected \(batch, 3, .*, got \(3, 32, 32\)"):
        model(pixels[0])
    with pytest.raises(ValueError, match=r"expected float32, got uint8\. Give model\.preproc"):
        model(pixels.astype(np.uint8))


def test_the_batch_size_does_not_matter(model: CleverModel, photos: dict[str, Path]) -> None:
    images = [*photos.values()] * 3
    one, many = (model.encode(images, batch_size=size).full for size in (1, 5))
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_the_order_of_pixels_in_memory_does_not_change_what_is_encoded(
    photos: dict[str, Path],
) -> None:
    config = ModelConfig("tiny", "mobilenetv3_small_050", 1024, 819, PreprocessingConfig(64, 64))
    model = CleverModel(config).eval()
    orders: list[bool] = []
    model.register_forward_pre_hook(
        lambda _, inputs: orders.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    found = model.encode(photos.values()).full
    model._channels_last = False
    expected = model.encode(photos.values()).full
    assert orders == [True, False]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("half", [False, True])
def test_a_folder_gives_the_same_model_again(
    resnet_config: ModelConfig, half: bool, tmp_path: Path, photos: dict[str, Path]
) -> None:
    model = CleverModel(resnet_config)
    model(torch.randn(4, 3, 32, 32))  # one step of batch norm's statistics and counters
    folder = model.eval().save_pretrained(tmp_path / "deep" / "er", half_matrices=half)
    again = clever_hub.from_pretrained(folder)
    assert not again.training
    timm_names = {"classifier": "fc", "first_conv": "conv1"}
    assert again.config == replace(resnet_config, extra={"pretrained_cfg": timm_names})
    for name, tensor in again.backbone.state_dict().items():
        original = model.backbone.state_dict()[name]
        assert tensor.dtype == original.dtype, "computed in float32, whatever is stored"
        if half and tensor.ndim >= 2:
            original = original.half().float()
        assert torch.equal(tensor, original), name
    a, b = (m.encode(photos.values(), normalize=True).full for m in (model, again))
    np.testing.assert_allclose(a, b, atol=2e-3 if half else 0)
    assert again.source is not None
    assert again.source.kind == "folder"
    assert again.source.weights_sha256 == sha256_of(folder / "model.safetensors")


def test_matrices_in_half_precision_halve_the_file(model: CleverModel, tmp_path: Path) -> None:
    tensors = load_file(model.save_pretrained(tmp_path, half_matrices=True) / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim >= 2} == {torch.float16}
    assert {tensor.dtype for tensor in tensors.values() if tensor.ndim < 2} == {torch.float32}


def test_timm_reads_the_same_folder(
    model: CleverModel, model_folder: Path, photos: dict[str, Path]
) -> None:
    backbone = timm.create_model(f"local-dir:{model_folder}", pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        full = backbone(torch.from_numpy(model.preprocessor.batch(photos.values()))).numpy()
    np.testing.assert_allclose(full, model.encode(photos.values()).full, atol=1e-6)


# What is wrong with a folder, and what the message says.


def _rewrite(folder: Path, change: object) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.bias"), r"missing: norm\.bias"),
        (lambda t: t.update({"head.weight": torch.zeros(2)}), r"unexpected: head\.weight"),
        (
            lambda t: t.update({"norm.bias": torch.zeros(25)}),
            r"wrong shape: norm\.bias expected \[24\], got \[25\]",
        ),
        (lambda t: t["norm.bias"].fill_(float("nan")), r"not finite: norm\.bias"),
    ],
)
def test_wrong_weights_are_listed(model_folder: Path, change: object, message: str) -> None:
    _rewrite(model_folder, change)
    with pytest.raises(ModelFormatError, match=message):
        CleverModel.from_folder(model_folder)


def test_truncated_weights_are_refused(model_folder: Path) -> None:
    path = model_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFormatError, match="corrupt or incomplete"):
        CleverModel.from_folder(model_folder)


def test_a_folder_without_weights(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(ModelFormatError, match=r"model\.safetensors.*No such file"):
        CleverModel.from_folder(model_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet81"}, "no model 'resnet81'"),
        ({"model_args": {"no_such_argument": 1}}, "timm cannot build"),
        ({"model_args": {}}, "num_features: .* gives 192, config.json says 24"),
        # 12 layers of 60,000 features would be 2 TB; refused before any of it is allocated.
        ({"model_args": {"embed_dim": 60_000, "num_heads": 1}}, "at most 4,000,000,000 parameters"),
    ],
)
def test_a_config_that_cannot_be_built(
    model_folder: Path, changes: dict[str, object], message: str
) -> None:
    path = model_folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelFormatError, match=message):
        CleverModel.from_folder(model_folder)


def test_weights_are_compared_before_anything_is_allocated(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    build = timm.create_model

    def watched(name: str, **options: Any) -> nn.Module:
        devices.append(torch.get_default_device().type)
        return build(name, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    _rewrite(model_folder, lambda tensors: tensors.pop("norm.bias"))
    with pytest.raises(ModelFormatError, match="missing"):
        CleverModel.from_folder(model_folder)
    assert devices == ["meta"]


@pytest.mark.parametrize(
    ("architecture", "features"),
    [
        ("resnet50", 2048),
        ("convnext_atto", 320),
        ("swin_tiny_patch4_window7_224", 768),
        ("mobilenetv3_small_100", 1024),
    ],
)
def test_other_backbones_can_be_described(
    config: ModelConfig, architecture: str, features: int
) -> None:
    other = replace(config, architecture=architecture, model_args={}, num_features=features)
    assert len(expected_shapes(other)) > 50


# Writing.


def test_what_does_not_fit_is_not_written(model: CleverModel, tmp_path: Path) -> None:
    state = dict(model.backbone.state_dict())
    del state["norm.bias"]
    with pytest.raises(ModelFormatError, match=r"clever-tiny: .*\n  missing: norm\.bias"):
        write_model_folder(tmp_path / "out", model.config, state)
    assert not (tmp_path / "out").exists()


def test_what_half_precision_cannot_hold_is_not_written(model: CleverModel, tmp_path: Path) -> None:
    state = dict(model.backbone.state_dict())
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"] + 1e5
    with pytest.raises(ModelFormatError, match=r"patch_embed\.proj\.weight.*float16 can hold"):
        write_model_folder(tmp_path, model.config, state, half_matrices=True)
    write_model_folder(tmp_path, model.config, state)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_weights_in_another_precision_are_not_written(
    model_folder: Path, tmp_path: Path, dtype: str
) -> None:
    model = clever_hub.from_pretrained(model_folder, dtype=dtype)
    with pytest.raises(
        ModelFormatError, match=rf"expected float32 weights.*got torch\.{dtype}\. S"
    ):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model.float().save_pretrained(tmp_path / "out")


@pytest.fixture
def self_supervised(model_folder: Path) -> CleverModel:
    """Loaded from a folder which says that no labels were used."""
    path = model_folder / "config.json"
    made = {"method": "clever-simclr", "recipe": {}, "start": {"init": "random"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": made}))
    return CleverModel.from_folder(model_folder)


def test_what_was_trained_further_is_not_said_to_be_made_as_before(
    self_supervised: CleverModel, model_folder: Path, tmp_path: Path
) -> None:
    model, before = self_supervised, self_supervised.config
    digest = sha256_of(model_folder / "model.safetensors")
    copied = ModelConfig.load(model.save_pretrained(tmp_path / "copy", half_matrices=True))
    assert copied.provenance == before.provenance
    assert "without labels" in origin(copied)
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.01)
    for folder in (tmp_path / "tuned", model_folder, tmp_path / "again"):  # the second, onto itself
        tuned = ModelConfig.load(model.save_pretrained(folder))
        start = {**before.provenance, "name": "clever-tiny", "weights_sha256": digest}
        assert tuned.provenance == {"start": start}
        assert origin(tuned).startswith("trained further, by a method that is not recorded")
        assert not without_labels(tuned)
    assert model.config == before, "the model itself is as it was"


def test_without_its_folder_a_model_still_knows_whether_it_changed(
    self_supervised: CleverModel, model_folder: Path, tmp_path: Path
) -> None:
    model, before = self_supervised, self_supervised.config.provenance
    shutil.rmtree(model_folder)
    assert ModelConfig.load(model.save_pretrained(tmp_path / "same")).provenance == before
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.01)
    assert "start" in ModelConfig.load(model.save_pretrained(tmp_path / "tuned")).provenance


def test_what_a_caller_says_of_a_training_is_kept(
    self_supervised: CleverModel, tmp_path: Path
) -> None:
    model, said = self_supervised, {"method": "cross-entropy", "data": "mine, with labels"}
    model.config = replace(model.config, provenance=said)
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.01)
    assert ModelConfig.load(model.save_pretrained(tmp_path / "tuned")).provenance == said


def test_a_reader_never_sees_half_of_a_folder_that_is_written_again(
    model: CleverModel, model_folder: Path
) -> None:
    done = threading.Event()

    def write() -> None:
        for _ in range(8):
            model.save_pretrained(model_folder)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        reads = 0
        while not done.is_set() or reads == 0:
            CleverModel.from_folder(model_folder)
            reads += 1
        writing.result()
    assert sorted(path.name for path in model_folder.iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


# Modes, threads, devices.


def test_encoding_in_the_middle_of_training_changes_nothing(
    resnet_config: ModelConfig, photos: dict[str, Path]
) -> None:
    model = CleverModel(resnet_config).train()
    frozen = model.backbone.get_submodule("layer1")
    frozen.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = model.encode(photos.values()).full
    assert model.training
    assert not frozen.training
    assert not frozen.get_submodule("0.bn1").training
    assert model.backbone.get_submodule("layer2").training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} changed: batch norm was not in eval mode"
    np.testing.assert_array_equal(trained, model.eval().encode(photos.values()).full)


def test_threads_may_encode_at_the_same_time(
    resnet_config: ModelConfig, photos: dict[str, Path]
) -> None:
    model = CleverModel(resnet_config).train()
    paths = list(photos.values())
    expected = model.encode(paths).full
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.encode(paths, batch_size=1).full, range(8)):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert model.training
    assert all(module.training for module in model.modules())


def test_a_failing_backbone_gets_its_mode_back(model: CleverModel) -> None:
    model.train()
    with pytest.raises(Exception, match=r"size|shape|dimension|doesn't match"):
        model._embed_batch(np.zeros((1, 3, 31, 31), np.float32))
    assert model.training


def test_a_copy_is_independent(model: CleverModel, photos: dict[str, Path]) -> None:
    teacher = copy.deepcopy(model)
    expected = teacher.encode(photos["coffee"]).full
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
    np.testing.assert_array_equal(teacher.encode(photos["coffee"]).full, expected)


def test_lower_precision_is_close_and_comes_out_as_float32(
    model_folder: Path, photos: dict[str, Path]
) -> None:
    low = clever_hub.from_pretrained(model_folder, dtype="bfloat16")
    assert next(low.parameters()).dtype == torch.bfloat16
    embeddings = low.encode(photos.values(), normalize=True)
    assert embeddings.full.dtype == np.float32
    exact = clever_hub.from_pretrained(model_folder).encode(photos.values(), normalize=True)
    assert (embeddings.invariant * exact.invariant).sum(axis=1).min() > 0.99


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps:7"])
def test_a_device_that_is_not_there_is_an_error(model_folder: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=device):
        clever_hub.from_pretrained(model_folder, device=device)


@pytest.mark.parametrize("dtype", ["int8", "fp16", "nn", "float8_e4m3fn"])
def test_a_dtype_that_does_not_compute_is_an_error(model_folder: Path, dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"dtype: expected 'float32'.*got '{dtype}'"):
        clever_hub.from_pretrained(model_folder, dtype=dtype)


def test_an_unknown_option_is_an_error(model_folder: Path) -> None:
    with pytest.raises(ConfigError, match="providers"):
        clever_hub.from_pretrained(model_folder, providers=[])  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="threads: expected 1 to 4096, got 0"):
        clever_hub.from_pretrained(model_folder, threads=0)
    with pytest.raises(ConfigError, match="threads: expected 1 to 4096, got 3000000000"):
        clever_hub.from_pretrained(model_folder, threads=3_000_000_000)


def test_the_size_of_the_input_follows_the_config(resnet_config: ModelConfig) -> None:
    larger = replace(resnet_config, preprocessing=PreprocessingConfig(96, 80))
    image = np.zeros((200, 100, 3), np.uint8)
    assert CleverModel(larger).preprocessor(image).shape == (3, 80, 80)
    assert len(CleverModel(larger).encode(image)) == 1
