"""Many tiles of real photos, and embeddings in which the answers are planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clever_training.heads.embedding import EmbeddedViews
from clever_training.heads.views import HeadViews, ViewMaker

TILES = 200


@pytest.fixture(scope="session")
def tiles(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 different tiles of 40 px in an image folder."""
    folder = tmp_path_factory.mktemp("many-tiles")
    random = np.random.default_rng(0)
    images = [Image.open(path).convert("RGB") for path in photos.values()]
    for number in range(TILES):
        image = images[number % len(images)]
        left = int(random.integers(image.width - 80))
        top = int(random.integers(image.height - 80))
        image.crop((left, top, left + 80, top + 80)).resize((40, 40)).save(
            folder / f"{number:03}.png"
        )
    return folder


def planted(photos: int = 200, views: int = 12, seed: int = 0) -> EmbeddedViews:
    """Embeddings of 24 entries, the last 8 of which say how a view is turned and mirrored.

    Drawn as real views are; the photo itself is 16 random numbers, which a view shows with noise.
    """
    from clever_hub.config import PreprocessingConfig

    make = ViewMaker(PreprocessingConfig(8, 8), HeadViews(count=views), seed)
    random = np.random.default_rng(seed)
    parameters = np.empty((photos, views, 14), np.float32)
    for photo in range(photos):
        parameters[photo] = [view.as_array() for view in make.draw(photo, 100, 100)]
    angle, flip = parameters[..., 5], 2 * parameters[..., 4] - 1
    turn = [np.sin(angle), np.cos(angle), flip, flip * np.sin(angle), flip * np.cos(angle)]
    size = np.log(parameters[..., 2])
    said = np.stack([*turn, size, parameters[..., 6], 0 * size], axis=-1)
    who = random.normal(size=(photos, 1, 16)) + 0.3 * random.normal(size=(photos, views, 16))
    rows = np.concatenate([who, 3 + 2 * said + 0.02 * random.normal(size=said.shape)], axis=-1)
    return EmbeddedViews(rows.astype(np.float32), parameters, 16, "planted")
