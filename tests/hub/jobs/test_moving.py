"""Files are moved with a log that brings them back; nothing is overwritten or deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clever_hub.errors import DataError
from clever_hub.jobs.moving import LOG_NAME, move_all, undo


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "photos" / name for name in ("a.jpg", "deep/a.jpg", "deep/er/b.jpg")]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"photo {number}")
    return paths


def content(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*.jpg")}


def test_there_and_back(files: list[Path], tmp_path: Path) -> None:
    before, away = content(tmp_path / "photos"), tmp_path / "away"
    moves = move_all(files[1:], away)
    assert content(tmp_path / "photos") == {"a.jpg": "photo 0"}
    assert content(away) == {"a.jpg": "photo 1", "er/b.jpg": "photo 2"}
    back, problems = undo(away)
    assert (len(moves), len(back), problems) == (2, 2, [])
    assert content(tmp_path / "photos") == before
    assert not (away / LOG_NAME).exists()


def test_a_name_that_is_taken_gets_a_number(files: list[Path], tmp_path: Path) -> None:
    away = tmp_path / "away"
    move_all([files[0]], away)
    move_all([files[1]], away)
    assert content(away) == {"a.jpg": "photo 0", "a (1).jpg": "photo 1"}
    undo(away)
    assert files[0].read_text() == "photo 0"
    assert files[1].read_text() == "photo 1"


def test_undo_overwrites_nothing(files: list[Path], tmp_path: Path) -> None:
    away = tmp_path / "away"
    move_all(files, away)
    files[0].write_text("another")
    (away / "deep" / "a.jpg").unlink()
    back, problems = undo(away / LOG_NAME)
    assert [move.source for move in back] == [files[2]]
    assert len(problems) == 2
    assert files[0].read_text() == "another"
    files[0].unlink()
    assert [move.source for move in undo(away)[0]] == [files[0]], "what stayed is still in the log"


def test_what_was_moved_before_a_failure_comes_back(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, away, move = content(tmp_path / "photos"), tmp_path / "away", shutil.move

    def fails(source: Path, target: Path) -> Any:
        if source == files[1]:
            raise OSError("the disk is full")
        return move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "move", fails)
        with pytest.raises(OSError, match="the disk is full"):
            move_all(files, away)
    with (away / LOG_NAME).open("a") as log:
        log.write('{"source": "/half a li')
    assert [m.source for m in undo(away)[0]] == [files[0]]
    assert content(tmp_path / "photos") == before


def test_wrong_input(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file any more; nothing was moved"):
        move_all([*files, tmp_path / "gone.jpg"], tmp_path / "away")
    assert len(content(tmp_path / "photos")) == 3
    with pytest.raises(DataError, match=r"is in .*photos already"):
        move_all(files, tmp_path / "photos")
    with pytest.raises(DataError, match="no such log"):
        undo(tmp_path)
    (tmp_path / LOG_NAME).write_text("no json\n{}\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        undo(tmp_path)
    assert move_all([], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_line_that_was_cut_short_does_not_hide_those_after_it(
    files: list[Path], tmp_path: Path
) -> None:
    before, away = content(tmp_path / "photos"), tmp_path / "away"
    move_all(files[:1], away)
    with (away / LOG_NAME).open("a") as log:
        log.write('{"source": "/half a li')
    move_all(files[1:], away)
    assert [move.source for move in undo(away)[0]] == files[::-1]
    assert content(tmp_path / "photos") == before


def test_a_log_without_a_last_line_end_loses_nothing(files: list[Path], tmp_path: Path) -> None:
    away = tmp_path / "away"
    move_all(files[:1], away)
    (away / LOG_NAME).write_text((away / LOG_NAME).read_text().rstrip())
    move_all(files[1:], away)
    assert len(undo(away)[0]) == 3


def test_a_full_disk_leaves_the_log_as_it_was(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    move_all(files, away)
    files[0].write_text("another")
    before = (away / LOG_NAME).read_text()

    def full(*_: object, **__: object) -> int:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="no space left"):
            undo(away)
    assert (away / LOG_NAME).read_text() == before
    files[0].unlink()
    assert [move.source for move in undo(away)[0]] == [files[0]]


def test_a_link_comes_back_and_is_not_overwritten(files: list[Path], tmp_path: Path) -> None:
    link, away = tmp_path / "photos" / "link.jpg", tmp_path / "away"
    link.symlink_to("a.jpg")
    move_all([link], away)
    assert not (away / "link.jpg").exists(), "it leads nowhere from there"
    other = tmp_path / "other" / "link.jpg"
    other.parent.mkdir()
    other.write_text("another")
    assert move_all([other], away)[0].target.name == "link (1).jpg"
    assert (away / "link.jpg").is_symlink()
    back, problems = undo(away)
    assert (len(back), problems) == (2, [])
    assert link.read_text() == files[0].read_text()


def test_dots_in_a_path_do_not_lead_out_of_the_folder(files: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "c.jpg"
    other.parent.mkdir()
    other.write_text("photo 3")
    dotted = tmp_path / "photos" / ".." / "other" / "c.jpg"
    moves = move_all([files[1], dotted], tmp_path / "photos" / ".." / "away")
    assert content(tmp_path / "away") == {"photos/deep/a.jpg": "photo 1", "other/c.jpg": "photo 3"}
    assert all(".." not in move.target.parts for move in moves)
    with pytest.raises(DataError, match="already"):
        move_all([tmp_path / "photos" / ".." / "away" / "other" / "c.jpg"], tmp_path / "away")


def test_photos_in_a_linked_folder_keep_their_place(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.jpg").write_text("photo 3")
    move_all([tmp_path / "photos" / "linked" / "c.jpg", files[1]], tmp_path / "away")
    assert content(tmp_path / "away") == {"linked/c.jpg": "photo 3", "deep/a.jpg": "photo 1"}


def test_a_file_that_cannot_be_removed_stays_where_it_is(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, away = content(tmp_path), tmp_path / "away"

    def copies(source: Path, target: Path) -> Any:
        shutil.copy2(source, target)
        raise PermissionError(13, "Permission denied", str(source))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "move", copies)
        with pytest.raises(PermissionError):
            move_all(files[:1], away)
    assert content(tmp_path) == before
    # Ended between the two steps: the copy goes, the photo stays.
    shutil.copy2(files[0], away / "a.jpg")
    assert undo(away) == ([], [])
    assert content(tmp_path) == before


@pytest.mark.parametrize("by", ["folder", "log"])
def test_a_folder_that_was_renamed_since_gives_all_back(
    files: list[Path], tmp_path: Path, by: str
) -> None:
    before, away, renamed = content(tmp_path / "photos"), tmp_path / "away", tmp_path / "new"
    move_all(files[1:], away)
    away.rename(renamed)
    move_all(files[:1], away)  # another photo where the folder was
    back, problems = undo(renamed if by == "folder" else renamed / LOG_NAME)
    assert problems == []
    assert [move.target for move in back] == [renamed / "er/b.jpg", renamed / "a.jpg"]
    assert content(away) == {"a.jpg": "photo 0"}
    undo(away)
    assert content(tmp_path / "photos") == before


def test_what_stays_in_a_renamed_folder_comes_back_later(files: list[Path], tmp_path: Path) -> None:
    before, away, renamed = content(tmp_path / "photos"), tmp_path / "away", tmp_path / "new"
    move_all(files, away)
    files[0].write_text("another")
    assert len(undo(away)[1]) == 1
    away.rename(renamed)
    files[0].unlink()
    assert [move.source for move in undo(renamed)[0]] == [files[0]]
    assert content(tmp_path / "photos") == before


def test_a_log_that_was_moved_alone_and_one_of_an_earlier_version(
    files: list[Path], tmp_path: Path
) -> None:
    before, away = content(tmp_path / "photos"), tmp_path / "away"
    move_all(files[1:], away)
    elsewhere = tmp_path / "elsewhere" / LOG_NAME
    elsewhere.parent.mkdir()
    (away / LOG_NAME).rename(elsewhere)
    assert len(undo(elsewhere)[0]) == 2
    move_all(files[1:], away)
    entries = [json.loads(line) for line in (away / LOG_NAME).read_text().splitlines()]
    earlier = [{key: entry[key] for key in ("source", "target")} for entry in entries]
    (away / LOG_NAME).write_text("".join(json.dumps(entry) + "\n" for entry in earlier))
    assert len(undo(away)[0]) == 2
    assert content(tmp_path / "photos") == before


def test_one_place_that_is_blocked_keeps_no_other_photo(files: list[Path], tmp_path: Path) -> None:
    away = tmp_path / "away"
    move_all(files, away)
    shutil.rmtree(files[2].parent)
    files[2].parent.write_text("a file in the place of a folder")
    back, problems = undo(away)
    assert [move.source for move in back] == [files[1], files[0]]
    (problem,) = problems
    assert str(files[2]) in problem
    assert problem.endswith("stays")
    files[2].parent.unlink()
    assert [move.source for move in undo(away)[0]] == [files[2]]


def test_a_copy_that_was_stopped_halfway_is_no_other_file(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(source: Path, target: Path) -> None:
        target.write_text("pho")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", stopped)
        with pytest.raises(KeyboardInterrupt):
            move_all(files[:1], tmp_path / "away")
    assert content(tmp_path / "away") == {}
    assert undo(tmp_path / "away") == ([], [])
    assert files[0].read_text() == "photo 0"
