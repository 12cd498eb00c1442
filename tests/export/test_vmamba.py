"""A VMamba folder: every reader gives the same vectors, and the code goes with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification

import clever_hub
import clever_hub.transformers
from clever_export.onnx import check_graph
from clever_export.package import package
from clever_export.publish_check import check_folder
from clever_export.verify import verify
from clever_hub.backends.own import remote_code
from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import CleverError

CODE = {"vmamba.py", "vmamba_blocks.py", "selective_scan.py"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, complete."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="clever-vmamba",
        architecture="vmamba_tiny",
        model_args={"depths": [1, 1], "dims": [32, 64]},
        num_features=64,
        invariant_dim=51,
        preprocessing=PreprocessingConfig(40, 36),
    )
    model = CleverModel(config)
    with torch.no_grad():  # as if trained: each order of the map with weights of its own
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return package(model.save_pretrained(tmp_path_factory.mktemp("vmamba"), half_matrices=True))


def test_every_reader_gives_the_same(folder: Path, photos: dict[str, Path]) -> None:
    agreements = verify(folder, photos.values())
    assert {agreement.reader for agreement in agreements} == {
        *("clever_hub torch", "clever_hub onnx", "onnxruntime", "timm", "transformers")
    }
    assert all(agreement.green for agreement in agreements), agreements
    report = json.loads((folder / "verify.json").read_text())
    assert "clever_hub.backends.vmamba" in report["conditions"]["timm"]


def test_the_graph_takes_any_batch_and_carries_no_weights(folder: Path) -> None:
    check_graph(folder)
    assert (folder / "model.onnx").stat().st_size < 500_000
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    backbone = clever_hub.from_pretrained(folder).backbone
    for batch in (1, 3, 8):
        pixels = torch.randn(batch, 3, 36, 36)
        found = np.concatenate(session.run(None, {"pixel_values": pixels.numpy()}), axis=1)
        with torch.no_grad():
            np.testing.assert_allclose(found, backbone(pixels).numpy(), atol=2e-5)


def test_remote_code_needs_timm_alone(
    folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    assert {path.name for path in folder.iterdir()} >= CODE
    code = (
        "import json, sys\n"
        "sys.modules['clever_hub'] = None\n"  # an import of the package would fail
        "from PIL import Image\n"
        "from transformers import AutoImageProcessor, AutoModel\n"
        "folder = sys.argv[1]\n"
        "processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)\n"
        "model = AutoModel.from_pretrained(folder, trust_remote_code=True)\n"
        "inputs = processor(Image.open(sys.argv[2]), return_tensors='pt')\n"
        "found = [model(**inputs).pooler_output.tolist()]\n"
        "model.save_pretrained(sys.argv[3])\n"
        "model = AutoModel.from_pretrained(sys.argv[3], trust_remote_code=True)\n"
        "found.append(model(**inputs).pooler_output.tolist())\n"
        "print(json.dumps(found))\n"
    )
    again = tmp_path / "again"
    shutil.copytree(folder, again, ignore=shutil.ignore_patterns("*.py", "*.onnx", "config.json"))
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(photos["chelsea"]), str(again)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert {path.name for path in again.iterdir()} >= CODE, "what it writes has the code, too"
    expected = clever_hub.from_pretrained(folder).encode(photos["chelsea"]).full
    for found in json.loads(result.stdout.strip().split("\n")[-1]):
        np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=1e-5)


def test_what_transformers_saves_has_the_code_too(folder: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved")
    for name, text in remote_code("vmamba_tiny").items():
        assert (tmp_path / "saved" / name).read_text() == text
    code = (
        "import sys\n"
        "sys.modules['clever_hub'] = None\n"  # an import of the package would fail
        "from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print(sum(parameter.numel() for parameter in model.parameters()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved")],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[-1]) == sum(p.numel() for p in model.parameters())
    with pytest.raises(ValueError, match=r"Leave it out, and call model\.push_to_hub"):
        model.save_pretrained(tmp_path / "pushed", push_to_hub=True)


def test_a_head_beside_its_own_classifier_norm(folder: Path, tmp_path: Path) -> None:
    """The published names have a ``classifier.norm``; transformers' head is ``classifier`` too."""
    own = AutoModelForImageClassification.from_pretrained(folder, num_labels=3).eval()
    stored = load_file(folder / "model.safetensors")["classifier.norm.weight"].float()
    assert torch.equal(own.backbone.classifier.norm.weight, stored)
    own.save_pretrained(tmp_path / "head")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "head").eval()
    pixels = torch.randn(2, 3, 36, 36)
    with torch.no_grad():
        assert torch.equal(own(pixels).logits, again(pixels).logits)


def test_publishing_wants_its_code(folder: Path, photos: dict[str, Path], tmp_path: Path) -> None:
    verify(folder, photos.values())
    check_folder(folder)
    card = (folder / "README.md").read_text()
    assert "import clever_hub.backends.vmamba" in card
    assert "the six `.py` files" in card
    scan = folder / "selective_scan.py"
    content = scan.read_text()
    try:
        scan.write_text(content + "# a stranger's\n")
        with pytest.raises(CleverError, match=r"selective_scan\.py is not this version's"):
            check_folder(folder)
        scan.unlink()
        with pytest.raises(CleverError, match=r"missing: selective_scan\.py"):
            check_folder(folder)
    finally:
        scan.write_text(content)
