"""A small labelled data set of real photos, and a model small enough to run in a test."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("datasets")

import datasets
import skimage.data
import torch

from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_training.evaluation.data import Splits, load_splits

CLASSES = ("astronaut", "chelsea", "coffee", "rocket")
TRAIN, VALIDATION, SIDE = 60, 24, 64
# Of videos.
FRAMES, STEP, HEIGHT, WIDTH = 6, 16, 160, 192


def crops(count: int, seed: int) -> tuple[list[bytes], list[int]]:
    """Random squares cut out of four photos, as PNG files; the photo is the class."""
    random = np.random.default_rng(seed)
    files, labels = [], []
    for index in range(count):
        photo = getattr(skimage.data, CLASSES[index % 4])()
        size = int(random.integers(150, 250))
        top = int(random.integers(photo.shape[0] - size))
        left = int(random.integers(photo.shape[1] - size))
        square = Image.fromarray(photo[top : top + size, left : left + size])
        buffer = io.BytesIO()
        square.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "PNG")
        files.append(buffer.getvalue())
        labels.append(index % 4)
    return files, labels


@pytest.fixture(scope="session", autouse=True)
def dataset_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what `datasets` and the feature store cache out of the home folder."""
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.parquet and validation.parquet with columns image and label."""
    folder = tmp_path_factory.mktemp("photos-by-class")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    for seed, (name, count) in enumerate((("train", TRAIN), ("validation", VALIDATION))):
        files, labels = crops(count, seed)
        rows = {"image": [{"bytes": file, "path": None} for file in files], "label": labels}
        datasets.Dataset.from_dict(rows, features).to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="session")
def splits(photo_folder: Path) -> Splits:
    return load_splits(str(photo_folder))


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return ModelConfig(
        name="clever-tiny",
        architecture="test_resnet",
        num_features=96,
        invariant_dim=76,
        preprocessing=PreprocessingConfig(resize_size=32, crop_size=32),
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config: ModelConfig) -> CleverModel:
    torch.manual_seed(5)
    return CleverModel(tiny_config).eval()


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two videos: a photo that wanders, and one that stands still, with two objects."""
    for name, step in (("wandering", STEP), ("standing", 0)):
        photo = skimage.data.astronaut()  # type: ignore[no-untyped-call]
        truth = np.zeros(photo.shape[:2], dtype=np.uint8)
        truth[64:160, 176:272] = 255
        if name == "standing":
            truth[64:160, 176:224], truth[64:160, 224:272] = 1, 2
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / folder / "480p" / name).mkdir(parents=True)
        for number in range(FRAMES):
            left = 96 + number * step
            window = np.s_[32 : 32 + HEIGHT, left : left + WIDTH]
            frames, masks = (tmp_path / f / "480p" / name for f in ("JPEGImages", "Annotations"))
            Image.fromarray(photo[window]).save(frames / f"{number:05}.jpg", quality=95)
            mask = Image.fromarray(truth[window])
            if name == "standing":
                mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
            mask.save(masks / f"{number:05}.png")
    return tmp_path
