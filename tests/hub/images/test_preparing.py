"""The preprocessor agrees with torchvision's transforms bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from clever_hub.config import PreprocessingConfig
from clever_hub.errors import ImageError
from clever_hub.images.middle import WholeAndMiddle
from clever_hub.images.opening import load_image, open_image
from clever_hub.images.options import LoadOptions
from clever_hub.images.preparing import Preprocessor

MODES = transforms.InterpolationMode
CONFIG = PreprocessingConfig(resize_size=73, crop_size=64)


def reference(image: Image.Image, config: PreprocessingConfig) -> torch.Tensor:
    """The same steps, as torchvision does them on a PIL image."""
    steps = [
        transforms.Resize(config.resize_size, MODES(config.interpolation)),
        transforms.CenterCrop(config.crop_size),
        transforms.ToTensor(),
        transforms.Normalize(config.mean, config.std),
    ]
    prepared: torch.Tensor = transforms.Compose(steps)(image)
    return prepared


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_equal_to_torchvision_on_photos(
    name: str, interpolation: str, photos: dict[str, Path]
) -> None:
    config = replace(CONFIG, interpolation=interpolation)
    expected = reference(Image.open(photos[name]).convert("RGB"), config).numpy()
    np.testing.assert_array_equal(Preprocessor(config)(photos[name]), expected, strict=True)


@pytest.mark.parametrize(
    "size", [(64, 64), (73, 73), (73, 200), (64, 65), (1, 1), (3, 1), (301, 200), (200, 301)]
)
@pytest.mark.parametrize("crop", [64, 63])
def test_equal_to_torchvision_at_every_size(size: tuple[int, int], crop: int) -> None:
    # Odd and even differences: both round the half pixel the same way.
    config = replace(CONFIG, crop_size=crop)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    expected = reference(Image.fromarray(noise), config).numpy()
    np.testing.assert_array_equal(Preprocessor(config)(noise), expected, strict=True)


def test_a_uniform_image_shows_the_normalisation() -> None:
    config = PreprocessingConfig(8, 8, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    pixels = Preprocessor(config)(np.full((9, 9, 3), 255, np.uint8))
    assert pixels[:, 0, 0].tolist() == [1.0, 1.0, 0.0]


def test_a_batch_is_its_images(photos: dict[str, Path]) -> None:
    preprocess = Preprocessor(CONFIG)
    batch = preprocess.batch(photos.values())
    assert batch.shape == (4, 3, 64, 64)
    for row, photo in zip(batch, photos.values(), strict=True):
        np.testing.assert_array_equal(row, preprocess(photo))
    assert preprocess.batch([]).shape == (0, 3, 64, 64)


def test_a_thin_line_would_grow_without_bounds_and_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("L", (60_000, 1)).save(path)
    preprocess = Preprocessor(PreprocessingConfig(224, 224))
    opened = open_image(path, LoadOptions(), None)  # as the jobs do, to decode it once
    for image in (path, opened):
        with pytest.raises(ImageError, match=r"line\.png: too long and thin .* 60000×1"):
            preprocess(image)
    with pytest.raises(ImageError, match=r"line\.png: too long and thin"):
        WholeAndMiddle(preprocess.config)(path)


def test_an_image_for_users_has_no_file_name(photos: dict[str, Path]) -> None:
    # ``datasets`` stores one that has it as its path, not as the upright RGB that it is.
    assert not hasattr(load_image(photos["coffee"]), "filename")
