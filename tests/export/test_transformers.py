"""transformers reads the folder, with this package and without it, and writes it back unharmed."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

import clever_hub
import clever_hub.transformers
from clever_export.package import package
from clever_hub.errors import ModelFormatError
from clever_hub.hub.origin import origin
from clever_hub.transformers import CleverConfig, CleverModel, modeling_clever
from tests.hub.jobs.conftest import CALIBRATION, write_heads
from tests.hub_server.client import Client
from tests.hub_server.server import HubServer

Exported = Callable[..., Path]
BOTH = pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])


@pytest.fixture(scope="module")
def packaged(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Complete folders."""
    made: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp("packaged") / "model"
            shutil.copytree(exported(architecture), made[architecture])
            package(made[architecture])
        return made[architecture]

    return folder


@BOTH
def test_auto_classes_give_the_same_vectors(
    architecture: str, packaged: Exported, photos: dict[str, Path]
) -> None:
    folder = packaged(architecture)
    expected = clever_hub.from_pretrained(folder).encode(photos.values())
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    assert type(model) is clever_hub.transformers.CleverModel
    images = [clever_hub.load_image(path) for path in photos.values()]
    inputs = processor(images, return_tensors="pt")
    ours = clever_hub.from_pretrained(folder).preprocessor.batch(photos.values())
    assert np.array_equal(inputs["pixel_values"].numpy(), ours)
    with torch.no_grad():
        output = model(**inputs)
    np.testing.assert_allclose(output.pooler_output.numpy(), expected.full, rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.invariant.numpy(), expected.invariant, rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.equivariant.numpy(), expected.equivariant, rtol=0, atol=1e-5)


def test_feature_pipeline_gives_the_whole_embedding_and_asks_nothing(
    packaged: Exported, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipelines would ask on the terminal whether remote code may run, for fifteen seconds."""
    asked: list[str] = []

    def decline(prompt: str) -> str:
        asked.append(prompt)
        return "n"

    monkeypatch.setattr("builtins.input", decline)
    folder = packaged("test_resnet")
    extract = pipeline("image-feature-extraction", model=str(folder), device="cpu")
    image = clever_hub.load_image(photos["coffee"])
    expected = clever_hub.from_pretrained(folder).encode(image).full
    np.testing.assert_allclose(np.array(extract(image)), expected, rtol=0, atol=1e-5)
    assert asked == []


@BOTH
def test_saving_keeps_timms_names_letter_by_letter(
    architecture: str, packaged: Exported, tmp_path: Path, photos: dict[str, Path]
) -> None:
    folder = packaged(architecture)
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name].float(), before[name].float()) for name in before)
    again = AutoModel.from_pretrained(tmp_path)
    expected = clever_hub.from_pretrained(folder).encode(photos["chelsea"]).full
    pixels = torch.from_numpy(
        clever_hub.from_pretrained(folder).preprocessor.batch([photos["chelsea"]])
    )
    with torch.no_grad():
        found = again(pixels).pooler_output.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("part", "width"), [("full", 96), ("invariant", 76), ("equivariant", 20)])
def test_a_classifier_sees_the_part_that_its_config_names(
    part: str, width: int, packaged: Exported, tmp_path: Path, photos: dict[str, Path]
) -> None:
    folder = packaged("test_resnet")
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=3, head_input=part)
    assert model.clever_head.in_features == width
    backbone = clever_hub.from_pretrained(folder).backbone.state_dict()
    assert all(
        torch.equal(value, backbone[name]) for name, value in model.backbone.state_dict().items()
    )
    pixels = torch.from_numpy(
        clever_hub.from_pretrained(folder).preprocessor.batch(photos.values())
    )
    labels = torch.tensor([0, 1, 2, 0])
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = model(pixels, labels=labels).loss
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval().save_pretrained(tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert names == {*backbone, "clever_head.weight", "clever_head.bias"}
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(pixels).logits, model(pixels).logits)


def _several(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels)


def _squared(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(logits, labels.reshape(logits.shape))


@pytest.mark.parametrize(
    ("problem", "num_labels", "labels", "loss"),
    [
        ("single_label_classification", 3, [0, 2], F.cross_entropy),
        (None, 3, [0, 2], F.cross_entropy),
        ("multi_label_classification", 3, [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], _several),
        (None, 3, [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], _several),
        ("regression", 3, [[0.5, -1.0, 2.0], [3.0, 0.0, 0.1]], _squared),
        (None, 1, [0.3, 1.2], _squared),
        (None, 1, [[0.3], [1.2]], _squared),
    ],
)
def test_the_loss_is_that_of_the_problem(
    problem: str | None, num_labels: int, labels: list[Any], loss: Any, packaged: Exported
) -> None:
    options = {"num_labels": num_labels, "problem_type": problem}
    model = AutoModelForImageClassification.from_pretrained(packaged("test_resnet"), **options)
    targets = torch.tensor(labels)
    output = model.eval()(torch.randn(2, 3, 32, 32), labels=targets)
    torch.testing.assert_close(output.loss, loss(output.logits, targets))


def test_the_trainer_fine_tunes_and_saves_what_the_other_readers_read(
    packaged: Exported, tmp_path: Path, photos: dict[str, Path]
) -> None:
    folder = packaged("test_resnet")
    model = AutoModelForImageClassification.from_pretrained(folder, num_labels=2)
    before = clever_hub.from_pretrained(folder).backbone.state_dict()
    prepared = clever_hub.from_pretrained(folder).preprocessor.batch(photos.values())
    rows = [
        {"pixel_values": torch.from_numpy(pixels), "labels": index % 2}
        for index, pixels in enumerate(prepared)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        dataloader_pin_memory=False,
    )
    result = Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert np.isfinite(result.training_loss)
    model.save_pretrained(tmp_path / "tuned")
    saved = load_file(tmp_path / "tuned" / "model.safetensors")
    assert saved.keys() == {*before, "clever_head.weight", "clever_head.bias"}
    moved = [name for name, value in before.items() if not torch.equal(saved[name], value)]
    assert any(name.endswith("weight") for name in moved)
    with pytest.raises(ModelFormatError, match=r"a model with a classification head.*AutoModel"):
        clever_hub.from_pretrained(tmp_path / "tuned")
    # The way that the message names.
    AutoModel.from_pretrained(tmp_path / "tuned").save_pretrained(tmp_path / "backbone")
    ours = clever_hub.from_pretrained(tmp_path / "backbone").backbone
    timms = timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True, num_classes=0)
    for found in (ours.state_dict(), timms.state_dict()):
        assert found.keys() == before.keys()
        assert all(torch.equal(found[name], saved[name]) for name in before)


def test_saving_beside_a_graph_of_other_weights_is_refused(packaged: Exported) -> None:
    folder = packaged("test_resnet")
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"expected a folder without model\.onnx"):
        AutoModel.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("saved", [False, True], ids=["packaged", "saved by transformers"])
def test_remote_code_does_the_same_without_this_package(
    saved: bool, packaged: Exported, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = packaged("test_resnet")
    if saved:
        AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "saved")
        AutoImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "saved")
        folder = tmp_path / "saved"
    code = (
        "import sys\n"
        "sys.modules['clever_hub'] = None\n"  # an import of the package would fail
        "from PIL import Image\n"
        "from transformers import AutoConfig, AutoImageProcessor, AutoModel\n"
        "folder = sys.argv[1]\n"
        "processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)\n"
        "model = AutoModel.from_pretrained(folder, trust_remote_code=True)\n"
        "inputs = processor(Image.open(sys.argv[2]), return_tensors='pt')\n"
        "print(model(**inputs).pooler_output.tolist())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(photos["chelsea"])],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    expected = clever_hub.from_pretrained(folder).encode(photos["chelsea"]).full
    found = np.array(json.loads(result.stdout.strip().split("\n")[-1]))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_remote_code_classifies_and_extracts_without_this_package(
    packaged: Exported, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = packaged("test_resnet")
    code = (
        "import json, sys\n"
        "sys.modules['clever_hub'] = None\n"
        "from PIL import Image\n"
        "from transformers import AutoModelForImageClassification, pipeline\n"
        "folder, photo = sys.argv[1], Image.open(sys.argv[2])\n"
        "model = AutoModelForImageClassification.from_pretrained(\n"
        "    folder, trust_remote_code=True, num_labels=3, head_input='equivariant')\n"
        "shape = list(model.clever_head.weight.shape)\n"
        "same = [float(x) for x in model.backbone.state_dict()['conv1.0.weight'].flatten()[:9]]\n"
        "task = 'image-feature-extraction'\n"
        "extract = pipeline(task, model=folder, trust_remote_code=True, device='cpu')\n"
        "print(json.dumps([shape, same, extract(photo)]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(photos["chelsea"])],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    shape, weights, vector = json.loads(result.stdout.strip().split("\n")[-1])
    model = clever_hub.from_pretrained(folder)
    assert shape == [3, 20]
    assert weights == model.backbone.state_dict()["conv1.0.weight"].flatten()[:9].tolist()
    expected = model.encode(photos["chelsea"]).full
    np.testing.assert_allclose(np.array(vector), expected, rtol=0, atol=1e-5)


def test_what_is_pushed_to_the_hub_loads_from_there(
    hub: tuple[HubServer, Client], packaged: Exported, photos: dict[str, Path]
) -> None:
    folder, photo = packaged("test_resnet"), str(photos["coffee"])
    (server, client), tasks = hub, "tests.hub_server.tasks"
    client.call(f"{tasks}:push_to_hub", str(folder), "alice/pushed")
    names = set(server.hub.repositories["alice/pushed"].head.files)
    found = client.call(f"{tasks}:embed", "alice/pushed", [photo])
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= names
    expected = clever_hub.from_pretrained(folder).encode(photo).full
    np.testing.assert_allclose(found["full"], expected, rtol=0, atol=1e-6)


def test_packaging_twice_changes_nothing(packaged: Exported) -> None:
    folder = packaged("test_resnet")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    package(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_processor_scales_16_bits_and_refuses_what_has_no_range(packaged: Exported) -> None:
    folder = packaged("test_resnet")
    processor = AutoImageProcessor.from_pretrained(folder)
    steps = np.arange(0, 65_536, 16, dtype=np.uint16).reshape(64, 64)
    deep = Image.fromarray(steps)
    ours = clever_hub.from_pretrained(folder).preprocessor(deep)
    assert np.array_equal(processor(deep, return_tensors="np")["pixel_values"][0], ours)
    turned = Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3))
    file = BytesIO()
    turned.save(file, "PNG", exif=b"Exif\0\0II*\0")  # tags that end early
    plain, odd = (
        processor(image, return_tensors="np")["pixel_values"]
        for image in (turned, Image.open(file))
    )
    assert np.array_equal(plain, odd)
    turned.getexif()[ExifTags.Base.Orientation] = 6
    ours = clever_hub.from_pretrained(folder).preprocessor(turned)
    assert np.array_equal(processor(turned, return_tensors="np")["pixel_values"][0], ours)
    gray = (steps // 256).astype(np.uint8)[:, :, None]
    ours = clever_hub.from_pretrained(folder).preprocessor(gray)
    assert np.array_equal(processor(gray, return_tensors="np")["pixel_values"][0], ours)
    with pytest.raises(TypeError, match=r"expected uint8 .* got float64; multiply"):
        processor(np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match="no agreed range"):
        processor(Image.new("F", (8, 8)))


def test_the_processor_takes_tensors_as_torchvision_reads_them(packaged: Exported) -> None:
    folder = packaged("test_resnet")
    processor = AutoImageProcessor.from_pretrained(folder)
    photos = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
    expected = clever_hub.from_pretrained(folder).preprocessor.batch(list(photos))
    tensors = torch.from_numpy(photos).permute(0, 3, 1, 2)
    for given in (tensors, [*tensors]):
        assert np.array_equal(processor(given, return_tensors="np")["pixel_values"], expected)
    one = processor(tensors[0], return_tensors="pt")["pixel_values"]
    assert np.array_equal(one.numpy(), expected[:1])
    gray, flat = processor(tensors[0, :1]), processor(tensors[0, 0])
    assert np.array_equal(gray["pixel_values"][0], flat["pixel_values"][0])
    with pytest.raises(TypeError, match=r"expected uint8 .* got torch\.float32; multiply"):
        processor(tensors[0] / 255)
    with pytest.raises(ValueError, match=r"\(3, height, width\), got \(70, 90, 3\)\. Give chann"):
        processor(torch.from_numpy(photos[0]))


def test_the_processor_takes_a_size_on_loading_and_ignores_none_on_calling(
    packaged: Exported,
) -> None:
    folder, photo = packaged("test_resnet"), Image.new("RGB", (96, 64))
    processor = AutoImageProcessor.from_pretrained(folder, resize_size=40, crop_size=40)
    assert processor(photo, return_tensors="np")["pixel_values"].shape == (1, 3, 40, 40)
    with pytest.raises(TypeError, match=r"got crop_size, do_resize\. Set sizes, .* on loading"):
        processor(photo, return_tensors="np", crop_size=32, do_resize=False)


def test_a_folder_does_not_name_code_that_it_lacks(packaged: Exported, tmp_path: Path) -> None:
    folder = packaged("test_resnet")
    saved = clever_hub.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert "auto_map" not in json.loads((saved / "config.json").read_text())
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    assert "auto_map" in json.loads((package(saved) / "config.json").read_text())


def test_a_head_on_no_part_is_refused(packaged: Exported) -> None:
    with pytest.raises(ValueError, match=r"head_input: expected one of \['full', .* got 'equi'"):
        AutoModelForImageClassification.from_pretrained(
            packaged("test_resnet"), num_labels=3, head_input="equi"
        )


def test_a_split_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="invariant_dim: expected 1 to 10 of 10"):
        clever_hub.transformers.CleverConfig(num_features=10, invariant_dim=11)
    with pytest.raises(ValueError, match="has no equivariant part"):
        clever_hub.transformers.CleverConfig(
            num_features=10, invariant_dim=10, head_input="equivariant"
        )
    with pytest.raises(ValueError, match="head_input: expected 'full'"):
        clever_hub.transformers.CleverConfig(head_input="both")


def test_the_processor_refuses_what_the_core_refuses() -> None:
    from clever_hub.transformers.image_processing_clever import CleverImageProcessor

    with pytest.raises(ValueError, match="crop_size: expected 1 to 64"):
        CleverImageProcessor(resize_size=64, crop_size=96)(Image.new("RGB", (80, 80)))
    with pytest.raises(ValueError, match="interpolation: expected one of nearest"):
        CleverImageProcessor(interpolation="cubic")(Image.new("RGB", (80, 80)))
    processor: Any = CleverImageProcessor(64, 64)
    with pytest.raises(ValueError, match="too long and thin to resize: 60000 × 1 pixels"):
        processor(Image.new("RGB", (60_000, 1)))
    pixels = np.zeros((3, 40, 50), np.uint8)
    for wrong in (pixels, pixels[None]):
        with pytest.raises(ValueError, match=r"of shape \(height, width, 3\), got \("):
            processor(wrong)
    with pytest.raises(TypeError, match="a list within the list"):
        processor([[pixels.transpose(1, 2, 0)]])


def test_what_other_readers_could_not_load_is_not_saved(packaged: Exported, tmp_path: Path) -> None:
    model: Any = AutoModel.from_pretrained(packaged("test_resnet"))
    with pytest.raises(ValueError, match=r"expected float32 weights.*got torch\.bfloat16"):
        model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    with pytest.raises(ValueError, match="one weights file, got 100000"):
        model.float().save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert not (tmp_path / "half").exists()
    assert not (tmp_path / "shards").exists()
    model.save_pretrained(tmp_path / "whole", max_shard_size="1GB")
    assert clever_hub.from_pretrained(tmp_path / "whole").config.num_features == 96


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_head_and_backbone_reload_exactly(
    packaged: Exported, tmp_path: Path, architecture: str
) -> None:
    # transformers 5 has initialised tensors anew without a word (huggingface/transformers#46620).
    model: Any = AutoModelForImageClassification.from_pretrained(
        packaged(architecture), num_labels=3
    )
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    model.save_pretrained(tmp_path / "tuned")
    again: Any = AutoModelForImageClassification.from_pretrained(tmp_path / "tuned")
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_gradient_checkpointing_gives_the_same_gradients(
    packaged: Exported, architecture: str
) -> None:
    model: Any = AutoModel.from_pretrained(packaged(architecture)).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for wanted in (False, True):
        if wanted:  # by its name in transformers 5.0, or by that of later releases
            name = "activation_checkpointing_enable"
            getattr(model, name, model.gradient_checkpointing_enable)()
        model.zero_grad()
        model(pixels).pooler_output.square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert model.gradient_checkpointing
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize(
    ("architecture", "shape"), [("test_resnet", (2, 96, 1, 1)), ("test_vit", (2, 17, 64))]
)
def test_the_last_hidden_state_is_what_is_pooled(
    packaged: Exported, architecture: str, shape: tuple[int, ...]
) -> None:
    model: Any = AutoModel.from_pretrained(packaged(architecture))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(pixels)
        assert output.last_hidden_state.shape == shape
        assert torch.equal(model.backbone.forward_head(output.last_hidden_state), output[0])
        torch.testing.assert_close(model.backbone(pixels), output.pooler_output)
        assert torch.equal(model(pixels, return_dict=False)[-1], output.last_hidden_state)
    if architecture == "test_vit":  # CLS first, then the patches row by row
        features = model.backbone.forward_features(pixels)
        assert torch.equal(output.last_hidden_state[:, 0], features[:, 0])


def test_the_places_of_a_network_with_channels_last_are_tokens() -> None:
    config = CleverConfig("test_mambaout", num_features=64, invariant_dim=51)
    model: Any = CleverModel(config).eval()
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = model(pixels).last_hidden_state
        places = model.backbone.forward_features(pixels)  # (1, rows, columns, 64)
    assert places.shape == (1, 2, 3, 64)
    assert last.shape == (1, 6, 64)
    assert torch.equal(last[0, 4], places[0, 1, 1])


def written_out(model: Any, pixels: torch.Tensor) -> int:
    """How many of timm's layers have their attention weights in memory, which fused ones do not."""
    seen: list[int] = []
    layers = [m.attn_drop for m in model.backbone.modules() if hasattr(m, "fused_attn")]
    handles = [layer.register_forward_hook(lambda *_: seen.append(1)) for layer in layers]
    with torch.no_grad():
        model(pixels)
    for handle in handles:
        handle.remove()
    return len(seen)


def test_attention_is_fused_or_written_out_as_asked(packaged: Exported, tmp_path: Path) -> None:
    folder = packaged("test_vit")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fused: Any = AutoModel.from_pretrained(folder, attn_implementation="sdpa")
    eager: Any = AutoModel.from_pretrained(folder, attn_implementation="eager")
    plain: Any = AutoModel.from_pretrained(folder)
    assert [m.config._attn_implementation for m in (fused, eager, plain)] == [
        *("sdpa", "eager", "sdpa"),
    ]
    layers = len(fused.backbone.blocks)
    assert [written_out(m, pixels) for m in (fused, eager, plain)] == [0, layers, 0]
    with torch.no_grad():
        torch.testing.assert_close(fused(pixels).pooler_output, eager(pixels).pooler_output)
    fused.set_attn_implementation("eager")
    assert fused.config._attn_implementation == "eager"
    assert written_out(fused, pixels) == layers
    fused.set_attn_implementation("sdpa")
    assert written_out(fused, pixels) == 0
    # It is how one computes, not what the model is.
    eager.save_pretrained(tmp_path)
    again: Any = AutoModel.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "wanted", ["flash_attention_2", "flex_attention", "kernels/some-attention"]
)
def test_an_attention_that_timm_lacks_is_refused(packaged: Exported, wanted: str) -> None:
    folder = packaged("test_vit")
    with pytest.raises(ValueError, match=f"expected 'sdpa' or 'eager', .* got '{wanted}'"):
        AutoModel.from_pretrained(folder, attn_implementation=wanted)
    model: Any = AutoModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="expected 'sdpa' or 'eager'"):
        model.set_attn_implementation(wanted)
    assert model.config._attn_implementation == "sdpa"


def test_a_network_without_attention_has_none_to_fuse(packaged: Exported) -> None:
    folder = packaged("test_resnet")
    with pytest.raises(ValueError, match="test_resnet has no attention that timm could fuse"):
        AutoModel.from_pretrained(folder, attn_implementation="sdpa")
    for options in ({}, {"attn_implementation": "eager"}):
        model: Any = AutoModel.from_pretrained(folder, **options)
        assert model.config._attn_implementation == "eager"


# By its name in transformers 5.0, or by that of later releases.
CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in inspect.signature(TrainingArguments).parameters
)


def trained(
    folder: Path, photos: dict[str, Path], output: Path, options: dict[str, Any], **loading: Any
) -> dict[str, torch.Tensor]:
    """The weights after a few steps of the Trainer."""
    torch.manual_seed(0)
    model: Any = AutoModelForImageClassification.from_pretrained(folder, num_labels=2, **loading)
    prepared = clever_hub.from_pretrained(folder).preprocessor.batch(photos.values())
    rows = [
        {"pixel_values": torch.from_numpy(pixels), "labels": index % 2}
        for index, pixels in enumerate(prepared)
    ]
    arguments = TrainingArguments(
        output_dir=str(output),
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,  # which would hide gradients of the wrong length
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        dataloader_pin_memory=False,
        **{"max_steps": 3, "per_device_train_batch_size": 4, **options},
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = Trainer(model=model, args=arguments, train_dataset=rows).train()
    assert np.isfinite(result.training_loss)
    assert model.backbone.grad_checkpointing == (CHECKPOINTING in options)
    after: dict[str, torch.Tensor] = model.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    return {name: value.clone() for name, value in after.items()}


@pytest.mark.parametrize(
    "other",
    [
        {"attn_implementation": "eager"},
        {CHECKPOINTING: True},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    ],
    ids=["eager attention", "gradient checkpointing", "two batches for one"],
)
def test_the_trainer_comes_to_the_same_weights(
    other: dict[str, Any], packaged: Exported, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder, loading = packaged("test_vit"), dict(other)
    four = dict(list(photos.items())[:4])
    attention = {"attn_implementation": loading.pop("attn_implementation", "sdpa")}
    expected = trained(folder, four, tmp_path / "a", {}, attn_implementation="sdpa")
    found = trained(folder, four, tmp_path / "b", loading, **attention)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


def test_outputs_that_there_are_not_are_refused(packaged: Exported) -> None:
    pixels = torch.zeros(1, 3, 32, 32)
    for kind in (AutoModel, AutoModelForImageClassification):
        model: Any = kind.from_pretrained(packaged("test_vit"))
        with pytest.raises(ValueError, match="output_attentions: these models give last_hidden_st"):
            model(pixels, output_attentions=True)
        with pytest.raises(ValueError, match="output_hidden_states"):
            model(pixels, output_hidden_states=True)
        model(pixels, output_hidden_states=False, num_items_in_batch=1)


@BOTH
def test_the_trainer_resumes_with_all_weights_and_ends_with_the_best(
    architecture: str, packaged: Exported, tmp_path: Path
) -> None:
    """Its own methods give ``load_state_dict`` a checkpoint's names, which are timm's."""
    load: Any = AutoModelForImageClassification.from_pretrained
    tuned = load(packaged(architecture), num_labels=2)
    with torch.no_grad():
        for tensor in tuned.state_dict().values():
            tensor.add_(1)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    checkpoint = str(tmp_path / "checkpoint-1")
    Trainer(model=tuned, args=arguments).save_model(checkpoint)
    ways: list[Callable[[Any], None]] = [
        lambda trainer: trainer._load_from_checkpoint(checkpoint),
        lambda trainer: trainer._load_best_model(),
    ]
    for way in ways:
        model = load(packaged(architecture), num_labels=2)
        trainer = Trainer(model=model, args=arguments)
        trainer.state.best_model_checkpoint = checkpoint
        way(trainer)
        assert all(
            torch.equal(value, tuned.state_dict()[name])
            for name, value in model.state_dict().items()
        )


def test_the_names_of_timm_are_found_within_another_module(packaged: Exported) -> None:
    folder = packaged("test_vit")
    model: Any = AutoModel.from_pretrained(folder)
    timms = {f"0.{name}": torch.zeros_like(x) for name, x in model.backbone.state_dict().items()}
    torch.nn.Sequential(model).load_state_dict(timms, strict=True)
    assert not any(value.any() for value in model.state_dict().values())
    own = AutoModel.from_pretrained(folder).state_dict()
    model.load_state_dict(own, strict=True)
    assert all(torch.equal(own[name], value) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match=r"Unexpected key.*no_such"):
        model.load_state_dict({**own, "no_such.weight": torch.zeros(1)})


MADE = {"method": "clever-simclr", "recipe": {}, "start": {"init": "random"}}


def provenance_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())["provenance"]
    return found


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForImageClassification])
def test_what_was_trained_further_is_not_said_to_be_made_as_before(
    auto: Any, exported: Exported, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported("test_resnet"), tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "provenance": MADE}))
    model: Any = auto.from_pretrained(folder)
    model.to(memory_format=torch.channels_last).save_pretrained(tmp_path / "same")
    assert provenance_of(tmp_path / "same") == MADE
    with torch.no_grad():
        next(model.backbone.parameters()).add_(1e-3)
    for name in ("tuned", "again"):
        model.save_pretrained(tmp_path / name)
        start = {**MADE, "name": "clever-test-resnet"}
        assert provenance_of(tmp_path / name) == {"start": start}
    assert model.config.provenance == MADE, "the model itself is as it was"
    if auto is AutoModel:
        said = origin(clever_hub.from_pretrained(tmp_path / "tuned").config)
        assert said.startswith("trained further, by a method that is not recorded")
    state = auto.from_pretrained(folder).state_dict()  # what a Trainer gives where it has gathered
    model.save_pretrained(tmp_path / "given", state_dict=state)
    assert provenance_of(tmp_path / "given") == MADE
    model.config.provenance = {"method": "cross-entropy", "data": "mine, with labels"}
    model.save_pretrained(tmp_path / "told")
    assert provenance_of(tmp_path / "told") == model.config.provenance


def test_a_saved_model_promises_no_heads(packaged: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "headed"
    shutil.copytree(packaged("test_resnet"), folder)
    write_heads(folder, CALIBRATION)
    model = AutoModel.from_pretrained(folder)
    assert model.config.heads["file"] == "heads.safetensors"
    model.save_pretrained(tmp_path / "saved")
    assert model.config.heads
    assert not clever_hub.from_pretrained(tmp_path / "saved").has_heads


def test_the_commands_take_all_of_a_model_on_the_hub(
    hub: tuple[HubServer, Client], packaged: Exported, tmp_path: Path
) -> None:
    (_, client), tasks = hub, "tests.hub_server.tasks"
    folder = tmp_path / "headed"
    shutil.copytree(packaged("test_resnet"), folder)
    write_heads(folder, CALIBRATION)
    client.call(f"{tasks}:upload", "alice/headed", str(folder))
    report = tmp_path / "report.json"
    assert client.call(f"{tasks}:command", "verify", "alice/headed", "-o", str(report)) == 0
    readers = {entry["reader"] for entry in json.loads(report.read_text())["readers"]}
    assert readers >= {"clever_hub torch", "clever_hub onnx", "onnxruntime", "transformers"}
    out = tmp_path / "out"
    assert client.call(f"{tasks}:command", "export", "alice/headed", "-o", str(out)) == 0
    assert clever_hub.from_pretrained(out).heads.config.in_dim == 20


NOT_IN_THE_FILE = pytest.mark.parametrize(
    ("architecture", "arguments", "size"),
    [
        ("resnetblur18", {}, 64),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 64, "window_size": 4, "depths": [2, 2], "embed_dim": 24},
            64,
        ),
        (
            "eva02_tiny_patch14_224",
            {"img_size": 56, "depth": 2, "embed_dim": 48, "num_heads": 2},
            56,
        ),
        (
            "vit_relpos_small_patch16_224",
            {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 2},
            64,
        ),
    ],
)


@NOT_IN_THE_FILE
@pytest.mark.parametrize("computes", [True, False], ids=["timm-computes", "older-timm"])
def test_buffers_that_no_file_holds_are_those_of_the_network(
    architecture: str,
    arguments: dict[str, Any],
    size: int,
    computes: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network: Any = timm.create_model(architecture, num_classes=0, **arguments)
    features = network.num_features
    config = CleverConfig(
        architecture, model_args=arguments, num_features=features, invariant_dim=features // 2
    )
    model: Any = CleverModel(config).eval()
    if not computes:  # timm 1.0.21 has no method that computes them
        monkeypatch.setattr(modeling_clever, "_COMPUTE", "none_has_this")
    buffers = dict(model.named_non_persistent_buffers())
    assert buffers
    model.save_pretrained(tmp_path)
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(pixels).pooler_output
    state = torch.get_rng_state()
    loaded: Any = AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in loaded.named_non_persistent_buffers():
        assert torch.equal(buffer, buffers[name]), name
    head: Any = AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=2)
    for found in (loaded, CleverModel.from_pretrained(tmp_path).eval(), head.eval()):
        with torch.no_grad():
            assert torch.equal(found.embed(pixels).pooler_output, expected)
