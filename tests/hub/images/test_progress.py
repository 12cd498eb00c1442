"""A bar shows on a terminal alone: a log file gets a line every half minute."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from clever_hub.cli.progress import working_on
from clever_hub.images import progress
from clever_hub.images.progress import LogLines, counting


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still until its ``now`` is set."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_line_every_half_minute(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    lines = LogLines(Console(file=out, width=200), "images")
    for second in range(0, 70, 10):
        clock.now = 100.0 + second
        lines.say("embedding", 200 * second, 100_000)
    assert out.getvalue().splitlines() == [
        "embedding: 6,000 of 100,000 (6%), 200 images/s, 8 min left",
        "embedding: 12,000 of 100,000 (12%), 200 images/s, 7 min left",
    ]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (10, 20_000, 60, "embedding: 10 of 20,000 (0%), 33 h 19 min left"),
        (20_000, 20_010, 40, "embedding: 20,000 of 20,010 (100%), 0 s left"),
        (500, None, 40, "embedding: 500"),
        (500, 0, 40, "embedding: 500"),
        (0, 500, 40, "embedding: 0 of 500 (0%)"),
    ],
)
def test_what_a_line_says(
    clock: SimpleNamespace, done: int, total: int | None, seconds: float, line: str
) -> None:
    out = io.StringIO()
    lines = LogLines(Console(file=out, width=200))
    lines.say("embedding", 0, total)
    clock.now += seconds
    lines.say("embedding", done, total)
    assert out.getvalue().rstrip("\n") == line


def test_the_speed_is_of_what_was_done_here(clock: SimpleNamespace) -> None:
    """What an earlier run had done does not count."""
    out = io.StringIO()
    lines = LogLines(Console(file=out, width=200), "photos")
    lines.say("embedding", 9_000, 10_000)
    clock.now += 50
    lines.say("embedding", 9_100, 10_000)
    assert out.getvalue() == "embedding: 9,100 of 10,000 (91%), 2 photos/s, 8 min left\n"


def test_a_terminal_has_its_bar_alone(clock: SimpleNamespace) -> None:
    out = io.StringIO()
    lines = LogLines(Console(file=out, force_terminal=True))
    lines.say("embedding", 0, 10)
    clock.now += 60
    lines.say("embedding", 5, 10)
    assert not out.getvalue()


def test_counting_writes_lines_to_a_log(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with counting("indexing", 640) as advance:
        clock.now += 40
        advance(64)
        said = capsys.readouterr().err
    assert "indexing: 64 of 640 (10%), 2 images/s, 6 min left\n" in said


def test_nothing_is_shown_when_nothing_shall_be(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with counting("indexing", 640, show=False) as advance:
        clock.now += 40
        advance(64)
    assert capsys.readouterr().err == ""


def test_each_part_of_a_verb_has_lines(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with working_on() as report:
        report("matching", 0, 50)
        clock.now += 31
        report("matching", 5, 50)
        said = capsys.readouterr().err
    assert "matching: 5 of 50 (10%), 5 min left\n" in said
