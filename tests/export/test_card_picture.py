"""The card's picture shows what was measured, and nothing in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from clever_export.card import make_card, write_card
from clever_export.card_picture import DIGEST_KEY, digest_of, draw_figures, has_picture
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.files import write_json


def _figures(**places: float) -> dict[str, Any]:
    """Figures of the three panels, by part: ``full=17.0`` is k-NN, ``full_angle`` the last one."""
    rows = {"": ("knn", "plain", "top1"), "_same": ("invariance", "rotation", "same_centred")}
    rows["_angle"] = ("equivariance", "rotation", "mlp_degrees")
    found: dict[str, Any] = {}
    for name, value in places.items():
        part, line, kind = name.partition("_")
        protocol, condition, metric = rows[line + kind]
        parts = found.setdefault(protocol, {}).setdefault(condition, {})
        parts.setdefault(part, {})[metric] = {"mean": value, "std": None}
    return found


def _evaluation(figures: dict[str, Any], **baselines: dict[str, Any]) -> dict[str, Any]:
    others = {name: {"model": {}, "figures": one} for name, one in baselines.items()}
    start = {"schema_version": 1, "model": {}, "protocols": {}}
    return {**start, "figures": figures, "baselines": others}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Draws, and gives matplotlib's figure."""
    kept: list[Figure] = []
    save = Figure.savefig

    def noted(self: Figure, *arguments: Any, **options: Any) -> None:
        kept.append(self)
        save(self, *arguments, **options)

    def draw(evaluation: dict[str, Any]) -> Figure:
        draw_figures(evaluation, tmp_path / "figures.png")
        return kept[-1]

    monkeypatch.setattr(Figure, "savefig", noted)
    return draw


def test_only_what_was_measured_has_a_panel_a_bar_and_a_colour(drawn: Any) -> None:
    canvas = drawn(
        _evaluation(_figures(full=17.0, equivariant=10.0), pixels=_figures(full_angle=9))
    )
    (axes,) = canvas.axes
    assert axes.get_title() == "What is in the photo?"
    assert sorted(bar.get_width() for bar in axes.patches) == [10.0, 17.0]
    assert [text.get_text() for text in axes.texts].count("not measured") == 1
    legend = canvas.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["full embedding", "equivariant part"]
    shown = [patch.get_facecolor() for patch in legend.get_patches()]
    assert shown == [bar.get_facecolor() for bar in axes.patches]


def test_labels_lie_inside_the_panel_and_no_line_goes_through_them(drawn: Any) -> None:
    figures = _figures(full_same=0.9, equivariant_same=-0.05, full_angle=44.0)
    canvas = drawn(_evaluation(figures))
    FigureCanvasAgg(canvas).draw()  # type: ignore[no-untyped-call]
    for axes in canvas.axes:
        frame = axes.get_window_extent()
        for text in axes.texts:
            box = text.get_window_extent()
            if text.get_text() != "knows nothing":
                assert frame.x0 <= box.x0
                assert box.x1 <= frame.x1
                assert text.get_bbox_patch().get_facecolor() == (1, 1, 1, 1)
    assert max(line.get_zorder() for line in canvas.axes[-1].lines) == 0


def test_a_long_name_leaves_room_for_the_panels(drawn: Any) -> None:
    name = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    canvas = drawn(_evaluation(_figures(full=17.0), **{name: _figures(full=9.0), "x" * 60: {}}))
    _, known, endless = (label.get_text() for label in canvas.axes[0].get_yticklabels())
    assert known.replace("\n", "") == name
    assert endless.endswith("…")
    assert max(map(len, f"{known}\n{endless}".split("\n"))) <= 24


def test_without_figures_for_it_there_is_no_picture_and_no_line_of_it(tmp_path: Path) -> None:
    config = ModelConfig("mine", "resnet18", 512, 409, PreprocessingConfig(64, 64))
    write_json(tmp_path / "config.json", config.to_dict())
    linear = {"linear": {"plain": {"full": {"top1": {"mean": 5.0, "std": None}}}}}
    write_json(tmp_path / "evaluation.json", _evaluation(linear))
    assert "figures.png" not in write_card(tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "figures.png").exists()
    write_json(tmp_path / "evaluation.json", _evaluation(linear | _figures(full=7.0)))
    assert "figures.png" in make_card(tmp_path)


def test_the_picture_says_of_which_figures_it_is(tmp_path: Path) -> None:
    evaluation = _evaluation(_figures(full=17.0))
    assert has_picture(evaluation)
    draw_figures(evaluation, tmp_path / "figures.png")
    with Image.open(tmp_path / "figures.png") as picture:
        assert picture.info[DIGEST_KEY] == digest_of(json.loads(json.dumps(evaluation)))
    assert digest_of(_evaluation(_figures(full=17.1))) != digest_of(evaluation)
