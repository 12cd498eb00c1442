"""Every kind of image comes out as upright 8-bit RGB; what is no image is named."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import ExifTags, Image

from clever_hub.errors import ImageError
from clever_hub.images.opening import load_image

# Through getattr: scikit-image says nothing of its types. 75 × 113 pixels.
CAT: NDArray[np.uint8] = np.ascontiguousarray(getattr(skimage.data, "chelsea")()[::4, ::4])  # noqa: B009


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pixels(source: object) -> NDArray[np.uint8]:
    """What `load_image` makes of it."""
    image = load_image(source)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


def test_the_same_photo_from_every_kind_of_source(tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(encoded(Image.fromarray(CAT)))
    for source in (path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(CAT), CAT):
        np.testing.assert_array_equal(pixels(source), CAT)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
    ids=["png", "tiff", "tiff-lzw", "webp"],
)
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, CAT),
        (2, CAT[:, ::-1]),
        (3, CAT[::-1, ::-1]),
        (4, CAT[::-1]),
        (5, CAT.transpose(1, 0, 2)),
        (6, np.rot90(CAT)),  # a phone held upright: the sensor's picture lies on its side
        (7, CAT.transpose(1, 0, 2)[::-1, ::-1]),
        (8, np.rot90(CAT, -1)),
    ],
)
def test_every_exif_orientation_is_turned_upright(
    orientation: int, stored: NDArray[np.uint8], form: str, options: dict[str, Any]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options)
    np.testing.assert_array_equal(pixels(file), CAT)
    np.testing.assert_array_equal(pixels(Image.open(io.BytesIO(file))), CAT)
    np.testing.assert_array_equal(pixels(load_image(file)), CAT, "what is upright stays so")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0garbagegarbage"])
def test_malformed_tags_keep_no_photo_from_being_read(form: str, exif: bytes) -> None:
    file = encoded(Image.fromarray(CAT), form, exif=exif)
    assert np.abs(pixels(file).astype(int) - CAT).mean() < 6


def test_a_tag_of_the_wrong_type_does_not_keep_a_photo_from_being_turned() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ResolutionUnit] = 2
    raw = bytearray(exif.tobytes())
    place = raw.index(struct.pack(">HH", ExifTags.Base.ResolutionUnit, 3))
    raw[place + 2 : place + 4] = struct.pack(">H", 1)  # a byte, where the standard has a short
    file = encoded(Image.fromarray(np.ascontiguousarray(np.rot90(CAT))), exif=bytes(raw))
    np.testing.assert_array_equal(pixels(file), CAT)


def test_grayscale_gets_three_equal_channels() -> None:
    gray = CAT[:, :, 0]
    for source in (encoded(Image.fromarray(gray)), gray, gray[:, :, None]):
        np.testing.assert_array_equal(pixels(source), np.stack([gray] * 3, axis=2))


def test_transparency_is_dropped_as_pillow_does() -> None:
    alpha = np.zeros((*CAT.shape[:2], 1), np.uint8)
    rgba = np.concatenate([CAT, alpha], axis=2)
    for source in (encoded(Image.fromarray(rgba)), rgba):
        np.testing.assert_array_equal(pixels(source), CAT)
    gray_alpha = Image.fromarray(CAT[:, :, 0]).convert("LA")
    np.testing.assert_array_equal(pixels(encoded(gray_alpha))[:, :, 2], CAT[:, :, 0])


@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"transparency": b"\0\x80\xff"}])
def test_a_palette_is_looked_up(options: dict[str, object]) -> None:
    palette = Image.fromarray(CAT).quantize(64)
    expected = np.asarray(palette.convert("RGB"))
    for form in ("PNG", "GIF") if not isinstance(options.get("transparency"), bytes) else ("PNG",):
        np.testing.assert_array_equal(pixels(encoded(palette, form, **options)), expected)


def test_black_and_white() -> None:
    bits = Image.fromarray(CAT[:, :, 0]).convert("1")
    assert set(np.unique(pixels(encoded(bits)))) == {0, 255}


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_cut_off(form: str) -> None:
    gray = CAT[:, :, 0]
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    np.testing.assert_array_equal(pixels(encoded(deep, form))[:, :, 0], gray)
    np.testing.assert_array_equal(pixels(deep.convert("I"))[:, :, 0], gray)


def test_16_bits_are_rounded_to_the_nearest() -> None:
    values = np.array([[0, 128, 129, 385, 386, 65535]], dtype=np.uint16)
    assert pixels(Image.fromarray(values))[0, :, 0].tolist() == [0, 0, 1, 1, 2, 255]


def test_cmyk_keeps_its_colours() -> None:
    cmyk = Image.fromarray(CAT).convert("CMYK")
    loaded = pixels(encoded(cmyk, "JPEG", quality=95)).astype(int)
    assert np.abs(loaded - CAT).mean() < 4  # not inverted; JPEG loses a little


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(file)[0, 0].tolist() == [255, 0, 0]


def test_the_source_is_left_as_it_was() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(Image.fromarray(CAT), exif=exif)))
    load_image(image).putpixel((0, 0), (1, 2, 3))
    assert image.size == (CAT.shape[1], CAT.shape[0])
    np.testing.assert_array_equal(np.asarray(image), CAT)


def _png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that announces as many pixels as one likes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
              for c in (header, data, b"IEND")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


CAT_JPEG = encoded(Image.fromarray(CAT), "JPEG")
CAT_PNG = encoded(Image.fromarray(CAT))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not an image of a known format"),
        (CAT_JPEG[: len(CAT_JPEG) // 2], "truncated"),
        (CAT_PNG[: len(CAT_PNG) // 2], "truncated"),
        (CAT_JPEG[:20], "not an image|cannot be read"),
        (_png_header(60_000, 60_000), "decompression bomb"),
        (_png_header(12_000, 10_000), "decompression bomb|cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating point"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        load_image(path)
    assert caught.value.source == str(path)
    assert str(path) in str(caught.value)


def test_every_truncation_of_a_photo_is_noticed_or_harmless(tmp_path: Path) -> None:
    # A PNG may lack its end mark; nothing else may be missing, and no other error may escape.
    for length in range(0, len(CAT_PNG) - 16, 97):
        with pytest.raises(ImageError):
            load_image(CAT_PNG[:length])


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        load_image(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="got a folder"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (CAT / np.float32(255), "multiply values in .0, 1. by 255"),
        (CAT.astype(np.uint16), "expected uint8"),
        (CAT.transpose(2, 0, 1), "height, width, 3"),
        (CAT[None], "height, width, 3"),
        (CAT[:0], "no pixels"),
        (Image.new("RGB", (0, 4)), "no pixels"),
        (Image.fromarray(np.array([[-1, 70_000]], np.int32)), "16-bit values, .* got -1 to 70000"),
        (7, "expected a path, bytes, an open binary file, a PIL image or a uint8 array"),
        (None, "expected a path"),
        (io.StringIO("cat"), "opened for bytes, mode 'rb'"),
        ("https://example.com/a.jpg", r"fetch it first, such as urllib.request.urlopen"),
    ],
)
def test_what_is_no_image_is_refused(source: object, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(source)  # type: ignore[arg-type]


def test_a_buffer_that_was_just_written_says_to_rewind() -> None:
    buffer = io.BytesIO()
    Image.fromarray(CAT).save(buffer, "PNG")
    with pytest.raises(ImageError, match=rf"at its end \(byte {buffer.tell()}\).*seek\(0\)"):
        load_image(buffer)
    buffer.seek(0)
    np.testing.assert_array_equal(pixels(buffer), CAT)
    with pytest.raises(ImageError, match="the file is empty"):
        load_image(io.BytesIO())


def test_a_pipe_that_brought_nothing_is_empty() -> None:
    end, begin = os.pipe()
    os.close(begin)
    with os.fdopen(end, "rb") as pipe, pytest.raises(ImageError, match="the file is empty"):
        load_image(pipe)


def test_threads_may_share_an_image_that_is_not_decoded_yet() -> None:
    from concurrent.futures import ThreadPoolExecutor

    image = Image.open(io.BytesIO(CAT_PNG))
    load: Callable[[int], NDArray[np.uint8]] = lambda _: pixels(image)  # noqa: E731
    with ThreadPoolExecutor(8) as pool:
        for loaded in pool.map(load, range(32)):
            np.testing.assert_array_equal(loaded, CAT)
