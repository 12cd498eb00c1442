"""Small photos in folders, and a model that embeds them quickly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def album(photos: dict[str, Path], tmp_path: Path) -> Path:
    """Thirty pieces of real photos as JPEG, in two folders."""
    root = tmp_path / "album"
    (root / "second").mkdir(parents=True)
    rng = np.random.default_rng(0)
    opened = [Image.open(path).convert("RGB") for path in photos.values()]
    for index in range(30):
        photo = opened[index % len(opened)]
        left, top = (int(rng.integers(0, side - 100)) for side in photo.size)
        piece = photo.crop((left, top, left + 100, top + 80))
        piece.save(root / ("second" if index >= 20 else "") / f"{index:02}.jpg")
    return root
