"""Other sources of an image, and other ways of opening it than the default."""

from __future__ import annotations

import io
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

import clever_hub
from clever_hub.backends.torch import CleverModel
from clever_hub.config import PreprocessingConfig
from clever_hub.errors import ConfigError, ImageError, MissingExtraError
from clever_hub.images import decoding
from clever_hub.images.opening import as_list, load_image
from clever_hub.images.options import LoadOptions
from clever_hub.images.preparing import Preprocessor

CAT: NDArray[np.uint8] = np.ascontiguousarray(getattr(skimage.data, "chelsea")())  # noqa: B009


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def test_open_files_addresses_and_tensors_are_images(tmp_path: Path, model: CleverModel) -> None:
    path = tmp_path / "a cat, 100%.png"
    path.write_bytes(encoded(Image.fromarray(CAT)))
    tensor = torch.from_numpy(CAT)
    with path.open("rb") as file:
        sources: list[Any] = [io.BytesIO(path.read_bytes()), file, path.as_uri(), tensor]
        for source in sources:
            np.testing.assert_array_equal(np.asarray(load_image(source)), CAT)
    turned = tensor.permute(2, 0, 1)
    np.testing.assert_array_equal(np.asarray(load_image(turned, layout="chw")), CAT)
    batch = torch.stack([turned, turned])
    found = model.encode(batch, layout="chw").full
    np.testing.assert_array_equal(found, model.encode([path, path]).full)
    with pytest.raises(ImageError, match='give layout="chw"'):
        load_image(turned)


def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.jpg"
    os.mkfifo(pipe)
    found: list[Exception] = []

    def open_it() -> None:
        try:
            load_image(pipe)
        except ImageError as error:
            found.append(error)

    thread = threading.Thread(target=open_it, daemon=True)
    thread.start()
    thread.join(10)
    assert "x.jpg: cannot be read: expected a regular file" in str(found[0])


def test_what_is_no_image_and_no_list_of_them_is_refused(model: CleverModel) -> None:
    with pytest.raises(ConfigError, match=r"images: expected a path, .* got <NoneType>"):
        as_list(None)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"batch_size: expected a whole number, 1 or more, got 2\.5"
    ):
        model.encode([CAT], batch_size=2.5)  # type: ignore[arg-type]


def test_a_large_photo_brings_no_warning_of_pillow_and_a_bomb_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = encoded(Image.new("1", (13_000, 13_000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoding.decode(large).size == (13_000, 13_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000_000)
    with pytest.raises(ImageError, match="decompression bomb: 13000 × 13000 pixels"):
        load_image(large)


def swapped_profile() -> bytes:
    """The profile of sRGB with red and green taken for each other."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    marks = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
    table = profile[128 : 128 + 4 + 12 * int.from_bytes(profile[128:132], "big")]
    new = table[:4]
    for place in range(4, len(table), 12):
        entry = table[place : place + 12]
        new += marks.get(entry[:4], entry[:4]) + entry[4:]
    return profile[:128] + new + profile[128 + len(table) :]


def test_colours_of_a_profile_are_managed_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(Image.fromarray(CAT), icc_profile=swapped_profile()))
    np.testing.assert_array_equal(np.asarray(load_image(path)), CAT)
    managed = np.asarray(load_image(path, color_management=True)).astype(int)
    assert np.abs(managed - CAT[..., [1, 0, 2]]).max() <= 2
    path.write_bytes(encoded(Image.fromarray(CAT), icc_profile=b"no profile"))
    with pytest.raises(ImageError, match="its colour profile cannot be used"):
        load_image(path, color_management=True)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_background_is_laid_under_transparent_pixels(mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (10, 10, 10, 0))
    image.paste((200, 200, 200, 255), (0, 0, 2, 2))
    file = encoded(image.convert(mode))
    below = np.asarray(load_image(file, background="white"))
    assert below[0, 3].tolist() == [255, 255, 255]
    assert below[0, 0].tolist() == [200, 200, 200]
    assert np.asarray(load_image(file, background=(1, 2, 3)))[0, 3].tolist() == [1, 2, 3]
    opaque = np.asarray(load_image(encoded(Image.fromarray(CAT)), background="white"))
    np.testing.assert_array_equal(opaque, CAT)


def test_a_reduced_jpeg_is_nearly_the_exact_one_and_others_stay_exact() -> None:
    photo = Image.fromarray(CAT).resize((1804, 1200), Image.Resampling.BICUBIC)
    jpeg, png = encoded(photo, "JPEG", quality=90), encoded(photo)
    exact = Preprocessor(PreprocessingConfig(72, 72))
    reduced = exact.with_options(LoadOptions(decode="reduced"))
    assert load_image(jpeg, decode="reduced", target=72).size == (226, 150), "an eighth"
    assert load_image(jpeg, decode="reduced", target=224).size == (902, 600), "a half"
    assert load_image(jpeg, decode="reduced", target=301).size == (1804, 1200), "no less than twice"
    assert load_image(jpeg, decode="reduced").size == (1804, 1200), "no size to reduce to"
    levels = np.abs(exact(jpeg) - reduced(jpeg)) * 0.225 * 255
    assert 0 < levels.mean() < 2
    np.testing.assert_array_equal(exact(png), reduced(png))


def test_options_are_checked_and_named(model: CleverModel) -> None:
    for options, message in (
        ({"background": "whitish"}, "background: expected a colour .* got 'whitish'"),
        ({"layout": "nchw"}, "layout: expected 'hwc' or 'chw', got 'nchw'"),
        ({"decode": "fast"}, "decode: expected 'exact' or 'reduced', got 'fast'"),
        ({"color_management": "srgb"}, "color_management: expected True or False"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.encode([CAT], **options)  # type: ignore[arg-type]
    assert LoadOptions().changed() == {}
    assert LoadOptions(decode="reduced", layout="chw").changed() == {"decode": "reduced"}


def test_heic_is_read_or_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(CAT)).save(buffer, quality=95)
    found = np.asarray(load_image(buffer.getvalue())).astype(int)
    assert found.shape == CAT.shape
    assert np.abs(found - CAT).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r'pip install "clever-hub\[heic\]"'):
        load_image(buffer.getvalue())


def test_embeddings_are_arrays(model: CleverModel) -> None:
    e = model.encode([CAT, CAT[:100]])
    np.testing.assert_array_equal(np.asarray(e), e.full)
    assert np.asarray(e, dtype=np.float64).dtype == np.float64
    assert (len(e), len(e[1:]), e[0].invariant.shape) == (2, 1, (1, 19))


def test_a_model_says_what_it_is(model_folder: Path) -> None:
    loaded = clever_hub.from_pretrained(model_folder)
    assert repr(loaded) == (
        "CleverModel(clever-tiny: vit_tiny_patch16_224, 19 invariant + 5 equivariant, 32 × 32 px, "
        f"torch on cpu, float32, from folder {model_folder})"
    )
