"""From a model and photos to a folder with two parts, by the command too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from typer.testing import CliRunner

import clever_hub
from clever_hub.backends.torch import CleverModel, write_model_folder
from clever_hub.cli.app import app
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.errors import ConfigError, DataError
from clever_hub.weights import Weights
from clever_training.model.backbones import start_backbone
from clever_training.split.run import SplitPlan, split_model

WIDTH, TILES = 256, 150
PLAN = SplitPlan(photos=TILES, count=3)


@pytest.fixture(scope="module")
def tiles(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 different tiles of real photos."""
    folder, random = tmp_path_factory.mktemp("split-tiles"), np.random.default_rng(0)
    images = [Image.open(path).convert("RGB") for path in photos.values()]
    for number in range(TILES):
        image = images[number % len(images)]
        left = int(random.integers(image.width - 80))
        top = int(random.integers(image.height - 80))
        image.crop((left, top, left + 80, top + 80)).resize((40, 40)).save(
            folder / f"{number:03}.png"
        )
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float16"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without parts, with random weights: a small EfficientNet."""
    torch.manual_seed(0)
    config = ModelConfig(
        name="clever-test",
        architecture="test_efficientnet",
        num_features=WIDTH,
        invariant_dim=WIDTH,
        preprocessing=PreprocessingConfig(36, 32),
        license="cc-by-nc-4.0",
        data_terms="Of the test.",
    )
    folder = tmp_path_factory.mktemp("plain") / "model"
    state = CleverModel(config).backbone.state_dict()
    return write_model_folder(folder, config, state, half_matrices=request.param)


@pytest.fixture(scope="module")
def split(plain: Path, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("split") / "halved"
    split_model(str(plain), str(tiles), target, plan=PLAN)
    return target


def _cosines(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    centered = rows.astype(np.float64) - mean
    unit = centered / np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def test_centred_cosines_of_the_whole_embedding_stay(plain: Path, split: Path, tiles: Path) -> None:
    one, two = (clever_hub.from_pretrained(folder) for folder in (plain, split))
    images = sorted(tiles.glob("*.png"))[:40]
    before, after = (model.encode(images).full for model in (one, two))
    with Weights(split / "model.safetensors") as weights:
        half = weights.entries["classifier.weight"].dtype == "F16"
        basis, bias = (
            weights.tensors()[f"classifier.{kind}"].astype(np.float64)
            for kind in ("weight", "bias")
        )
    mean = -np.linalg.solve(basis, bias)  # what the projection takes to 0
    found = np.abs(_cosines(before, mean) - _cosines(after, np.zeros(WIDTH))).max()
    assert found <= (1e-4 if half else 1e-6)
    with Weights(plain / "model.safetensors") as weights:
        assert half == any(entry.dtype == "F16" for entry in weights.entries.values())


def test_the_folder_says_what_it_is(plain: Path, split: Path, tiles: Path) -> None:
    config = ModelConfig.load(split)
    assert config.projection
    assert (config.name, config.invariant_dim) == ("halved", 204)
    assert (config.license, config.data_terms) == ("cc-by-nc-4.0", "Of the test.")
    stored = config.provenance["split"]
    assert stored["photos"] == {"fitted": 90, "chosen": 30, "measured": 30}
    assert set(stored["similarity"]) == {"full", "first", "last", "invariant", "equivariant"}
    assert {"turn, sine", "turn, cosine", "zoom"} <= stored["r2"]["invariant"].keys()
    assert stored["c"] in [entry["c"] for entry in stored["tried"]]
    assert stored["shrinkage"]["between"] > 0, "90 photos for 256 dimensions"
    kept, mrr = ({entry["c"]: entry[key] for entry in stored["tried"]} for key in ("kept", "mrr"))
    assert max(kept, key=lambda c: kept[c] + mrr[c]) == stored["c"]
    digest = clever_hub.from_pretrained(plain).source
    assert digest is not None
    assert config.provenance["start"]["weights_sha256"] == digest.weights_sha256
    assert str(tiles) not in json.dumps(config.provenance)
    timm.create_model(f"local-dir:{split}", pretrained=True)


def test_what_is_split_is_not_split_again_unless_forced(
    plain: Path, split: Path, tiles: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"has a projection already; its parts are 204 \+ 52"):
        split_model(str(split), str(tiles), tmp_path / "twice", plan=PLAN)
    assert not (tmp_path / "twice").exists()
    again = replace(PLAN, ratio=0.5)
    split_model(str(split), str(tiles), tmp_path / "twice", plan=again, force=True)
    images = sorted(tiles.glob("*.png"))[:20]
    models = [clever_hub.from_pretrained(folder) for folder in (split, tmp_path / "twice")]
    assert [model.config.invariant_dim for model in models] == [204, 128]
    # Rotated further, about the same mean: the views are the same.
    one, two = (_cosines(model.encode(images).full, np.zeros(WIDTH)) for model in models)
    with Weights(split / "model.safetensors") as weights:
        half = weights.entries["classifier.weight"].dtype == "F16"
    np.testing.assert_allclose(one, two, rtol=0, atol=2e-3 if half else 1e-5)
    with pytest.raises(ConfigError, match=r"backbone\.init: .* has a projection"):
        start_backbone("test_efficientnet", {}, 0.0, str(split))


def test_bad_input_is_named_before_anything_is_written(
    plain: Path, tiles: Path, photo_folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    with pytest.raises(DataError, match=r"at least 100 photos, got 48\. 429 are enough"):
        split_model(str(plain), str(photo_folder), target)
    with pytest.raises(ConfigError, match=r"--ratio: .* got 1\.0"):
        SplitPlan(ratio=1.0)
    with pytest.raises(ConfigError, match="--views: expected one of baug, caug"):
        SplitPlan(views="mine")
    with pytest.raises(ConfigError, match="--photos: expected 1 or more, got -5"):
        SplitPlan(photos=-5)
    assert not target.exists()
    target.mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        split_model(str(plain), str(tiles), target)


def test_the_command_says_what_came_of_it(plain: Path, tiles: Path, tmp_path: Path) -> None:
    arguments = ["split", str(plain), "--data", str(tiles), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--photos", "150", "--count", "2"])
    assert result.exit_code == 0, result.output
    for words in ("similarity kept", "MRR", "turn, cosine", "were shrunk", "photos or more"):
        assert words in " ".join(result.output.split()), words
    assert ModelConfig.load(tmp_path / "out").projection
