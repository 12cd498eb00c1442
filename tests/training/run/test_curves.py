"""Curves of runs: read also while they grow, drawn on one sheet."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_hub.errors import DataError
from clever_training.run import curves
from clever_training.run.curves import read_run, smoothed


def _write(folder: Path, lines: int, **more: float) -> Path:
    folder.mkdir()
    keys = ("loss", "invariance", "orthogonality", "std_invariant", "rank_equivariant", "lr")
    content = [
        {"step": n, "epoch": n / 10, "seconds": n * 36.0, **dict.fromkeys(keys, 1 / n), **more}
        for n in range(1, lines + 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in content)
    (folder / "metrics.jsonl").write_text(text + '{"step": 1000, "epo')
    return folder


def test_several_runs_are_drawn_on_one_sheet(tmp_path: Path) -> None:
    plain = _write(tmp_path / "dino", 80)
    measured = _write(tmp_path / "clever-dino", 20, knn=12.5, regularization=0.0)
    sizes = []
    for words in ([plain], [plain, measured], [plain, measured, "--x", "hours"]):
        out = tmp_path / "curves.png"
        result = CliRunner().invoke(app, ["plot", *map(str, words), "-o", str(out)])
        assert result.exit_code == 0, result.output
        with Image.open(out) as picture:
            sizes.append(picture.size)
    assert sizes[1][1] >= sizes[0][1]
    assert sizes[1] == sizes[2]
    assert not list(tmp_path.glob(".*")), "nothing half written is left"


def test_a_run_is_read_along_epochs_and_hours(tmp_path: Path) -> None:
    run = read_run(_write(tmp_path / "run", 50))
    assert run.name == "run"
    assert len(run.lines) == 50, "a line that is being written is left out"
    epochs, losses = run.curve("loss", "epochs")
    hours, _ = run.curve("loss", "hours")
    assert (epochs[-1], hours[-1]) == (5.0, 0.5)
    assert losses[0] == 1.0
    assert len(run.curve("knn", "epochs")[0]) == 0


def test_a_run_behind_a_link_has_the_name_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "third").symlink_to(_write(tmp_path / "run", 2))
    assert read_run(tmp_path / "third").name == "third"


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: expected a run folder with metrics\.jsonl"):
        read_run(tmp_path / "absent")
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(DataError, match="has logged nothing yet"):
        read_run(tmp_path)
    run = _write(tmp_path / "run", 2)
    result = CliRunner().invoke(app, ["plot", str(run), "-o", str(tmp_path / "a.nothing")])
    assert result.exit_code == 1
    assert "a.nothing: the picture cannot be written" in " ".join(result.output.split())


def test_smoothing_keeps_a_level_and_the_length() -> None:
    assert np.allclose(smoothed(np.full(20, 3.0), 9), 3.0)
    assert len(smoothed(np.arange(20.0), 9)) == 20


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Gets the figures that are drawn, with all that they show in its place."""
    drawn: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
        drawn.append(figure)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    return drawn


def test_long_names_of_runs_are_not_cut_off(tmp_path: Path, sheets: list[Figure]) -> None:
    names = ("clever-plus-distill-efficientnet-lite0", "short", "clever-plus-simclr-resnet18-tiny")
    runs = [read_run(_write(tmp_path / name, 20, knn=12.5)) for name in names]
    curves.draw(runs, tmp_path / "a.png")
    curves.draw([runs[1], runs[1]], tmp_path / "b.png")
    for sheet in sheets:
        box = sheet.legends[0].get_window_extent()
        assert sheet.bbox.x0 <= box.x0 < box.x1 <= sheet.bbox.x1
    places = [[text.get_window_extent().x0 for text in s.legends[0].get_texts()] for s in sheets]
    assert [len(set(columns)) for columns in places] == [1, 2], "short ones stand side by side"


@pytest.mark.parametrize("value", [3.3e-7, 0.00012, 0.5, 1234.5678, 123456.7])
@pytest.mark.parametrize("lines", [1, 20])
def test_titles_stay_on_the_sheet_and_nothing_overprints_the_notes(
    value: float, lines: int, tmp_path: Path, sheets: list[Figure]
) -> None:
    first = {panel.key: value for panel in curves._COLLAPSE}
    near = dict.fromkeys(("lr", "loss", "invariance"), value)
    folder = _write(tmp_path / "run", lines, **first | near)
    with (folder / "metrics.jsonl").open("w") as file:
        for n in range(1, lines + 1):  # so near each other that a summand would be split off
            values = {key: number * (1 + 1e-4 * n) for key, number in (first | near).items()}
            file.write(json.dumps({"epoch": n / 10, "seconds": n, **values}) + "\n")
    curves.draw([read_run(folder)], tmp_path / "a.png")
    (sheet,) = sheets
    drawn = [axis for axis in sheet.axes if axis.axison]
    assert {axis.get_title(loc="left") for axis in drawn} > {"Spread, equivariant part", "Loss"}
    for axis in drawn:
        (title,) = (t for t in axis.findobj(Text) if t.get_text() == axis.get_title(loc="left"))
        box, note = title.get_window_extent(), axis.texts[0].get_window_extent()
        assert sheet.bbox.x0 <= box.x0 < box.x1 <= sheet.bbox.x1
        assert note.x1 <= sheet.bbox.x1
        assert box.x1 <= axis.bbox.x1 + 1, "it does not reach into the next panel's title"
        assert axis.yaxis.get_offset_text().get_text() == ""


def test_a_schedule_is_drawn_as_it_is_and_averages_are_said_to_be_averages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warm-up that is averaged would start above 0 and bend where the schedule has a corner."""
    sheets: list[Figure] = []

    def keep(figure: Figure, path: Path, **_: object) -> None:
        sheets.append(figure)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    run = read_run(_write(tmp_path / "run", 60))
    curves.draw([run], tmp_path / "a.png")
    curves.draw([read_run(_write(tmp_path / "short", 10))], tmp_path / "b.png")
    axes = {axis.get_title(loc="left"): axis for axis in sheets[0].axes}
    (rate,) = axes["Learning rate"].lines
    assert np.array_equal(np.asarray(rate.get_ydata()), run.curve("lr", "epochs")[1])
    assert len(axes["Loss"].lines) == 2
    assert [sheet.get_supxlabel()[:12] for sheet in sheets] == ["bold: mean o", ""]
