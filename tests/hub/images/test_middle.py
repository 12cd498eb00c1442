"""A photo at two scales: the whole as every backend sees it, and its middle from nearer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from clever_hub.config import PreprocessingConfig
from clever_hub.errors import ImageError
from clever_hub.images.middle import SHARE, WholeAndMiddle
from clever_hub.images.options import LoadOptions
from clever_hub.images.preparing import Preprocessor

CONFIG = PreprocessingConfig(resize_size=72, crop_size=64)


def test_the_whole_is_what_the_model_sees_and_the_middle_lies_within(
    photos: dict[str, Path],
) -> None:
    both, plain = WholeAndMiddle(CONFIG)(photos["coffee"]), Preprocessor(CONFIG)(photos["coffee"])
    np.testing.assert_array_equal(both[0], plain)
    # The same place of the whole, enlarged, shows the same.
    edge = CONFIG.crop_size * (1 - SHARE) / 2
    box = (edge, edge, CONFIG.crop_size - edge, CONFIG.crop_size - edge)
    size = (CONFIG.crop_size, CONFIG.crop_size)
    inside = [Image.fromarray(channel).resize(size, box=box) for channel in both[0]]
    apart = np.abs(both[1] - np.stack([np.asarray(channel) for channel in inside]))
    assert apart.mean() < 0.2 < np.abs(both[1] - both[0]).mean()


def test_a_frame_is_left_out_of_the_middle(photos: dict[str, Path]) -> None:
    photo = ImageOps.fit(Image.open(photos["chelsea"]).convert("RGB"), (128, 128))
    framed = ImageOps.expand(photo, 16, "black")
    prepare = WholeAndMiddle(PreprocessingConfig(resize_size=64, crop_size=64))
    whole, middle = prepare(framed)
    black = whole[:, 0, 0]
    assert (np.abs(whole[:, 0] - black[:, None]) < 1e-6).all()
    assert np.abs(middle[:, 0] - black[:, None]).mean() > 0.3


def test_options_are_kept(photos: dict[str, Path]) -> None:
    exact = WholeAndMiddle(CONFIG)
    reduced = exact.with_options(LoadOptions(decode="reduced"))
    assert isinstance(reduced, WholeAndMiddle)
    assert reduced(photos["rocket"]).shape == exact(photos["rocket"]).shape == (2, 3, 64, 64)
    with pytest.raises(ImageError, match="nowhere"):
        exact("nowhere.jpg")
