"""Other sources of an image, and other ways of opening it than the default."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
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
from torchvision import tv_tensors

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
    with pytest.raises(ImageError, match=r'shape \(3, height, width\); .* leave out layout="chw"'):
        load_image(CAT, layout="chw")
    with pytest.raises(ImageError, match='give layout="chw"'):
        load_image(turned)


def test_a_tensor_of_torchvision_is_an_image_as_one_of_torch_is(model: CleverModel) -> None:
    tensor = torch.from_numpy(CAT)
    for options, kind in (
        ({}, tv_tensors.Image(tensor)),
        ({"layout": "chw"}, tv_tensors.Image(tensor.permute(2, 0, 1))),
    ):
        loading: Any = options
        np.testing.assert_array_equal(np.asarray(load_image(kind, **loading)), CAT)
        expected = model.encode(CAT).full
        for images in (kind, [kind], tv_tensors.Image(kind[None])):
            np.testing.assert_array_equal(model.encode(images, **loading).full, expected)


def test_an_address_may_have_a_single_slash(photos: dict[str, Path]) -> None:
    assert load_image(f"file:{photos['chelsea']}").size == load_image(photos["chelsea"]).size


def test_a_file_may_be_called_as_an_address_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(encoded(Image.new("RGB", (4, 4))))
    for name in ("file:a.png", "http:a.png", "https:a.png", "data:a.png", "s3:a.png"):
        Path(name).write_bytes(encoded(Image.fromarray(CAT)))
        np.testing.assert_array_equal(np.asarray(load_image(Path(name))), CAT)
    for address in ("HTTP://example.com/a.png", "https://example.com/a.png"):
        with pytest.raises(ImageError, match="nothing is fetched"):
            load_image(address)


def test_an_address_may_name_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 \xc3\xa9.png")
    path.write_bytes(encoded(Image.fromarray(CAT)))
    for address in (path.as_uri(), f"file://{path}", path.as_uri().replace("file", "FILE")):
        np.testing.assert_array_equal(np.asarray(load_image(address)), CAT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_opens_images_while_a_thread_of_its_parent_decodes() -> None:
    code = """
import os, signal, threading
from PIL import Image
from clever_hub.images.opening import load_image

def load():
    decoding.set()
    done.wait(60)

decoding, done = threading.Event(), threading.Event()
slow = Image.new("RGB", (4, 4))
slow.load = load
thread = threading.Thread(target=load_image, args=(slow,))
thread.start()
decoding.wait()
if child := os.fork():
    status = os.waitpid(child, 0)[1]
    done.set()
    thread.join()
    print(os.waitstatus_to_exitcode(status))
else:
    signal.alarm(10)  # ends it where it waits forever
    os._exit(load_image(Image.new("RGB", (6, 4))).width)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert ran.stdout == "6\n", ran.stderr


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


def test_a_heic_may_be_a_bomb_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    file = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (200, 200))).save(file)
    assert load_image(file.getvalue()).size == (200, 200)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb: 200 × 200 pixels"):
        load_image(file.getvalue())


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


def linear_gray_profile() -> bytes:
    """A profile of gray whose numbers are amounts of light: 78 of 255 is sRGB's 150."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile[:16] + b"GRAY" + profile[20:].replace(b"rTRC", b"kTRC")
    curve = profile.index(b"para") + 8
    return profile[:curve] + struct.pack(">HHi", 0, 0, 1 << 16) + profile[curve + 8 :]


def gray_files(**options: Any) -> dict[str, bytes]:
    """PNG files of gray 78 in every mode that has it."""
    image = Image.new("L", (4, 2), 78)
    deep = Image.fromarray(np.full((2, 4), 78 * 257, np.uint16))
    return {
        "L": encoded(image, **options),
        "LA": encoded(image.convert("LA"), **options),
        "L, another value transparent": encoded(image, transparency=79, **options),
        "16 bits": encoded(deep, **options),
        "16 bits, another value transparent": encoded(deep, transparency=78 * 257 + 1, **options),
    }


@pytest.mark.parametrize("background", [None, "white"])
def test_the_profile_of_a_gray_picture_is_managed_in_every_mode(background: str | None) -> None:
    options: dict[str, Any] = {"color_management": True, "background": background}
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, expected in ((linear_gray_profile(), 150), (srgb, 78)):
        for kind, file in gray_files(icc_profile=profile).items():
            found = np.unique(np.asarray(load_image(file, **options)))
            assert found.tolist() == [expected], kind
        bits = Image.fromarray(CAT[:, :, 0]).convert("1")
        managed = load_image(encoded(bits, icc_profile=profile), **options)
        np.testing.assert_array_equal(np.asarray(managed)[:, :, 0], np.asarray(bits) * 255)
    color = encoded(Image.fromarray(CAT), icc_profile=linear_gray_profile())
    with pytest.raises(ImageError, match="its colour profile cannot be used"):
        load_image(color, color_management=True)


def test_a_background_is_of_srgb_whatever_the_profile() -> None:
    half = Image.new("LA", (4, 2), (78, 0))
    half.paste((78, 255), (0, 0, 2, 2))
    file = encoded(half, icc_profile=linear_gray_profile())
    found = np.asarray(load_image(file, color_management=True, background="#8090a0"))
    assert found[0, [0, 3]].tolist() == [[150, 150, 150], [0x80, 0x90, 0xA0]]
    file = encoded(half.convert("RGBA"), icc_profile=swapped_profile())
    found = np.asarray(load_image(file, color_management=True, background="#8090a0"))
    assert found[0, 3].tolist() == [0x80, 0x90, 0xA0]


def test_of_16_bits_the_one_transparent_value_shows_the_background() -> None:
    values = np.array([[78 * 257, 78 * 257 + 1]], np.uint16)
    file = encoded(Image.fromarray(values), transparency=78 * 257)
    assert np.asarray(load_image(file, background="white"))[0, :, 0].tolist() == [255, 78]
    assert np.asarray(load_image(file))[0, :, 0].tolist() == [78, 78]


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
        ({"background": (0.9, 0.9, 0.9)}, r"background: expected a colour .* got \(0.9"),
        ({"layout": "nchw"}, "layout: expected 'hwc' or 'chw', got 'nchw'"),
        ({"decode": "fast"}, "decode: expected 'exact' or 'reduced', got 'fast'"),
        ({"color_management": "srgb"}, "color_management: expected True or False"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.encode([CAT], **options)
    assert LoadOptions().changed() == {}
    assert LoadOptions(decode="reduced", layout="chw").changed() == {"decode": "reduced"}


def test_heic_is_read_or_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(CAT)).save(buffer, quality=95)
    found = np.asarray(load_image(buffer.getvalue())).astype(int)
    assert found.shape == CAT.shape
    assert np.abs(found - CAT).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    path = tmp_path / "cat.heic"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(MissingExtraError, match=r'cat\.heic: .* pip install "clever-hub\[heic\]"'):
        load_image(path)


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
