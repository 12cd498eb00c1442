"""Of copies the original is kept, and the reason that is given is the true one."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clever_hub.errors import ConfigError
from clever_hub.jobs.best import BestPhotos
from clever_hub.jobs.duplicates import Duplicates, find_duplicates
from clever_hub.jobs.groups import members, shown
from clever_hub.jobs.photo_files import image_size, read_photo_file
from clever_hub.jobs.verifying import PixelVerifier

BICUBIC = Image.Resampling.BICUBIC
Make = Callable[..., Path]


@pytest.fixture
def photo(photos: dict[str, Path]) -> Image.Image:
    with Image.open(photos["chelsea"]) as opened:
        return opened.convert("RGB").resize((300, 200))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Saves a picture; all files are of the same second, but for ``age`` seconds."""

    def save(image: Image.Image, name: str, age: int = 0, **options: Any) -> Path:
        path = tmp_path / name
        image.save(path, **options)
        os.utime(path, (1_600_000_000 - age, 1_600_000_000.9 - age))
        return path

    return save


def found(paths: list[Path], verify: bool = True) -> tuple[Duplicates, BestPhotos]:
    """Of photos that are all candidates of each other."""
    ranking = BestPhotos(paths)
    look = PixelVerifier(paths) if verify else None
    vectors = np.ones((len(paths), 4), np.float32)
    return find_duplicates(vectors, threshold=0.5, verify=look, ranking=ranking), ranking


def best_of(paths: list[Path], verify: bool = True) -> tuple[str, str]:
    """The best one's name and why, whatever the order; all are in one group."""
    answers = set()
    for order in (paths, paths[::-1]):
        answer, ranking = found(order, verify)
        (group,) = answer.groups
        assert len(group) == len(paths)
        answers.add((order[group[0]].name, ranking.why(group.tolist())))
    (answer_of_both,) = answers
    return answer_of_both


def exif(tag: int = 0x010F, value: object = "Canon") -> Image.Exif:
    tags = Image.Exif()
    tags[tag] = value
    return tags


def test_the_most_pixels(make: Make, photo: Image.Image) -> None:
    paths = [make(photo, "a.png"), make(photo.resize((330, 220)), "b.jpg", quality=20)]
    assert best_of(paths) == ("b.jpg", "the most pixels")


@pytest.mark.parametrize("stored", ["L", "RGB"])
def test_colour_before_grey_however_that_is_stored(
    make: Make, photo: Image.Image, stored: str
) -> None:
    paths = [make(photo.convert("L").convert(stored), "bw.png"), make(photo, "color.jpg")]
    assert best_of(paths) == ("color.jpg", "in colour")


def test_a_lossless_format_before_a_lossy_one(make: Make, photo: Image.Image) -> None:
    paths = [make(photo, "a.jpg", quality=100, age=9), make(photo, "orig.png")]
    paths += [make(photo.quantize(64), "palette.png"), make(photo, "b.webp", quality=90)]
    assert best_of(paths) == ("orig.png", "a lossless format")


def test_the_larger_file(make: Make, photo: Image.Image) -> None:
    paths = [make(photo, "a.jpg", quality=10, age=9), make(photo, "b.jpg", quality=95)]
    assert best_of(paths) == ("b.jpg", "the largest file")


def test_tags_of_a_camera(make: Make, photo: Image.Image, tmp_path: Path) -> None:
    paths = [make(photo, "tagged.jpg", exif=exif()), make(photo, "bare.jpg", age=9)]
    missing = paths[0].stat().st_size - paths[1].stat().st_size
    with paths[1].open("ab") as file:  # as large, so that the tags decide
        file.write(bytes(missing))
    os.utime(paths[1], (1_500_000_000, 1_500_000_000))
    assert best_of(paths) == ("tagged.jpg", "with a camera's EXIF tags")
    turned = make(photo, "turned.jpg", exif=exif(0x0112, 1))
    assert not read_photo_file(turned).exif, "the orientation says nothing of a camera"


def test_a_cameras_original_before_what_was_saved_from_it(make: Make, photo: Image.Image) -> None:
    original = make(photo, "IMG_1.jpg", quality=90, exif=exif())
    with Image.open(original) as opened:
        paths = [original, make(opened.convert("RGB"), "IMG_1 (1).png", age=9)]
    assert best_of(paths) == ("IMG_1.jpg", "with a camera's EXIF tags")


def test_what_programs_write_is_not_of_a_camera(make: Make, photo: Image.Image) -> None:
    tags = exif(0x0132, "2020:01:01 00:00:00")  # date of the change
    tags.get_ifd(0x8769).update({0xA001: 1, 0xA002: 300, 0xA003: 200})  # sRGB, size
    assert best_of([make(photo, "a.jpg", exif=tags), make(photo, "a.png")])[0] == "a.png"
    tags.get_ifd(0x8769)[0x829A] = 0.01  # exposure
    assert best_of([make(photo, "b.jpg", exif=tags), make(photo, "b.png")])[0] == "b.jpg"


def test_a_lossless_webp_with_tags_or_frames(make: Make, photo: Image.Image) -> None:
    more: dict[str, Any] = {
        "exif": exif(),
        "icc_profile": b"odd",
    }  # of three bytes: a chunk is padded
    frames: dict[str, Any] = {"save_all": True, "append_images": [photo.rotate(90)]}
    kinds: list[dict[str, Any]] = [{}, more, frames]
    for number, options in enumerate(kinds):
        for lossless in (True, False):
            path = make(photo, f"{number}{lossless}.webp", lossless=lossless, **options)
            assert read_photo_file(path).lossless == lossless
            assert read_photo_file(path).exif == ("exif" in options)


@pytest.fixture
def heic(tmp_path: Path, photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    # imageio, which other tests import, makes Pillow open HEIC.
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    path = tmp_path / "IMG_1.heic"
    pillow_heif.from_pillow(photo).save(path, quality=20, exif=exif().tobytes())
    return path


def test_a_heic_before_the_jpeg_that_was_exported(
    heic: Path, make: Make, photo: Image.Image
) -> None:
    paths = [heic, make(photo, "IMG_1.jpg", quality=95, age=9)]
    assert best_of(paths) == ("IMG_1.heic", "with a camera's EXIF tags")
    heic.write_bytes(heic.read_bytes()[:400])
    assert (read_photo_file(heic).pixels, read_photo_file(heic).exif) == (0, False)


def test_a_heic_that_cannot_be_read_loses_nothing_by_it(
    heic: Path, make: Make, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    found = read_photo_file(heic)
    assert (found.pixels, found.exif) == (300 * 200, None)
    paths = [heic, make(photo, "IMG_1.jpg", quality=95, age=9)]
    why = 'a HEIC, whose EXIF tags only the extra "heic" reads'
    assert best_of(paths, verify=False) == ("IMG_1.heic", why)


def test_the_older_file(make: Make, photo: Image.Image) -> None:
    paths = [make(photo, "a (1).jpg", age=9), make(photo, "a.jpg")]
    assert best_of(paths) == ("a (1).jpg", "the oldest file")


@pytest.mark.parametrize(
    "name",
    ["IMG (1).jpg", "IMG - Copy.jpg", "IMG - Copy (2).jpg", "IMG_copy2.jpg", "Copy of IMG.jpg"],
)
def test_a_name_that_is_no_copys(make: Make, photo: Image.Image, name: str) -> None:
    paths = [make(photo, name), make(photo, "IMG.jpg")]
    assert best_of(paths) == ("IMG.jpg", "its name is no copy's")


@pytest.mark.parametrize("name", ["photocopy.jpg", "copyright.jpg", "trip (2019).jpg", "a1.jpg"])
def test_names_that_only_look_like_it(name: str) -> None:
    assert not read_photo_file(Path(name)).copy


def test_of_equals_the_first(make: Make, photo: Image.Image) -> None:
    answer, ranking = found([make(photo, "b.jpg"), make(photo, "a.jpg")])
    assert answer.groups[0].tolist() == [0, 1]
    assert ranking.why([0, 1]) == "the first"


@pytest.mark.parametrize("angle", [3, 25, 80])
@pytest.mark.parametrize("fill", ["black", "white"])
def test_a_copy_turned_into_empty_corners_is_not_the_best(
    make: Make, photo: Image.Image, angle: float, fill: str
) -> None:
    turned = photo.rotate(angle, BICUBIC, expand=True, fillcolor=fill)
    paths = [make(photo, "photo.jpg", quality=60), make(turned, "turned.png")]
    assert best_of(paths) == ("photo.jpg", "not turned into empty corners")
    answer, ranking = found(paths[::-1])
    (verdict,) = answer.verdicts
    assert f"turned by {angle}° counter-clockwise" in verdict.words()
    assert "not in the first" in verdict.words(), "it is told from the best"
    (row,) = shown(members(answer), paths[::-1], ranking.why)
    assert [one.path.name for one in row.photos] == ["photo.jpg", "turned.png"]
    assert row.photos[0].title == "not turned into empty corners, kept"


def test_a_turned_photo_is_better_than_its_preview(make: Make, photo: Image.Image) -> None:
    turned = photo.rotate(10, BICUBIC, expand=True)
    paths = [make(photo.resize((120, 80), BICUBIC), "preview.jpg"), make(turned, "turned.jpg")]
    assert best_of(paths) == ("turned.jpg", "the most pixels")


def test_what_was_cut_out_of_a_photo_with_a_plain_background_is_not_the_best(
    make: Make, photo: Image.Image
) -> None:
    plain = Image.new("RGB", (400, 300), "white")
    plain.paste(photo, (50, 50))
    cut = plain.rotate(10, BICUBIC, fillcolor="white").crop((60, 50, 340, 250))
    assert best_of([make(plain, "plain.jpg"), make(cut, "cut.jpg")])[0] == "plain.jpg"


def test_without_a_verification_the_files_decide(make: Make, photo: Image.Image) -> None:
    paths = [make(photo, "a.jpg"), make(photo, "b.png")]
    assert best_of(paths, verify=False) == ("b.png", "a lossless format")


def test_without_files_the_names_decide(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.jpg", "a (1).png", "a.png")]
    assert best_of(paths, verify=False) == ("a.png", "its name is no copy's")
    assert best_of(paths[:2], verify=False) == ("a (1).png", "a lossless format")


def test_a_file_that_is_there_is_better_than_one_that_has_gone(
    make: Make, photo: Image.Image, tmp_path: Path
) -> None:
    paths = [tmp_path / "gone.png", make(photo, "a (1).jpg")]
    assert best_of(paths, verify=False) == ("a (1).jpg", "its file is there")


def test_pixels_and_a_ranking_are_refused_together() -> None:
    vectors = np.eye(2, dtype=np.float32)
    with pytest.raises(ConfigError, match="expected pixels or a ranking, got both"):
        find_duplicates(vectors, pixels=np.ones(2, np.int64), ranking=BestPhotos([]))


def test_malformed_tags_and_files_that_are_no_image_are_no_error(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(image.getvalue())
    (tmp_path / "b.jpg").write_bytes(b"no image")
    assert not read_photo_file(tmp_path / "a.jpg").exif
    assert read_photo_file(tmp_path / "a.jpg").pixels == 64
    assert read_photo_file(tmp_path / "b.jpg").pixels == 0
    (tmp_path / "c.ppm").write_bytes(b"P6 abc")
    assert read_photo_file(tmp_path / "c.ppm").pixels == 0
    assert image_size(tmp_path / "c.ppm") == (0, 0)
