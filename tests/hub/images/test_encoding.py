"""encode: any iterable, in order, a bounded number of images ahead. With a backend of one line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clever_hub.config import ModelConfig
from clever_hub.errors import ConfigError, ImageError, MissingExtraError
from clever_hub.images.encoding import EncoderMixin
from clever_hub.images.opening import ImageSource
from clever_hub.images.options import LoadOptions
from clever_hub.images.preparing import Preprocessor


class MeanColour(EncoderMixin):
    """Embeds an image as its mean red, green and blue, each in [0, 1]; two parts, 2 + 1."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = replace(config, num_features=3, invariant_dim=2)
        plain = replace(config.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.preprocessor = Preprocessor(plain)
        self.batches: list[int] = []

    def _embed_batch(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        self.batches.append(len(pixel_values))
        return np.asarray(pixel_values.mean(axis=(2, 3)), np.float32)


@pytest.fixture
def encoder(config: ModelConfig) -> MeanColour:
    return MeanColour(config)


def plain(value: int, side: int = 40) -> NDArray[np.uint8]:
    """An image of one gray value, which its embedding tells."""
    return np.full((side, side, 3), value, np.uint8)


def values(embedding: NDArray[np.float32]) -> list[int]:
    return [round(float(value) * 255) for value in embedding[:, 0]]


def test_one_image_gives_one_row(encoder: MeanColour, photos: dict[str, Path]) -> None:
    path = photos["coffee"]
    opened = Image.open(path)
    everything: list[ImageSource] = [
        path,
        str(path),
        path.read_bytes(),
        opened,
        np.asarray(opened),
    ]
    for source in everything:
        embeddings = encoder.encode(source)
        assert embeddings.invariant.shape == (1, 2)
        assert embeddings.equivariant.shape == (1, 1)
    many = encoder.encode(everything).full
    np.testing.assert_array_equal(many, np.repeat(many[:1], 5, axis=0))


def test_the_order_is_kept_whatever_takes_longer(encoder: MeanColour) -> None:
    images = [plain(value, side=1500 if value % 3 == 0 else 40) for value in range(30)]
    assert values(encoder.encode(images, batch_size=4, num_workers=4).full) == list(range(30))
    assert encoder.batches == [4] * 7 + [2]


def test_an_array_of_four_dimensions_is_a_batch(encoder: MeanColour) -> None:
    assert values(encoder.encode(np.stack([plain(3), plain(5)])).full) == [3, 5]


def test_nothing_gives_no_rows(encoder: MeanColour) -> None:
    embeddings = encoder.encode([])
    assert embeddings.invariant.shape == (0, 2)
    assert embeddings.equivariant.shape == (0, 1)
    assert encoder.batches == []


def test_normalize_gives_unit_parts(encoder: MeanColour) -> None:
    embeddings = encoder.encode([plain(3), plain(200)], normalize=True)
    np.testing.assert_allclose(np.linalg.norm(embeddings.invariant, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embeddings.equivariant, axis=1), 1, atol=1e-6)


def test_a_stream_is_read_as_it_is_needed(encoder: MeanColour) -> None:
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield plain(taken % 256)

    batches = encoder.encode_batches(endless(), batch_size=4)
    for count in range(1, 6):
        batch = next(batches)
        assert batch.indices == list(range(4 * count - 4, 4 * count))
        assert taken <= 4 * count + 2 * 4
    before = threading.active_count()
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before, "the decoding threads must end with the stream"


def test_images_are_decoded_while_the_model_computes(encoder: MeanColour) -> None:
    decoded = threading.Event()
    read, compute = encoder.preprocessor, encoder._embed_batch

    class Watched(Preprocessor):
        def __call__(self, image: ImageSource) -> NDArray[np.float32]:
            if np.asarray(image)[0, 0, 0] == 99:
                decoded.set()
            return super().__call__(image)

    def waiting(pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        # The first batch is not done before an image of the next one has been decoded.
        assert decoded.wait(timeout=60)
        return compute(pixel_values)

    encoder.preprocessor = Watched(read.config)
    encoder._embed_batch = waiting  # type: ignore[method-assign]
    assert values(encoder.encode([plain(1), plain(99)], batch_size=1).full) == [1, 99]


@pytest.fixture
def mixed(tmp_path: Path) -> list[ImageSource]:
    """Three good images among three that cannot be read."""
    good, text = tmp_path / "good.png", tmp_path / "text.jpg"
    Image.fromarray(plain(7)).save(good)
    text.write_text("no image")
    return [text, plain(5), good, b"", plain(9), tmp_path / "missing.jpg"]


def test_the_first_bad_image_is_named(encoder: MeanColour, mixed: list[ImageSource]) -> None:
    with pytest.raises(ImageError, match=r"text\.jpg: not an image") as caught:
        encoder.encode(mixed)
    assert caught.value.source == str(mixed[0])
    with pytest.raises(ImageError, match=r"image 2 <0 bytes>: .*the file is empty"):
        encoder.encode(mixed[1:])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_bad_images_can_be_skipped_and_are_reported(
    encoder: MeanColour, mixed: list[ImageSource], batch_size: int
) -> None:
    embeddings = encoder.encode(mixed, on_error="skip", batch_size=batch_size)
    assert values(embeddings.full) == [5, 7, 9]
    assert [position for position, _, _ in embeddings.skipped] == [0, 3, 5]
    assert [source for _, source, _ in embeddings.skipped] == [
        str(mixed[0]),
        "image 3 <0 bytes>",
        str(mixed[5]),
    ]
    assert embeddings.skipped[2].reason == "no such file"
    assert max(encoder.batches) <= batch_size


def test_heic_is_skipped_as_a_bad_image_is_where_its_extra_is_missing(
    encoder: MeanColour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic")
    images: list[ImageSource] = [plain(5), path, path.read_bytes(), plain(9)]
    embeddings = encoder.encode(images, on_error="skip")
    assert values(embeddings.full) == [5, 9]
    assert [(at, source) for at, source, _ in embeddings.skipped] == [
        (1, str(path)),
        (2, "image 2 <12 bytes>"),
    ]
    for bad in embeddings.skipped:
        assert bad.reason.startswith("This needs pillow_heif, which is not installed. Run: pip")
    with pytest.raises(MissingExtraError, match=r"a\.heic: This needs pillow_heif") as caught:
        encoder.encode(images)
    assert caught.value.name == "pillow_heif"


def test_batches_say_which_images_they_hold(encoder: MeanColour, mixed: list[ImageSource]) -> None:
    batches = list(encoder.encode_batches(mixed, batch_size=2, on_error="skip"))
    assert [batch.indices for batch in batches] == [[1, 2], [4]]
    assert batches[0].sources[1] == str(mixed[2])


def test_all_bad_gives_no_rows_and_all_reasons(encoder: MeanColour) -> None:
    embeddings = encoder.encode([b"", b"x"], on_error="skip")
    assert len(embeddings) == 0
    assert len(embeddings.skipped) == 2


def test_an_error_of_the_iterable_comes_through(encoder: MeanColour) -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield plain(1)
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="the camera is gone"):
        encoder.encode(broken())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": 0}, "num_workers"),
        ({"on_error": "ignore"}, "expected 'raise' or 'skip', got 'ignore'"),
    ],
)
def test_options_are_checked_before_anything_is_read(
    encoder: MeanColour, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder.encode_batches([b""], **options)  # type: ignore[arg-type]


def test_progress_goes_to_stderr(encoder: MeanColour, capsys: pytest.CaptureFixture[str]) -> None:
    encoder.encode([plain(value) for value in range(5)], progress=True)
    captured = capsys.readouterr()
    assert "5/5" in captured.err
    assert captured.out == ""


def test_tokens_are_of_vision_transformers_in_torch_alone(encoder: MeanColour) -> None:
    with pytest.raises(ConfigError, match=f"this is a {encoder.config.architecture}"):
        encoder.encode([], tokens=True)


def test_an_option_of_one_call_leaves_the_others_as_the_preprocessor_has_them(
    encoder: MeanColour,
) -> None:
    model = encoder
    model.preprocessor = model.preprocessor.with_options(LoadOptions(background="white"))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert model.encode(clear).full.tolist() == [[1.0, 1.0, 1.0]]
    assert model.encode(clear, decode="reduced").full.tolist() == [[1.0, 1.0, 1.0]]
    assert model.encode(clear, background="black").full.tolist() == [[0.0, 0.0, 0.0]]


def test_an_array_without_axes_is_no_image(encoder: MeanColour) -> None:
    with pytest.raises(ConfigError, match="or several; got <array"):
        encoder.encode(np.array("a.jpg"))
