"""A user's own augmentation: what it gets, what it may give back, and what each mistake says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.errors import ConfigError
from clever_training.recipe.schema import ViewsRecipe
from clever_training.views.custom import load_augmentation
from clever_training.views.parameters import ViewParameters
from clever_training.views.sample import ViewSizes, make_views

PHOTO = np.arange(40 * 50 * 3, dtype=np.uint32).reshape(40, 50, 3).astype(np.uint8)
SIZES = ViewSizes(16, 8)

MODULE = """
import numpy as np

def corner(image, size, rng):
    left = int(rng.integers(image.shape[1] - size))
    return image[:size, left:left + size]

def numbered(image, size, rng, view):
    return np.full((size, size, 3), view, np.uint8)

def told(image, size, rng):
    return image[:size, :size], {"box": (0.0, 0.0, 0.2, 0.4), "flip": True}

class Whole:
    def __call__(self, image, size, rng):
        return image[:size, :size]
whole = Whole()

def floats(image, size, rng): return np.zeros((size, size, 3))
def flat(image, size, rng): return np.zeros((size, size), np.uint8)
def nothing(image, size, rng): return None
def misnamed(image, size, rng): return image[:size, :size], {"angel": 3.0}
def lone(image): return image
def writes(image, size, rng):
    image[0, 0] = 0
    return image[:size, :size]
def broken(image, size, rng): raise KeyError("of the user's own")
number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_views.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_augmentation.cache_clear()


def _views(name: str, index: int = 0, **settings: Any) -> list[NDArray[np.uint8]]:
    recipe = ViewsRecipe(aug=f"my_views:{name}", local_count=1, **settings)
    return make_views(PHOTO, recipe, SIZES, (0, 0, index))[0]


def test_it_gets_photo_size_and_a_generator_of_the_key() -> None:
    views = _views("corner")
    assert [view.shape for view in views] == [(16, 16, 3), (16, 16, 3), (8, 8, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(views, _views("corner"), strict=True))
    others = [_views("corner", index)[0] for index in range(1, 5)]
    assert any(not np.array_equal(views[0], other) for other in others)


def test_the_example_in_the_readme_makes_views(repository: Path, tmp_path: Path) -> None:
    text = (repository / "training" / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n# my_views\.py\n(.*?)```", text, re.DOTALL)
    name = re.search(r"`views: {aug: my_views:(\w+)}`", text)
    assert code is not None
    assert name is not None
    (tmp_path / "from_readme.py").write_text(code[1])
    recipe = ViewsRecipe(aug=f"from_readme:{name[1]}", local_count=1)
    views = [make_views(PHOTO, recipe, SIZES, (0, 0, index))[0] for index in range(4)]
    assert [view.shape for view in views[0]] == [(16, 16, 3), (16, 16, 3), (8, 8, 3)]
    assert any(not np.array_equal(views[0][0], other[0]) for other in views[1:])


def test_it_may_ask_for_the_number_of_the_view() -> None:
    assert [int(view[0, 0, 0]) for view in _views("numbered")] == [0, 1, 2]


def test_it_may_be_an_object() -> None:
    np.testing.assert_array_equal(_views("whole")[2], PHOTO[:8, :8])


def test_it_may_tell_what_it_did() -> None:
    recipe = ViewsRecipe(aug="my_views:told")
    told = make_views(PHOTO, recipe, SIZES, (0, 0, 0))[1][0]
    assert told == ViewParameters(box=(0.0, 0.0, 0.2, 0.4), flip=True)
    silent = make_views(PHOTO, ViewsRecipe(aug="my_views:corner"), SIZES, (0, 0, 0))[1][0]
    assert not silent.known
    assert np.isnan(silent.as_array()).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("floats", r"my_views:floats: expected uint8 .* got float64 \(16, 16, 3\)"),
        ("flat", r"expected a view .* uint8 \(16, 16, 3\), got uint8 \(16, 16\)"),
        ("nothing", r"expected a view .* got NoneType"),
        ("misnamed", r"parameters: .*'angel'"),
        ("lone", r"lone\(image\) cannot be called as \(image, size, rng\)"),
        ("number", r"expected a function \(image, size, rng\) -> view, got int"),
        ("cornor", r"my_views has no 'cornor'.*corner"),
    ],
)
def test_mistakes_are_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _views(name)


@pytest.mark.parametrize("path", ["no_such_module_of_mine:f", "my_views", "my_views.corner"])
def test_what_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"views\.aug.*{path.partition(':')[0]}"):
        make_views(PHOTO, ViewsRecipe(aug=path), SIZES, (0, 0, 0))


def test_its_own_errors_are_named_with_function_and_photo() -> None:
    message = (
        r"my_views:broken failed on a photo of 50 × 40 pixels.*KeyError: \"of the user's own\""
    )
    with pytest.raises(ConfigError, match=message) as caught:
        _views("broken")
    assert isinstance(caught.value.__cause__, KeyError)


def test_photos_are_not_to_be_written_to() -> None:
    with pytest.raises(ConfigError, match=r"ValueError: .* read-only"):
        _views("writes")
    assert PHOTO[0, 1].any()
