"""Orientation tags: no other byte that matters changes, and all of it can be taken back."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from clever_hub.errors import DataError
from clever_hub.images.opening import load_image
from clever_hub.jobs.tagging import Tagged, apply_turns, undo_turns

TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180}
TURNS |= {270: Image.Transpose.ROTATE_270}


def jpeg(path: Path, image: Image.Image, **tags: Any) -> Path:
    exif = Image.Exif()
    for name, value in tags.items():
        tag = int(ExifTags.Base[name])
        block = int(ExifTags.IFD.Exif) if name in ("MakerNote", "LensModel") else None
        (exif.get_ifd(block) if block else exif)[tag] = value
    image.save(path, "JPEG", quality=90, **({"exif": exif} if tags else {}))
    return path


@pytest.fixture
def photo(photos: dict[str, Path]) -> Image.Image:
    return load_image(photos["coffee"]).resize((120, 80))


@pytest.mark.parametrize("quarter", [90, 180, 270])
@pytest.mark.parametrize("tags", [{}, {"Make": "Canon"}, {"Make": "Canon", "Orientation": 1}])
def test_a_turned_photo_is_shown_upright_and_its_pixels_stay(
    quarter: int, tags: dict[str, Any], photo: Image.Image, tmp_path: Path
) -> None:
    path = jpeg(tmp_path / "a.jpg", photo.transpose(TURNS[quarter]), **tags)
    before = path.read_bytes()
    stored = np.asarray(Image.open(io.BytesIO(before)))
    assert list(apply_turns([(path, quarter)], tmp_path / "log.jsonl")) == [Tagged(path, quarter)]
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), stored)
        assert image.getexif().get(int(ExifTags.Base.Make)) == tags.get("Make")
    # What a viewer shows is the photo as it was before it was turned, but for the compression.
    difference = np.asarray(load_image(path), float) - np.asarray(photo, float)
    assert load_image(path).size == photo.size
    assert np.abs(difference).mean() < 6
    scan = before.index(b"\xff\xda")
    assert path.read_bytes().endswith(before[scan:])


def test_undo_gives_back_every_byte(photo: Image.Image, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    files = [
        jpeg(tmp_path / "plain.jpg", photo),
        jpeg(tmp_path / "tagged.jpg", photo, Orientation=1, Make="Canon", LensModel="50 mm"),
        jpeg(tmp_path / "model.jpg", photo, Model="X"),
    ]
    before = [path.read_bytes() for path in files]
    assert not [t for t in apply_turns([(path, 90) for path in files], log) if t.problem]
    assert [path.read_bytes() for path in files] != before
    undone = list(undo_turns(log))
    assert [tagged.path.name for tagged in undone] == ["model.jpg", "tagged.jpg", "plain.jpg"]
    assert not [tagged for tagged in undone if tagged.problem]
    assert [path.read_bytes() for path in files] == before
    assert not [tagged for tagged in undo_turns(log) if tagged.problem]  # once more does no harm


def test_what_cannot_be_turned_safely_is_left_alone_and_named(
    photo: Image.Image, tmp_path: Path
) -> None:
    png = tmp_path / "a.jpg"
    photo.save(png, "PNG")
    files = {
        png: "no JPEG by its first bytes",
        jpeg(tmp_path / "b.jpg", photo, Orientation=6): "tagged already: orientation 6",
        jpeg(tmp_path / "c.jpg", photo): "read-only",
        jpeg(tmp_path / "d.jpg", photo, MakerNote=b"secret"): "maker's note",
        tmp_path / "gone.jpg": "No such file",
        jpeg(tmp_path / "e.jpg", photo): "",
    }
    (tmp_path / "c.jpg").chmod(0o444)
    content = (tmp_path / "e.jpg").read_bytes()
    broken = tmp_path / "f.jpg"
    broken.write_bytes(content[: content.index(b"\xff\xda")])
    files[broken] = "no scan was found"
    before = {path: path.read_bytes() for path in files if path.exists()}
    done = list(apply_turns([(path, 90) for path in files], tmp_path / "log.jsonl"))
    for tagged, (path, problem) in zip(done, files.items(), strict=True):
        assert tagged.path == path
        assert problem in tagged.problem
        assert bool(tagged.problem) is bool(problem)
        if problem and path.exists():
            assert path.read_bytes() == before[path]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_mode_and_links_stay(photo: Image.Image, tmp_path: Path) -> None:
    path = jpeg(tmp_path / "a.jpg", photo)
    path.chmod(0o640)
    link = tmp_path / "link.jpg"
    link.symlink_to(path)
    assert not [t for t in apply_turns([(link, 180)], tmp_path / "log.jsonl") if t.problem]
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    with Image.open(path) as image:
        assert image.getexif()[int(ExifTags.Base.Orientation)] == 3


def test_a_photo_that_was_changed_since_is_not_taken_back(
    photo: Image.Image, tmp_path: Path
) -> None:
    path, log = jpeg(tmp_path / "a.jpg", photo), tmp_path / "log.jsonl"
    list(apply_turns([(path, 90)], log))
    path.write_bytes(path.read_bytes() + b"edited")
    (tagged,) = undo_turns(log)
    assert "was changed since" in tagged.problem
    assert path.read_bytes().endswith(b"edited")


def test_photos_and_their_log_may_be_renamed_together(photo: Image.Image, tmp_path: Path) -> None:
    root, renamed = tmp_path / "photos", tmp_path / "renamed"
    (root / "deep").mkdir(parents=True)
    path = jpeg(root / "deep" / "a.jpg", photo)
    before = path.read_bytes()
    list(apply_turns([(path, 90)], root / "log.jsonl"))
    root.rename(renamed)
    (tagged,) = undo_turns(renamed / "log.jsonl")
    assert tagged == Tagged(renamed / "deep" / "a.jpg", 90)
    assert tagged.path.read_bytes() == before


def test_an_interruption_between_log_and_photo_is_no_problem(
    photo: Image.Image, tmp_path: Path
) -> None:
    path, log = jpeg(tmp_path / "a.jpg", photo), tmp_path / "log.jsonl"
    before = path.read_bytes()
    list(apply_turns([(path, 90)], log))
    path.write_bytes(before)  # as if it had never been renamed
    (tagged,) = undo_turns(log)
    assert not tagged.problem
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(before).digest()


def test_a_damaged_or_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a log of orient"):
        list(undo_turns(tmp_path / "gone.jsonl"))
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"path": "a"}) + "\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        list(undo_turns(log))


def test_a_line_that_was_cut_short_hides_no_other(photo: Image.Image, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    files = [jpeg(tmp_path / f"{name}.jpg", photo) for name in "abc"]
    before = [path.read_bytes() for path in files]
    list(apply_turns([(files[0], 90)], log))
    with log.open("a") as file:
        file.write('{"path": "/half a li')
    assert [tagged.path for tagged in undo_turns(log)] == files[:1]
    list(apply_turns([(path, 90) for path in files], log))
    assert [tagged.path for tagged in undo_turns(log)] == [*files[::-1], files[0]]
    assert [path.read_bytes() for path in files] == before


def test_nothing_is_taken_back_by_a_damaged_log(photo: Image.Image, tmp_path: Path) -> None:
    path, log = jpeg(tmp_path / "a.jpg", photo), tmp_path / "log.jsonl"
    list(apply_turns([(path, 90)], log))
    turned = path.read_bytes()
    log.write_text("no entry\n" + log.read_text())
    with pytest.raises(DataError, match="line 1 is damaged"):
        list(undo_turns(log))
    assert path.read_bytes() == turned


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\nrest", b'["a", "b"]', b"notes\nof mine"])
def test_a_file_that_is_no_log_is_refused(content: bytes, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(content)
    with pytest.raises(DataError, match="expected a log of earlier changes"):
        list(apply_turns([], log))
    assert log.read_bytes() == content
