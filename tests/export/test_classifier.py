"""A fine-tuned classifier runs in ONNX Runtime, with the logits that torch gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
from typer.testing import CliRunner

import clever_hub
from clever_export import classifier
from clever_hub.cli.app import app
from clever_hub.config import PreprocessingConfig
from clever_hub.transformers import CleverForImageClassification

Exported = Callable[..., Path]
NAMES = ("heron", "newt", "otter")
KINDS = [("test_resnet", "full"), ("test_resnet", "equivariant"), ("test_vit", "invariant")]


def write(source: Path, folder: Path, part: str = "full", **options: Any) -> Path:
    """A classifier with a random head, as transformers saves it."""
    torch.manual_seed(0)
    options = options or {"id2label": dict(enumerate(NAMES))}
    network = CleverForImageClassification.from_pretrained(source, head_input=part, **options)
    with torch.no_grad():
        network.clever_head.weight.normal_()
        network.clever_head.bias.normal_()
    network.save_pretrained(folder)
    return folder


def export(folder: Path, out: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["export", str(folder), "-o", str(out), *options])


@pytest.fixture
def tuned(exported: Exported, tmp_path: Path) -> Path:
    return write(exported("test_resnet"), tmp_path / "tuned")


def logits_of(folder: Path, paths: list[Path]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of image files."""
    config = json.loads((folder / "config.json").read_text())
    prepare = clever_hub.Preprocessor(PreprocessingConfig.from_dict(config["preprocessing"]))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    (logits,) = session.run(["logits"], {"pixel_values": prepare.batch(paths)})
    return np.asarray(logits)


@pytest.mark.parametrize(("architecture", "part"), KINDS)
def test_its_logits_are_those_of_transformers_on_real_photos(
    architecture: str, part: str, exported: Exported, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = write(exported(architecture), tmp_path / "tuned", part)
    result = export(folder, tmp_path / "out")
    assert result.exit_code == 0, result.output
    paths = list(photos.values())
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    processor: Any = AutoImageProcessor
    prepare = processor.from_pretrained(tmp_path / "out")  # of the folder that was written
    pixels = prepare([clever_hub.load_image(path) for path in paths], return_tensors="pt")
    with torch.no_grad():
        expected = network(**pixels).logits.numpy()
    assert expected.shape == (4, 3)
    assert np.ptp(expected, axis=0).min() > 0.01, "different photos, same logits"
    for size in (1, 3, 4):
        found = logits_of(tmp_path / "out", paths[:size])
        np.testing.assert_allclose(
            found, expected[:size], rtol=0, atol=1e-4 * np.abs(expected).max()
        )
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert tuple(again.config.id2label.values()) == NAMES


def test_all_weights_of_backbone_and_head_lie_in_the_weights_file(
    tuned: Path, tmp_path: Path
) -> None:
    assert export(tuned, tmp_path / "out").exit_code == 0
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    external = {
        tensor.name.removeprefix("backbone.")
        for tensor in graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    stored = load_file(tuned / "model.safetensors")
    assert external == {name for name in stored if "num_batches_tracked" not in name}
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 100_000
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (tuned / "model.safetensors").read_bytes()


def test_the_page_classifies_a_photo_without_torch(
    tuned: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    repository: Path,
    without_torch: Path,
) -> None:
    page = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "tuned-onnx" in c)
    assert export(tuned, tmp_path / "tuned-onnx").exit_code == 0
    shutil.copyfile(photos["rocket"], tmp_path / "photo.jpg")
    without = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
    done = subprocess.run(
        [str(without_torch / "python"), "-c", without + code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    best = logits_of(tmp_path / "tuned-onnx", [photos["rocket"]])[0].argmax()
    assert done.stdout == f"{NAMES[best]}\n"


def test_names_that_transformers_leaves_out_are_there(
    exported: Exported, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = write(exported("test_resnet"), tmp_path / "tuned", num_labels=2)
    assert export(folder, tmp_path / "out").exit_code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}
    assert logits_of(tmp_path / "out", [photos["rocket"]]).shape == (1, 2)


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _without_head(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["clever_head.weight"]
    save_file(tensors, path)


def _without_a_layer(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["layer1.0.conv1.weight"]
    save_file(tensors, path)


def _not_finite(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["clever_head.bias"][1] = torch.nan
    save_file(tensors, path)


def _edit(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_truncate, r"tuned/model\.safetensors: expected .* bytes"),
        (_without_head, r"tuned/model\.safetensors: expected a classification head"),
        (_without_a_layer, r"missing: layer1\.0\.conv1\.weight"),
        (_not_finite, r"tuned/model\.safetensors: not finite: clever_head\.bias"),
        (lambda folder: _edit(folder, id2label={"0": "one"}), "the head's 3 outputs"),
        (lambda folder: _edit(folder, head_input="none"), "head_input: expected one of full"),
        (lambda folder: _edit(folder, invariant_dim=0), r"tuned/config\.json: invariant_dim"),
    ],
)
def test_what_is_damaged_is_named_and_nothing_is_written(
    damage: Callable[[Path], None], told: str, tuned: Path, tmp_path: Path
) -> None:
    damage(tuned)
    result = export(tuned, tmp_path / "out")
    assert result.exit_code == 1
    assert re.search(told, " ".join(result.output.split())), result.output
    assert ".tmp" not in result.output
    assert list(tmp_path.iterdir()) == [tuned]


def test_weights_that_changed_since_the_graph_are_refused(tuned: Path, tmp_path: Path) -> None:
    assert export(tuned, tmp_path / "out").exit_code == 0
    path = tmp_path / "out" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = export(tmp_path / "out", tmp_path / "again")
    assert result.exit_code == 1
    assert "changed since model.onnx beside it was made" in " ".join(result.output.split())
    assert not (tmp_path / "again").exists()


def test_a_graph_that_differs_from_torch_is_not_written(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = classifier._run
    monkeypatch.setattr(classifier, "_run", lambda *args: run(*args) * np.float32(1.001))
    result = export(tuned, tmp_path / "out")
    assert result.exit_code == 1
    message = " ".join(result.output.split())
    assert "expected the logits of torch within" in message
    assert "in batches of 1" in message
    assert list(tmp_path.iterdir()) == [tuned]


@pytest.mark.parametrize(
    "options", [["--precision", "fp16"], ["--with-preprocessing"], ["--single-file"]]
)
def test_a_variant_of_a_classifier_is_refused(
    options: list[str], tuned: Path, tmp_path: Path
) -> None:
    result = export(tuned, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "a classifier, which is exported as a float32 graph" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_processor_of_another_size_is_refused_and_not_replaced(
    exported: Exported, tmp_path: Path
) -> None:
    tuned = write(exported("test_resnet"), tmp_path / "tuned")
    config = json.loads((tuned / "config.json").read_text())["preprocessing"]
    sizes = {"resize_size": config["resize_size"] + 16, "crop_size": config["crop_size"] + 16}
    (tuned / "preprocessor_config.json").write_text(json.dumps({**config, **sizes}))
    result = export(tuned, tmp_path / "out")
    assert result.exit_code == 1
    assert f"has resize_size {sizes['resize_size']}, crop_size {sizes['crop_size']}" in (
        " ".join(result.stderr.split())
    )
    assert not (tmp_path / "out").exists()
    (tuned / "preprocessor_config.json").write_text(json.dumps(config))
    assert export(tuned, tmp_path / "out").exit_code == 0


@pytest.mark.parametrize("options", [(), ("--with-preprocessing",)])
def test_the_processor_of_a_model_is_not_replaced_either(
    exported: Exported, tmp_path: Path, options: tuple[str, ...]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exported("test_resnet"), folder)
    numbers = json.loads((folder / "config.json").read_text())["preprocessing"]
    (folder / "preprocessor_config.json").write_text(json.dumps({**numbers, "crop_size": 48}))
    result = export(folder, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "has crop_size 48" in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
