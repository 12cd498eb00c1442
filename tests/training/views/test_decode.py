"""Late decoding: the same pixels as `load_image`, fewer where fewer are enough."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.errors import ImageError
from clever_hub.images.opening import load_image
from clever_training.views.decode import EncodedPhoto, shrink_for


def _encoded(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _loaded(source: bytes) -> NDArray[np.uint8]:
    return np.asarray(load_image(source))


@pytest.fixture(scope="module")
def cat(photos: dict[str, Path]) -> Image.Image:
    return Image.open(photos["chelsea"]).convert("RGB")


def test_every_kind_of_file_has_the_pixels_of_load_image(cat: Image.Image) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for content in (
        *(_encoded(cat, "PNG"), _encoded(cat, "WEBP", quality=80), _encoded(cat.convert("L"))),
        *(_encoded(cat), _encoded(cat, progressive=True), _encoded(cat, subsampling=0)),
        *(_encoded(cat.convert("CMYK")), _encoded(cat, exif=turned)),
    ):
        photo, expected = EncodedPhoto(content), _loaded(content)
        np.testing.assert_array_equal(photo.decode(), expected)
        assert photo.size == (expected.shape[1], expected.shape[0])


def test_real_photos_have_the_pixels_of_load_image(
    imagenet_photos: Path, tiny_imagenet: Path
) -> None:
    files = [path.read_bytes() for path in sorted(imagenet_photos.glob("*"))[:5]]
    column = pq.read_table(tiny_imagenet / "validation.parquet", columns=["image"])["image"]
    files += [row["bytes"] for row in column[::500].to_pylist() if row]
    assert len(files) == 15
    for content in files:
        np.testing.assert_array_equal(EncodedPhoto(content).decode(), _loaded(content))


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_reduced_photo_is_the_averaged_one(cat: Image.Image, shrink: int) -> None:
    content = _encoded(cat, quality=95)
    reduced = EncodedPhoto(content).decode(shrink).astype(float)
    size = (-(-cat.width // shrink), -(-cat.height // shrink))
    assert reduced.shape == (size[1], size[0], 3)
    # Pixel i stands for the photo's pixels from i · shrink on, the last one for what is left.
    whole = (cat.width // shrink, cat.height // shrink)
    pixels = _loaded(content)[: whole[1] * shrink, : whole[0] * shrink]
    averaged = cv2.resize(pixels, whole, interpolation=cv2.INTER_AREA)
    assert np.abs(reduced[: whole[1], : whole[0]] - averaged).mean() < 1.5


def test_what_is_no_jpeg_comes_whole(cat: Image.Image) -> None:
    assert EncodedPhoto(_encoded(cat, "PNG")).decode(4).shape == (cat.height, cat.width, 3)


def test_damaged_files_are_errors(cat: Image.Image, tmp_path: Path) -> None:
    content = _encoded(cat)
    for damaged in (content[:100], content[: len(content) // 2], b"no image", b""):
        with pytest.raises(ImageError):
            EncodedPhoto(damaged).decode()
    with pytest.raises(ImageError, match=r"gone\.jpg: no such file"):
        EncodedPhoto(str(tmp_path / "gone.jpg"))


def test_shrinking_never_leaves_less_than_is_needed() -> None:
    assert [shrink_for(scale) for scale in (0.3, 1.99, 2.0, 3.99, 4.0, 7.9, 8.0, 99.0)] == [
        *(1, 1, 2, 2, 4, 4, 8, 8)
    ]
