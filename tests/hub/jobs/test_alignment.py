"""What was done to a photo is read from the pixels; different photos are told apart."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from clever_hub.jobs.alignment import Alignment, align
from clever_hub.jobs.keypoints import Keypoints, keypoints
from clever_hub.jobs.rows import Spool
from clever_hub.jobs.verifying import PixelVerifier, _packed, _unpacked


@pytest.fixture
def photo(photos: dict[str, Path]) -> Image.Image:
    """A cat, 451×300."""
    return Image.open(photos["chelsea"]).convert("RGB")


def related(a: Image.Image, b: Image.Image) -> Alignment:
    return align(keypoints(a), keypoints(b))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 25, 90, -120, 180])
def test_turned_and_mirrored(photo: Image.Image, angle: int, mirrored: bool) -> None:
    first = ImageOps.mirror(photo) if mirrored else photo
    found = related(photo, first.rotate(angle, Image.Resampling.BICUBIC, expand=True))
    assert found.same
    assert found.mirrored == mirrored
    assert abs((found.angle - angle + 180) % 360 - 180) < 1
    back = related(first.rotate(angle, Image.Resampling.BICUBIC, expand=True), photo)
    assert abs((back.angle - (angle if mirrored else -angle) + 180) % 360 - 180) < 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_where_a_crop_lies(photo: Image.Image, mirrored: bool) -> None:
    crop = photo.crop((200, 20, 400, 200))  # its centre is at (300, 110), a's at (225.5, 150)
    found = related(photo, ImageOps.mirror(crop) if mirrored else crop)
    side = (451 * 300) ** 0.5
    assert found.same
    np.testing.assert_allclose(found.shift, (74.5 / side, -40 / side), atol=0.01)
    assert found.zoom == pytest.approx(side / (200 * 180) ** 0.5, rel=0.02)
    assert found.shown == pytest.approx(200 * 180 / (451 * 300), abs=0.02)
    assert found.own < 0.05


def turned_hue(photo: Image.Image, degrees: float) -> Image.Image:
    """In HSV, as photo editors do it."""
    hue, saturation, value = photo.convert("HSV").split()
    turned = (np.asarray(hue, np.int16) + round(degrees / 360 * 256)) % 256
    bands = Image.fromarray(turned.astype(np.uint8)), saturation, value
    return Image.merge("HSV", bands).convert("RGB")


def _jpeg(photo: Image.Image) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=20)
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p, "the same picture"),
        (_jpeg, "the same picture"),
        (lambda p: p.resize((300, 200)), "the same picture"),
        (lambda p: p.resize((200, 200)), "stretched"),
        (lambda p: p.resize((200, 112)), "stretched"),
        (lambda p: p.convert("L"), "in grey"),
        (lambda p: p.convert("L").rotate(180), "turned by 180°, in grey"),
        (lambda p: turned_hue(p, 40), "recoloured"),
        (lambda p: ImageOps.mirror(turned_hue(p, -120)), "mirrored, recoloured"),
        (lambda p: ImageEnhance.Color(p).enhance(0.4), "recoloured"),
        (lambda p: ImageEnhance.Brightness(p).enhance(1.4), "brighter"),
        (lambda p: ImageEnhance.Brightness(p).enhance(0.6), "darker"),
        (ImageOps.mirror, "mirrored"),
        (ImageOps.flip, "flipped upside down"),
        (lambda p: p.rotate(180), "turned by 180°"),
        (lambda p: p.rotate(90, expand=True), "turned by 90° counter-clockwise"),
        (lambda p: ImageOps.expand(p, 60), "44 % of it is not in the first"),
        (lambda p: p.crop((0, 0, 320, 300)), "cropped to 71 %"),
    ],
)
def test_in_words(
    photo: Image.Image, change: Callable[[Image.Image], Image.Image], words: str
) -> None:
    assert related(photo, change(photo)).words() == words


def test_different_photos_are_different(photos: dict[str, Path]) -> None:
    found = {name: keypoints(path) for name, path in photos.items()}
    for a, b in itertools.combinations(found, 2):
        assert not align(found[a], found[b]).same
        assert align(found[a], found[b]).words() == "different photos"


def test_without_differences_all_different_photos_have_one_verdict(
    photos: dict[str, Path], photo: Image.Image
) -> None:
    cat, rocket, coffee = (keypoints(photos[name]) for name in ("chelsea", "rocket", "coffee"))
    verdict = align(cat, rocket, differences=False)
    assert verdict == Alignment(False)
    assert align(cat, coffee, differences=False) is verdict
    assert align(cat, rocket).keypoints > 0
    turned = keypoints(photo.rotate(90, expand=True))
    assert align(cat, turned, differences=False) == align(cat, turned)


def test_the_verifier_says_of_different_photos_only_that(
    photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of millions of candidates most are different: neither palettes nor verdicts are made."""
    files = [photos["coffee"], photos["rocket"], photos["chelsea"]]
    a, b = np.array([0, 0]), np.array([1, 2])
    (one, _) = PixelVerifier(files, differences=True)(a, b)
    assert one is not None
    assert one.keypoints > 0
    monkeypatch.setattr("clever_hub.jobs.alignment.compare_palettes", None)
    first, second = PixelVerifier(files)(a, b)
    assert first == Alignment(False)
    assert first is second


def test_a_logo_in_common_is_not_a_photo_in_common(photos: dict[str, Path]) -> None:
    logo = Image.open(photos["astronaut"]).crop((180, 60, 280, 160)).resize((60, 60))
    names = ("coffee", "chelsea")
    a, b = (Image.open(photos[name]).convert("RGB").resize((600, 450)) for name in names)
    for image in (a, b):
        image.paste(logo, (10, 10))
    assert not related(a, b).same


def test_a_screen_in_common_is_not_a_photo_in_common(photos: dict[str, Path]) -> None:
    screen = Image.open(photos["astronaut"]).convert("RGB").resize((600, 600))
    a, b = screen.copy(), screen.copy()
    a.paste(Image.open(photos["coffee"]).convert("RGB").resize((560, 440)), (20, 80))
    b.paste(Image.open(photos["chelsea"]).convert("RGB").resize((560, 440)), (20, 80))
    assert not related(a, b).same


@pytest.mark.parametrize("size", [(1, 1), (40, 40), (3000, 2), (2, 3000)])
def test_an_empty_picture_is_like_nothing(photo: Image.Image, size: tuple[int, int]) -> None:
    plain = Image.new("RGB", size, "gray")
    assert not related(plain, photo).same
    assert not related(photo, plain).same
    assert related(plain, plain).words() == "the same picture"


def test_paper_of_other_colours_is_other_paper() -> None:
    red, green, grey = ((190, 0, 0), (0, 97, 0), (57, 57, 57))  # of one luma
    plain = [keypoints(Image.new("RGB", (90, 60), colour)) for colour in (red, green, grey)]
    assert len({int(one.gray[0, 0]) for one in plain}) == 1
    for a, b in itertools.permutations(plain, 2):
        assert not align(a, b).same
    for one in plain:
        assert align(one, one).words() == "the same picture"


def test_a_grey_copy_of_one_without_keypoints_is_in_grey() -> None:
    ramp = np.linspace(20, 200, 90).astype(np.uint8)
    sky = np.stack([ramp // 2, ramp // 2 + 20, ramp], axis=1)[None].repeat(60, axis=0)
    photo = Image.fromarray(np.ascontiguousarray(sky))
    found = related(photo, photo.convert("L"))
    assert len(keypoints(photo).points) < 8
    assert found.words() == "in grey"


@pytest.mark.parametrize("angle", [0, 30])
def test_how_much_it_was_stretched(photo: Image.Image, angle: int) -> None:
    turned = photo.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    assert related(photo, turned).stretch == pytest.approx(1, abs=0.02)
    wide = turned.resize((round(1.5 * turned.width), turned.height))
    assert related(photo, wide).stretch == pytest.approx(1.5, abs=0.03)
    assert related(wide, photo).stretch == pytest.approx(1.5, abs=0.03)


def test_the_verifier_reads_each_photo_and_names_what_it_cannot_read(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    turned = tmp_path / "turned.png"
    Image.open(photos["coffee"]).rotate(90, expand=True).save(turned)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    files = [photos["coffee"], turned, photos["rocket"], tmp_path / "broken.jpg"]
    seen: list[tuple[int, int]] = []
    verify = PixelVerifier(files, threads=2, progress=lambda *done: seen.append(done))
    verdicts = verify(np.array([0, 1, 0, 1]), np.array([1, 0, 2, 3]))
    assert verdicts[3] is None
    assert [verdict.words() for verdict in verdicts if verdict is not None] == [
        "turned by 90° counter-clockwise",
        "turned by 90° clockwise",
        "different photos",
    ]
    assert str(verify.unreadable[3]).startswith(f"{files[3]}: ")
    assert seen == [(4, 4)]


def compared(files: list[Path], **options: Any) -> tuple[Sequence[Alignment | None], list[int]]:
    """Verdicts on all pairs, the partners of each far apart; and how often each was decoded."""
    decoded = [0] * len(files)

    def counted(source: Any) -> Keypoints:
        decoded[files.index(source)] += 1
        return keypoints(source)

    a, b = np.triu_indices(len(files), 1)
    verify = PixelVerifier(files, read=counted, differences=True, **options)
    verdicts = verify(a, b)
    assert verify(b, a)[0] == verdicts[0]
    return verdicts, decoded


@pytest.fixture
def many(photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Photos, mirrored ones, a blank one and one that cannot be read; a pair at a time."""
    monkeypatch.setattr("clever_hub.jobs.verifying._CHUNK", 1)
    for name in ("coffee", "chelsea"):
        ImageOps.mirror(Image.open(photos[name])).save(tmp_path / f"{name}.png")
    Image.new("L", (60, 40), 90).save(tmp_path / "blank.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return [*photos.values(), *sorted(tmp_path.glob("*.*"))]


def test_a_photo_is_decoded_once_however_few_are_kept_in_memory(many: list[Path]) -> None:
    expected, _ = compared(many)
    verdicts, decoded = compared(many, cached=2)
    assert verdicts == expected
    assert decoded == [1] * len(many)


@pytest.mark.parametrize("full", [True, False])
def test_without_room_for_keypoints_photos_are_decoded_again(
    many: list[Path], monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def refused(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    expected, _ = compared(many)
    if full:
        monkeypatch.setattr(Spool, "add", refused)
    else:
        monkeypatch.setattr("clever_hub.jobs.verifying._SPOOLED", 100_000)  # of one photo
    verdicts, decoded = compared(many, cached=2)
    assert verdicts == expected
    assert sum(decoded) > 2 * len(many)


@pytest.mark.parametrize("size", [(451, 300), (1, 1), (3000, 2)])
def test_keypoints_come_back_from_disk_as_they_were(
    photo: Image.Image, size: tuple[int, int]
) -> None:
    found = keypoints(photo.resize(size))
    back = _unpacked(_packed(found))
    assert back.coloured == found.coloured
    for name in ("gray", "points", "descriptors", "colors"):
        before, after = getattr(found, name), getattr(back, name)
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


def test_the_verifier_forgets(photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clever_hub.jobs.verifying._CHUNK", 1)
    verify = PixelVerifier(list(photos.values()), cached=2)
    a, b = np.array([0, 1, 2, 0]), np.array([0, 2, 3, 3])
    assert [bool(verdict and verdict.same) for verdict in verify(a, b)] == [
        True,
        False,
        False,
        False,
    ]
    assert len(verify._known) == 2
