"""Views of a key stay as they are: a run that is resumed with a later version sees the same ones.

The figures were written down before the elastic distortion, the jitter's order and the quicker
rendering of large photos came.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import skimage.data

from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.sample import ViewSizes, make_views

# For each strategy and key: a checksum of the 13 parameters of 4 views, and each view's mean under
# a ramp from 0 to 1, which any other crop, turn or colour changes.
FROZEN = {
    ("baug", (0, 0, 0)): (1908823704, [42.646, 30.927, 26.917, 32.884]),
    ("baug", (0, 3, 7)): (4239838022, [49.077, 24.717, 11.882, 31.632]),
    ("baug", (5, 1, 49999)): (1910871, [49.582, 29.107, 41.209, 36.585]),
    ("caug", (0, 0, 0)): (2838460307, [34.893, 24.89, 22.754, 25.697]),
    ("caug", (0, 3, 7)): (2641491767, [39.357, 22.269, 7.906, 30.035]),
    ("caug", (5, 1, 49999)): (3978360788, [40.202, 25.125, 38.817, 36.064]),
}


@pytest.mark.parametrize(("strategy", "key"), list(FROZEN))
def test_views_of_a_small_photo_are_those_of_the_first_version(
    strategy: str, key: tuple[int, int, int]
) -> None:
    chelsea = getattr(skimage.data, "chelsea")  # noqa: B009 - without types
    photo = np.ascontiguousarray(chelsea()[100:164, 150:214])
    recipe = ViewsRecipe.model_validate({"strategy": strategy, "local_count": 2})
    views, parameters = make_views(photo, recipe, ViewSizes(48, 32), key)
    checksum, means = FROZEN[strategy, key]
    drawn = np.stack([view.as_array()[:13] for view in parameters]).astype(float)
    assert zlib.crc32(np.round(drawn * 1e4).astype(np.int64).tobytes()) == checksum
    weighted = [(view.ravel() * np.linspace(0, 1, view.size)).mean() for view in views]
    # Another processor may round a pixel in a hundred the other way.
    np.testing.assert_allclose(weighted, means, atol=0.02)


def test_caug_plus_draws_what_caug_draws_and_the_distortion_after_it() -> None:
    plain, plus = (ViewsRecipe(strategy=strategy) for strategy in ("caug", "caug+"))
    photo = np.zeros((64, 64, 3), dtype=np.uint8)
    distorted = 0
    for index in range(40):
        without = make_views(photo, plain, ViewSizes(48, 32), (0, 0, index))[1]
        those = make_views(photo, plus, ViewSizes(48, 32), (0, 0, index))[1]
        for a, b in zip(without, those, strict=True):
            np.testing.assert_array_equal(a.as_array()[:13], b.as_array()[:13])
            assert a.elastic_alpha == 0
            distorted += b.elastic_alpha > 0
    assert 25 <= distorted <= 55
