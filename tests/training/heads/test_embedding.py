"""Views of many photos are embedded in little memory."""

from __future__ import annotations

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.config import PreprocessingConfig
from clever_hub.images.encoding import EncoderMixin
from clever_training.data.photos import load_photos
from clever_training.heads import embedding
from clever_training.heads.embedding import embed_views
from clever_training.heads.views import HeadViews, PhotoViews, ViewMaker


class Blank(EncoderMixin):
    """A model that sees nothing."""

    config: Any = SimpleNamespace(preprocessing=PreprocessingConfig(16, 16), invariant_dim=6)

    def _embed_batch(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.zeros((len(pixel_values), 8), np.float32)


def test_pixels_are_let_go_once_they_are_embedded(
    tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 photos of 160 pixels a side with 12 views would be 18 GB."""
    alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
    most = 0

    class Watched(ViewMaker):
        def __call__(self, photo: Any, row: int) -> PhotoViews:
            nonlocal most
            views = super().__call__(photo, row)
            alive[row] = views.pixels
            most = max(most, len(alive))
            return views

    monkeypatch.setattr(embedding, "ViewMaker", Watched)
    found = embed_views(Blank(), load_photos(str(tiles), None), range(200), HeadViews(count=6))
    assert len(found) > 150
    assert most < 40  # a batch of 64 views, and eight photos ahead


def test_copies_of_photos_that_are_known_are_left_out(tiles: Path) -> None:
    photos, views = load_photos(str(tiles), None), HeadViews(count=6)
    first = embed_views(Blank(), photos, range(20), views)
    assert first.thumbnails is not None
    assert len(first.thumbnails) == len(first) > 10
    more = embed_views(Blank(), photos, range(15, 40), views, known=first.thumbnails)
    alone = embed_views(Blank(), photos, range(20, 40), views)
    assert 0 < len(more) <= len(alone)
