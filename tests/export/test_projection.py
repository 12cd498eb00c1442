"""A projection after the pooled features: every reader applies it, none loses it in silence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageClassification

import clever_hub
import clever_hub.transformers
from clever_export.card import make_card
from clever_export.package import package
from clever_export.publish_check import check_folder
from clever_export.verify import verify
from clever_hub.backends.timm import classifier_name
from clever_hub.backends.torch import CleverModel, write_model_folder
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ModelFormatError

# Names of timm's classifier: "classifier", which transformers' head once had, "fc" and "head".
BACKBONES = {"test_efficientnet": 256, "test_resnet": 96, "test_vit": 64}
Made = Callable[..., tuple[Path, CleverModel]]


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A packaged folder with an orthogonal projection, and the model without it."""
    made: dict[tuple[str, bool], tuple[Path, CleverModel]] = {}

    def folder(architecture: str, half: bool = False) -> tuple[Path, CleverModel]:
        if (architecture, half) not in made:
            torch.manual_seed(0)
            width = BACKBONES[architecture]
            sized = {"img_size": 32, "patch_size": 8} if architecture == "test_vit" else {}
            config = ModelConfig(
                name="clever-test",
                architecture=architecture,
                model_args=sized,
                num_features=width,
                invariant_dim=width * 4 // 5,
                preprocessing=PreprocessingConfig(36, 32),
            )
            plain = CleverModel(config).eval()
            model = CleverModel(replace(config, projection=True)).eval()
            name = classifier_name(model.backbone)
            basis = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64)).Q.float()
            model.backbone.load_state_dict(
                {
                    **plain.backbone.state_dict(),
                    f"{name}.weight": basis,
                    f"{name}.bias": torch.randn(width),
                }
            )
            path = tmp_path_factory.mktemp("projected") / "model"
            model.save_pretrained(path, half_matrices=half)
            made[architecture, half] = package(path), plain
        return made[architecture, half]

    return folder


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("architecture", list(BACKBONES))
def test_all_four_readers_give_the_same_projected_numbers(
    architecture: str, half: bool, projected: Made, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder, plain = projected(architecture, half)
    agreements = verify(folder, [photos["coffee"]], report=tmp_path / "verify.json")
    names = {agreement.reader for agreement in agreements}
    assert len(names) == 5, "torch, onnx, a bare session, timm and transformers"
    assert all(max(a.max_abs.values()) <= 2e-5 for a in agreements), agreements
    # And these numbers are the projection of the plain network's.
    weights = load_file(folder / "model.safetensors")
    name = classifier_name(CleverModel(ModelConfig.load(folder)).backbone)
    matrix, bias = (weights[f"{name}.{kind}"].float().numpy() for kind in ("weight", "bias"))
    embedded = plain.encode(photos.values()).full @ matrix.T + bias
    found = clever_hub.from_pretrained(folder).encode(photos.values()).full
    np.testing.assert_allclose(found, embedded, rtol=0, atol=1e-2 if half else 1e-5)


def test_remote_code_applies_it_without_this_package(
    projected: Made, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder, _ = projected("test_efficientnet")
    code = (
        "import sys\n"
        "sys.modules['clever_hub'] = None\n"
        "from PIL import Image\n"
        "from transformers import AutoImageProcessor, AutoModel\n"
        "processor = AutoImageProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
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


def test_timm_refuses_to_leave_it_out(projected: Made) -> None:
    folder, _ = projected("test_resnet")
    with pytest.raises(RuntimeError, match="fc"):
        timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    content = json.loads((folder / "config.json").read_text())
    assert (content["format_version"], content["num_classes"]) == (2, 96)
    assert content["pretrained_cfg"]["num_classes"] == 96
    assert "classifier" not in content["pretrained_cfg"]


def test_the_config_holds_together(projected: Made) -> None:
    folder, _ = projected("test_resnet")
    content = json.loads((folder / "config.json").read_text())
    assert ModelConfig.from_dict(content).to_dict() == content
    for change, message in [
        ({"format_version": 1}, "format_version: expected 2 for a model with a projection"),
        ({"projection": False}, "format_version: expected 1 for a model without"),
        ({"num_classes": 0}, "num_classes: expected 96, got 0"),
        ({"projection": 1}, "projection: expected true or false"),
        (
            {"pretrained_cfg": {**content["pretrained_cfg"], "classifier": "fc"}},
            r"pretrained_cfg\.classifier: expected none .* got 'fc'",
        ),
    ]:
        with pytest.raises(ModelFormatError, match=message):
            ModelConfig.from_dict(content | change)


def test_transformers_saves_and_classifies_with_the_projection_below(
    projected: Made, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder, _ = projected("test_efficientnet")
    expected = clever_hub.from_pretrained(folder).encode(photos["coffee"]).full
    pixels = torch.from_numpy(
        clever_hub.from_pretrained(folder).preprocessor.batch([photos["coffee"]])
    )
    tuned = AutoModelForImageClassification.from_pretrained(folder, num_labels=3)
    tuned.save_pretrained(tmp_path / "tuned")
    names = set(load_file(tmp_path / "tuned" / "model.safetensors"))
    assert {"clever_head.weight", "classifier.weight", "classifier.bias"} <= names
    AutoModel.from_pretrained(tmp_path / "tuned").save_pretrained(tmp_path / "backbone")
    again = clever_hub.from_pretrained(tmp_path / "backbone").encode(photos["coffee"]).full
    np.testing.assert_array_equal(again, expected)
    with torch.no_grad():
        logits = AutoModelForImageClassification.from_pretrained(tmp_path / "tuned")(pixels).logits
        torch.testing.assert_close(logits, tuned(pixels).logits)


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_transformers_refuses_a_file_of_another_model(
    change: str, projected: Made, tmp_path: Path
) -> None:
    folder, _ = projected("test_efficientnet")
    shutil.copyfile(folder / "config.json", tmp_path / "config.json")
    weights = load_file(folder / "model.safetensors")
    if change == "missing":
        del weights["classifier.weight"]
    else:
        weights["more.weight"] = torch.zeros(2)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    name = {"missing": "classifier", "unexpected": "more"}[change]
    for auto in (AutoModel, AutoModelForImageClassification):
        with pytest.raises(ValueError, match=rf"{change}: \['backbone\.{name}\.weight'\]"):
            auto.from_pretrained(tmp_path)


def test_a_head_under_its_old_name_is_still_read(tmp_path: Path) -> None:
    """Until a projection could be called ``classifier``, the head was."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="clever-test",
        architecture="test_efficientnet",
        num_features=256,
        invariant_dim=204,
        preprocessing=PreprocessingConfig(36, 32),
    )
    CleverModel(config).save_pretrained(tmp_path / "plain")
    tuned = AutoModelForImageClassification.from_pretrained(tmp_path / "plain", num_labels=3)
    tuned.save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "model.safetensors"
    weights = load_file(path)
    for kind in ("weight", "bias"):
        weights[f"classifier.{kind}"] = weights.pop(f"clever_head.{kind}")
    save_file(weights, path, {"format": "pt"})
    read = AutoModelForImageClassification.from_pretrained(tmp_path / "old")
    torch.testing.assert_close(read.clever_head.weight, tuned.clever_head.weight)
    read.save_pretrained(tmp_path / "new")
    assert "clever_head.weight" in load_file(tmp_path / "new" / "model.safetensors")
    AutoModel.from_pretrained(tmp_path / "old")  # without its head


def test_it_can_be_published_and_its_card_says_how_timm_reads_it(
    projected: Made, photos: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(projected("test_resnet")[0], tmp_path / "model"))
    verify(folder, [photos["coffee"]])
    check_folder(folder)
    assert 'local-dir:FOLDER", pretrained=True).eval()' in make_card(folder)


def test_a_network_without_one_linear_classifier_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(
        name="clever-test",
        architecture="deit_tiny_distilled_patch16_224",
        num_features=192,
        invariant_dim=150,
        preprocessing=PreprocessingConfig(224, 224),
        projection=True,
    )
    with pytest.raises(ModelFormatError, match=r"projection: expected .* one linear layer"):
        write_model_folder(tmp_path / "model", config, {})
