"""Rows in three formats, pages and sheets that open anywhere."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from clever_hub.embeddings import Embeddings
from clever_hub.errors import ConfigError
from clever_hub.jobs import groups as grouped
from clever_hub.jobs import leaks, sheets
from clever_hub.jobs.leaks import find_leaks
from clever_hub.jobs.sheets import Shown, ShownRow, write_page, write_sheet
from clever_hub.jobs.tables import FORMATS, write_rows

COLUMNS: dict[str, type] = {"path": str, "best": bool, "angle": float, "width": int}
ROWS = [
    {"path": Path("a, b.jpg"), "best": True, "angle": math.nan, "width": 3},
    {"path": "ü.jpg", "best": False, "angle": -90.5},
]


def test_csv(tmp_path: Path) -> None:
    with write_rows(tmp_path / "t.csv", ROWS, COLUMNS).open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "best", "angle", "width"],
            ["a, b.jpg", "True", "", "3"],
            ["ü.jpg", "False", "-90.5", ""],
        ]


def test_json(tmp_path: Path) -> None:
    read = json.loads(write_rows(tmp_path / "t.json", ROWS, COLUMNS).read_text())
    assert read[0] == {"path": "a, b.jpg", "best": True, "angle": None, "width": 3}


def test_names_that_are_no_text_are_exact_where_a_format_can_hold_them(tmp_path: Path) -> None:
    rows = [{"path": Path(os.fsdecode(b"caf\xe9.jpg"))}]
    files = {ending: write_rows(tmp_path / f"t{ending}", rows, {"path": str}) for ending in FORMATS}
    read = json.loads(files[".json"].read_text())
    assert os.fsencode(read[0]["path"]) == b"caf\xe9.jpg"
    assert files[".csv"].read_bytes().splitlines()[1] == b"caf\xe9.jpg"
    assert pq.read_table(files[".parquet"])["path"].to_pylist() == ["caf\ufffd.jpg"]


@pytest.mark.parametrize("rows", [ROWS, []])
def test_parquet_keeps_its_types(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    table = pq.read_table(write_rows(tmp_path / "t.parquet", rows, COLUMNS))
    assert [str(field.type) for field in table.schema] == ["string", "bool", "double", "int64"]
    assert len(table) == len(rows)


def test_an_ending_that_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a name with \.parquet, \.csv, \.json"):
        write_rows(tmp_path / "t.xlsx", ROWS, COLUMNS)
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(ConfigError, match="got the folder"):
        write_rows(tmp_path / "t.csv", ROWS, COLUMNS)


@pytest.fixture
def rows(photos: dict[str, Path], tmp_path: Path) -> list[ShownRow]:
    nasty = tmp_path / "<script>alert(1)</script>.png"
    nasty.parent.mkdir(exist_ok=True)
    Image.new("RGB", (30, 900), "red").save(tmp_path / "thin.png")
    shown = [
        Shown(photos["coffee"], "the most pixels, kept", "600 × 400"),
        Shown(tmp_path / "thin.png", "mirrored, turned by 90° counter-clockwise, cropped to 60 %"),
        Shown(nasty, "it has gone & was <odd>"),
    ]
    return [ShownRow("Group 1: 3 photos", shown), ShownRow("one", shown[:1])]


def test_the_page_is_one_file_and_quotes_what_it_shows(
    rows: list[ShownRow], tmp_path: Path
) -> None:
    text = write_page(tmp_path / "p.html", "a < b", ["1 & 2"], rows).read_text()
    assert text.count('src="data:image/jpeg;base64,') == 3
    assert "<script>" not in text
    assert "cannot be read" in text
    assert not re.search(r"https?://", text)
    for words in ("a &lt; b", "1 &amp; 2", "was &lt;odd&gt;", 'class="first"'):
        assert words in text
    assert text.count('class="first"') == 1, "a photo alone is not marked"


def test_the_sheet_has_room_for_all_rows(rows: list[ShownRow], tmp_path: Path) -> None:
    path = write_sheet(tmp_path / "s.png", "title", rows)
    with Image.open(path) as sheet:
        assert sheet.width > 6 * 200
        colours = sheet.convert("RGB").getcolors(10_000_000)
        assert colours is not None
        assert any(colour == (255, 0, 0) for _, colour in colours), "the red photo is there"
        with Image.open(write_sheet(tmp_path / "one.png", "title", rows[:1])) as one:
            assert one.height < sheet.height


def test_the_sheet_says_how_many_photos_of_a_row_it_leaves_out(
    photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[str]()
    text = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, at: Any, words: str, *args: Any, **more: Any) -> None:
        drawn.append(words)
        text(self, at, words, *args, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    nine = [Shown(photos["coffee"], f"copy {number}") for number in range(9)]
    write_sheet(tmp_path / "s.png", "title", [ShownRow("nine", nine), ShownRow("six", nine[:6])])
    assert [words for words in drawn if "more" in words] == ["+3 more"]
    assert sum("copy" in words for words in drawn) == 12


def test_a_picture_shows_the_whole_note(
    photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[str]()
    monkeypatch.setattr(sheets, "write", lambda _d, _at, text, *_, **__: written.append(text))
    note = "invariant 0.94, equivariant 0.61"
    write_sheet(tmp_path / "s.png", "t", [ShownRow("", [Shown(photos["coffee"], "0.9", note)])])
    assert note in " ".join(written)


def test_text_is_utf_8_whatever_the_encoding_of_file_names(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    """As where the locale is ISO-8859-1."""
    script = (
        "import sys; from pathlib import Path\n"
        "from clever_hub.jobs.sheets import Shown, ShownRow, write_page\n"
        "assert sys.getfilesystemencoding() == 'ascii', sys.getfilesystemencoding()\n"
        "rows = [ShownRow('90° → 1 ü', [Shown(Path(sys.argv[1]), '2 × 3')])]\n"
        "write_page(Path(sys.argv[2]), 'title', [], rows)\n"
    )
    file = tmp_path / "script.py"
    file.write_text(script, encoding="utf-8")
    arguments = (file, photos["coffee"], tmp_path / "p.html")
    command = [sys.executable, "-X", "utf8=0", *map(str, arguments)]
    variables = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if "AssertionError" in done.stderr:
        pytest.skip(f"this system has no such locale: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "90° → 1 ü" in text
    assert "2 × 3" in text


def test_a_row_shows_so_many_photos_and_counts_the_others(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    paths: list[Path] = [photos["coffee"]] * 70
    group = [grouped.Member(0, None, None), *(grouped.Member(i, 0, None) for i in range(1, 70))]
    (row,) = grouped.shown([group], paths, lambda _: "the first")
    assert (len(row.photos), row.more) == (50, 20)
    text = write_page(tmp_path / "p.html", "title", [], [row]).read_text()
    assert text.count("<figure") == 50
    assert "and 20 more; a table has them all." in text
    lengths = np.repeat([1.0, -1.0, 1.0], (70, 70, 1)).astype(np.float32)[:, None]
    e = Embeddings(lengths, lengths)
    found = find_leaks(e[:140], e[140:], threshold=0.5)
    (leak,) = leaks.shown(found, paths * 2, [photos["rocket"]])
    assert (len(leak.photos), leak.more) == (50, 21)
