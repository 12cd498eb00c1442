"""Names of files are in any language: what is drawn of them can be read, or seen to be missing."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from clever_hub import fonts
from clever_hub.cli.pictures import page
from clever_hub.jobs.sheets import Shown, ShownRow, write_sheet

LETTERS = "üéñåßøç–×ÜÉÑÅØÇäöàèœłžščřğışțăЖяΩλאش→…“”°±²"
_BOX = "\uffff"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What was found of characters depends on the fonts of the system."""
    fonts._lettered.cache_clear()
    yield
    fonts._lettered.cache_clear()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without fonts."""
    monkeypatch.setattr(fonts, "_WELL_KNOWN", ())


def drawn(text: str) -> NDArray[np.uint8]:
    picture = Image.new("L", (400, 40), 255)
    fonts.write(ImageDraw.Draw(picture), (4, 4), text, 0, 24)
    return np.asarray(picture)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("letter", LETTERS)
def test_letters_with_marks_and_signs_are_drawn_as_such(letter: str) -> None:
    font = fonts._font(fonts._BUNDLED, 24)
    picture = Image.new("L", (400, 40), 255)
    ImageDraw.Draw(picture).text((4, 4), _BOX, 0, font)
    box, found = np.asarray(picture), drawn(letter)
    assert (found < 255).any()
    assert not np.array_equal(found, box)
    assert not np.array_equal(found, drawn("\ufffd"))


@pytest.mark.usefixtures("bare")
def test_accents_of_their_own_join_their_letters() -> None:
    for text in ("é", "Ünterwößen", "mañana.jpg"):
        apart = unicodedata.normalize("NFD", text)
        np.testing.assert_array_equal(drawn(apart), drawn(text))
        assert fonts.width_of(apart, 13) == fonts.width_of(text, 13)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("missing", ["鱼", "\udcff", "\x1b", "🦆"])
def test_what_no_font_has_is_seen_to_be_missing(missing: str) -> None:
    np.testing.assert_array_equal(drawn(f"a{missing}b"), drawn("a\ufffdb"))


@pytest.mark.usefixtures("bare")
def test_what_is_not_seen_anyway_is_left_out() -> None:
    np.testing.assert_array_equal(drawn("a\U000e0001b"), drawn("ab"))


def test_a_font_of_the_system_has_what_ours_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(fonts, "_WELL_KNOWN", ("gone.ttf", "STIXGeneral.ttf"))
    monkeypatch.setattr(fonts, "_FOLDERS", ("/nowhere", matplotlib.get_data_path()))
    assert not np.array_equal(drawn("a⌚b"), drawn("a\ufffdb"))
    (ours, a), (theirs, watch), (_, b) = fonts._runs("a⌚b", 24)
    assert (a, watch, b) == ("a", "⌚", "b")
    assert (ours.getname()[0], theirs.getname()[0]) == ("DejaVu Sans", "STIXGeneral")
    ends = [np.nonzero((drawn(text) < 255).any(1))[0].max() for text in ("a", "a⌚")]
    assert abs(int(ends[0]) - int(ends[1])) <= 4, "on one base line"


def test_a_font_that_is_damaged_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "msyh.ttc").write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path),))
    np.testing.assert_array_equal(drawn("鱼"), drawn("\ufffd"))


def test_text_ends_where_it_is_told_to() -> None:
    picture = Image.new("L", (200, 40), 255)
    fonts.write(ImageDraw.Draw(picture), (150, 4), "süß", 0, 24, right=True)
    columns = np.nonzero((np.asarray(picture) < 255).any(0))[0]
    assert 150 - fonts.width_of("süß", 24) <= columns.min()
    assert columns.max() <= 150


@pytest.mark.usefixtures("bare")
def test_pictures_name_photos_as_they_are_called(tmp_path: Path) -> None:
    def of(name: str) -> NDArray[np.uint8]:
        path = tmp_path / "photo"
        rows = [ShownRow(f"{name} × 2", [Shown(Path(name), name)])]
        sheet = Image.open(write_sheet(path.with_suffix(".png"), name, rows))
        caption = page(name, name, [(name, Image.new("RGB", (9, 9)))])
        return np.concatenate([np.asarray(sheet).ravel(), np.asarray(caption).ravel()])

    same, other = of("Müller_ñ_ß.jpg"), of("M\uffffller_\uffff_\uffff.jpg")
    assert same.shape != other.shape or not np.array_equal(same, other)


@pytest.mark.parametrize("keep_end", [True, False])
@pytest.mark.parametrize("text", ["", "a", "AVAVAVA.jpg", "IMG_ü é—木 (12).jpg", "T…T.Y,V" * 5])
def test_a_text_is_cut_as_if_by_one_letter_after_the_other(text: str, keep_end: bool) -> None:
    for width in range(0, 120, 3):
        left = text
        shown = text
        while fonts.width_of(shown, 13) > width and left:
            left = left[1:] if keep_end else left[:-1]
            shown = "…" + left if keep_end else left + "…"
        assert fonts.cut(text, width, 13, keep_end=keep_end) == shown


def test_a_long_text_is_measured_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, measure = [], fonts.width_of

    def counted(text: str, size: float) -> float:
        asked.append(len(text))
        return measure(text, size)

    monkeypatch.setattr(fonts, "width_of", counted)
    shown = fonts.cut("a" * 20_000, 200, 13)
    assert shown.endswith("…")
    assert len(asked) < 30
