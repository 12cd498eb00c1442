"""The report: what is on the page is what the files say, and what they lack is said."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_hub.errors import DataError
from clever_hub.files import write_json
from clever_training.evaluation.report import figures, scatter, tables
from clever_training.evaluation.report.claims import claims_table, noise, verdicts
from clever_training.evaluation.report.collect import Field, Value, collect
from clever_training.evaluation.report.document import (
    Picture,
    Table,
    Text,
    _inline,
    to_html,
    to_markdown,
)
from clever_training.evaluation.report.figures import strengths
from clever_training.evaluation.report.page import _bands, write_page
from clever_training.evaluation.report.published import PUBLISHED, published_table
from clever_training.evaluation.report.style import looks
from clever_training.evaluation.results import summarize
from tests.training.evaluation.report_example import evaluation, write_example

PICTURES = (
    "robustness.png",
    "robustness-parts.png",
    "invariance.png",
    "invariance-equivariance.png",
    "collapse.png",
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def field(example: Path) -> Field:
    return collect([example])


@pytest.fixture(scope="module")
def page(field: Field, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_page(field, out)
    return out


# Reading.


def test_models_come_first_and_a_shared_baseline_once(field: Field, example: Path) -> None:
    names = [entrant.name for entrant in field.entrants]
    assert names == ["clever-resnet18", "dino-resnet18", "random resnet18", "16x16 pixels"]
    assert [entrant.name for entrant in field.models] == names[:2]
    assert len(field.tuned) == 1
    again = collect([example / "clever-resnet18", example / "dino-resnet18" / "evaluation.json"])
    assert [entrant.name for entrant in again.entrants] == names


def test_a_figure_is_found_by_its_keys(field: Field) -> None:
    expected = evaluation("clever-resnet18", 0.9)["figures"]["sweeps"]["upright/crop/0.6"]["full"]
    found = field.entrants[0].get("sweeps", "upright/crop/0.6", "full", "top1")
    assert found is not None
    assert found.mean == expected["top1"]["mean"]
    assert len(found.values) == 3
    assert field.entrants[0].get("sweeps", "upright/crop/0.61", "full", "top1") is None
    assert field.entrants[3].get("knn", "plain", "invariant", "top1") is None


def test_models_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_json(tmp_path / folder / "evaluation.json", evaluation("mine", 0.5))
    names = [entrant.name for entrant in collect([tmp_path]).entrants]
    assert names[:2] == ["mine (a)", "mine (b)"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # Folder, data and weights of each; a baseline's folder is that of a model it was beside.
        ((("birds/m", "birds", "m"), ("cars/m", "cars", "m")), ["birds", "cars"]),
        ((("p/m", "birds", "m"), ("q/m", "birds", "n")), ["p", "q"]),
        ((("p/m/e", "user/birds:", "m"), ("q/m/e", "user/cars:", "m")), ["birds", "cars"]),
        (
            (("p/m", "birds", "1"), ("p/n", "birds", "2"), ("q/m", "cars", "1")),
            ["p/m", "p/n", "q/m"],
        ),
    ],
)
def test_models_of_one_name_are_told_apart_by_what_differs(
    places: tuple[tuple[str, str, str], ...], expected: list[str], tmp_path: Path
) -> None:
    for folder, data, identity in places:
        content = evaluation("mine", 0.5)
        content["model"]["identity"] = identity
        record = content["protocols"]["knn"]
        join = "" if data.endswith(":") else "/"
        record["data"] = {
            split: {**of, "name": f"{data}{join}{split}"} for split, of in record["data"].items()
        }
        content["protocols"] = dict.fromkeys(content["protocols"], record)
        write_json(tmp_path / folder / "evaluation.json", content)
    found = collect([tmp_path / folder for folder, *_ in places])
    assert [model.name for model in found.models] == [f"mine ({label})" for label in expected]
    known = list(dict.fromkeys(data.rstrip(":").rpartition("/")[2] for _, data, _ in places))
    pixels = [one.name for one in found.entrants if one.kind == "pixels"]
    apart = [f"16x16 pixels ({name})" for name in known]
    assert pixels == (apart if len(known) > 1 else ["16x16 pixels"])


def test_a_folder_without_figures_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found neither\. Make one with clever-hub evaluate"):
        collect([tmp_path])
    (tmp_path / "finetune.json").write_text("{}")
    with pytest.raises(DataError, match="what clever-hub finetune writes"):
        collect([tmp_path])


def test_strengths_are_sorted_as_numbers(field: Field) -> None:
    angles = strengths(field.entrants[0], "sweeps", "upright/rotation/")
    assert angles == list(range(-180, 181, 15))


# Tables.


def cells(table: Table, model: str, part: str) -> dict[str, str]:
    """One row by its first two words; a model's name stands on its first row only."""
    name = ""
    for row in table.rows:
        name = row[0] or name
        if (name, row[1]) == (model, part):
            return dict(zip(table.header, row, strict=True))
    raise AssertionError(f"no row {model}, {part}")


def test_the_papers_table_has_its_perturbations_in_its_order(field: Field) -> None:
    table = tables.paper_table(field, "upright")
    assert table.header[2:] == ("original", "CJ", "CJ+Flip", "CJ+Ro", "CJ+Ro+ET")
    row = cells(table, "dino-resnet18", "equivariant")
    of = field.entrants[1].figures["robustness"]
    for title, condition in (("original", "original"), ("CJ+Ro+ET", "cj+ro+et")):
        figure = of[f"upright/{condition}"]["equivariant"]["top1"]
        assert row[title] == f"{figure['mean']:.1f} ± {figure['std']:.1f}"


def test_invariance_and_retrieval_share_a_table(field: Field) -> None:
    row = cells(tables.invariance_table(field), "clever-resnet18", "invariant")
    assert row["gap"].startswith("0.80")
    assert row["found again, MRR"].startswith("0.80")


def test_columns_that_nobody_has_are_left_out_and_gaps_are_dashes(field: Field) -> None:
    assert "plain, Top-5" not in tables.accuracy_table(field, "knn").header
    wide = tables.accuracy_table(field, "linear")
    assert "plain, Top-5" in wide.header
    row = cells(tables.finetune_table(field), "clever-resnet18", "whole network")
    assert row["labels"] == "1%"
    assert row["Top-5, %"] == "62.5"


def test_a_figure_of_one_seed_has_no_spread() -> None:
    assert Value(12.345, None, (12.345,)).text(1) == "12.3"
    assert Value(12.25, 0.5, (11.75, 12.75)).text(2) == "12.25 ± 0.50"


# Claims.


def test_claims_that_were_planted_hold_and_within_the_noise_they_do_not(field: Field) -> None:
    words = {v.claim.text: v.word for v in verdicts(field.entrants[0])}
    assert len(words) == 5
    assert set(words.values()) == {"holds"}
    random = {v.claim.figure: v.word for v in verdicts(field.entrants[2])}
    assert random["linear probe Top-1, %"] == "undecided"


def test_the_reverse_is_said_when_it_is_so(tmp_path: Path) -> None:
    content = evaluation("odd", 0.9)
    parts = content["figures"]["invariance"]["rotation"]
    parts["invariant"], parts["equivariant"] = parts["equivariant"], parts["invariant"]
    write_json(tmp_path / "evaluation.json", content)
    found = {v.claim.figure: v.word for v in verdicts(collect([tmp_path]).entrants[0])}
    assert found["cosine gap, centred"] == "the reverse holds"


@pytest.mark.parametrize("best", [-0.004, 0.0104])
def test_the_less_bad_of_two_useless_fits_is_not_called_better(best: float, tmp_path: Path) -> None:
    content = evaluation("blind", 0.9)
    parts = content["figures"]["equivariance"]["rotation"]
    for part, mean in (("equivariant", best), ("invariant_slice", -0.4)):
        parts[part]["mlp_r2"] = {"mean": mean, "std": None, "values": [mean]}
    write_json(tmp_path / "evaluation.json", content)
    found = {v.claim.figure: v.word for v in verdicts(collect([tmp_path]).entrants[0])}
    assert found["R² of the angle, MLP"] == "neither knows it"
    assert found["R² of the angle, ridge"] == "holds"


def test_noise_is_that_of_the_photos_or_of_the_seeds_whichever_is_more() -> None:
    steady = Value(50.0, 0.0, (50.0, 50.0, 50.0))
    shaky = Value(50.0, 5.0, (45.0, 50.0, 55.0))
    assert noise(steady, steady, 10_000, percent=True) == pytest.approx(1.96 * 0.7071, rel=1e-3)
    assert noise(steady, shaky, 10_000, percent=True) == pytest.approx(10.0)
    assert noise(shaky, shaky, 10_000, percent=True) < 2, "seeds that move together cancel"
    assert noise(Value(0.5, None, (0.5,)), Value(0.4, None, (0.4,)), 9, percent=False) == 0.01


# The page.


def test_every_picture_is_there_readable_and_not_empty(page: Path) -> None:
    for name in PICTURES:
        picture = Image.open(page / name).convert("RGB")
        assert 900 <= picture.width <= 1300
        colours = picture.getcolors(picture.width * picture.height)
        assert colours is not None
        assert len(colours) > 50, name


def test_the_markdown_names_its_pictures_and_every_command(page: Path) -> None:
    text = (page / "report.md").read_text()
    assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", text) == list(PICTURES)
    for words in (
        *("clever-hub evaluate dino-resnet18", "finetune clever-resnet18", "**holds**"),
        "*invariant, cut*: as many random columns of the invariant part, drawn at the same",
    ):
        assert words in text
    for line in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        assert line.count("|") > 3
    assert not re.search(r"\b(nan|None)\b", text)


class Page(HTMLParser):
    """Every address that a page asks for, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_html_asks_for_nothing_from_elsewhere(page: Path) -> None:
    text = (page / "report.html").read_text()
    parser = Page()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.addresses) == len(PICTURES)
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    assert "http" not in re.sub(r"base64,[^\"]+", "", text)
    assert "url(" not in text
    assert "<script" not in text


def test_what_is_missing_is_left_out_and_said(tmp_path: Path) -> None:
    content = evaluation("small", 0.5)
    for measured in (content["figures"], *(b["figures"] for b in content["baselines"].values())):
        for protocol in set(measured) - {"knn", "invariance"}:
            del measured[protocol]
        measured["invariance"] = {"rotation": measured["invariance"]["rotation"]}
    content["protocols"] = {name: content["protocols"][name] for name in content["figures"]}
    write_json(tmp_path / "in" / "evaluation.json", content)
    markdown, _ = write_page(collect([tmp_path / "in"]), tmp_path / "out")
    text = markdown.read_text()
    assert list((tmp_path / "out").glob("*.png")) == []
    assert "## Nearest neighbours" in text
    assert "## Equivariance" not in text
    assert "- Accuracy under perturbations: no file has `robustness`" in text
    assert "- Collapse: no file has `collapse`" in text
    assert "- Maps of the features: drawn with `--data` and `--models`" in text


def test_a_fine_tuned_model_alone_makes_a_page(example: Path, tmp_path: Path) -> None:
    markdown, _ = write_page(collect([example / "tuned"]), tmp_path)
    assert "## Fine-tuning" in markdown.read_text()


def test_figures_from_different_photos_are_not_silently_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        content = evaluation(name, 0.5)
        content["figures"] = {"knn": content["figures"]["knn"]}
        content["baselines"] = {}
        for record in content["protocols"].values():
            record["data"] = {"validation": {"photos": 10, "subset": name}, "train": {}}
        write_json(tmp_path / name / "evaluation.json", content)
    markdown, _ = write_page(collect([tmp_path]), tmp_path / "out")
    assert "come from different photos" in markdown.read_text()


def test_text_of_strangers_cannot_become_markup(tmp_path: Path) -> None:
    table = Table(("a", "b"), (("<script>x|y</script>", "1"),))
    assert "<script>" not in to_html("t & t", [table, Text("<b>bold</b>")])
    assert "t &amp; t" in to_html("t & t", [])
    assert r"x\|y" in to_markdown([table])
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    assert '"><b' not in to_html("t", [Picture(tmp_path / "a.png", '"><b', "c")])


@pytest.mark.parametrize("draw", [figures.robustness_figure, figures.parts_figure])
def test_no_panel_cuts_off_what_another_panels_axis_had_no_room_for(
    draw: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second model, and the probe trained on rotated photos, are far better than the first."""
    for name, skill in (("a", 0.1), ("b", 0.9)):
        content = evaluation(name, skill)
        sweeps = content["figures"]["sweeps"]
        for condition, parts in sweeps.items():
            for metrics in parts.values():
                metrics["top1"]["mean"] *= 1.5 if "rotated" in condition else 0.2
        write_json(tmp_path / name / "evaluation.json", content)
    drawn: list[Any] = []

    def keep(figure: Any, path: Path) -> Path:
        drawn.append(figure)
        return path

    monkeypatch.setattr(figures, "save", keep)
    draw(collect([tmp_path]), tmp_path / "a.png")
    for axis in drawn[0].axes:
        low, high = axis.get_ylim()
        assert low == 0
        assert max(max(line.get_ydata()) for line in axis.lines[:-1]) < high


def test_bands_are_as_wide_as_the_photos_leave_and_the_page_says_so(tmp_path: Path) -> None:
    half = Value(50.0, 0.0, (50.0, 50.0))
    assert figures._open(half, 1000) == pytest.approx(3.1, abs=0.01)  # 1.96 · √(¼ / 1000)
    assert figures._open(half, None) == 0
    content = evaluation("a", 0.9)
    for record in content["protocols"].values():
        record["settings"] = {"sweep_photos": 1000}
    write_json(tmp_path / "a" / "evaluation.json", content)
    text = write_page(collect([tmp_path]), tmp_path / "page")[0].read_text()
    assert "95 % interval that 1,000 photos leave; all lines are from the same photos" in text


@pytest.mark.parametrize(
    ("counts", "subsets", "said"),
    [
        ((800, 800), "aa", "that 800 photos leave; all lines are from the same photos"),
        ((800, 800), "ab", "that 800 photos leave"),
        ((800, 400), "aa", "that each line's photos leave"),
        ((800, None), "aa", "photos leave, or one standard deviation over the seeds where their"),
        ((None, None), "aa", "bands are one standard deviation over the seeds"),
    ],
)
def test_the_caption_of_the_curves_says_what_is_drawn(
    counts: tuple[int | None, ...], subsets: str, said: str, tmp_path: Path
) -> None:
    for name, count, subset in zip("mn", counts, subsets, strict=True):
        content = evaluation(name, 0.9)
        content["baselines"] = {}
        record = content["protocols"]["sweeps"]
        record["settings"] = {"sweep_photos": count} if count else {}
        record["data"]["validation"]["subset"] = subset
        write_json(tmp_path / name / "evaluation.json", content)
    bands = _bands(collect([tmp_path]))
    assert said in bands
    assert ("same photos" in bands) == ("same photos" in said)


LONG = "clever-plus-distill-efficientnet-lite0"


def test_long_names_are_neither_cut_off_nor_on_top_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, data in (("a", "photos-224"), ("b", "tiny-imagenet-100"), ("c", "birds")):
        content = evaluation(LONG, 0.9)
        content["protocols"]["knn"]["data"]["train"]["name"] = f"{data}/train"
        content["protocols"]["knn"]["data"]["validation"]["name"] = f"{data}/validation"
        write_json(tmp_path / folder / LONG / "evaluation.json", content)
    found = collect([tmp_path / folder for folder in "abc"])
    drawn: list[Figure] = []

    def keep(figure: Figure, path: Path) -> Path:
        figure.canvas.draw()
        drawn.append(figure)
        return path

    for module in (figures, scatter):
        monkeypatch.setattr(module, "save", keep)
    draws = (figures.robustness_figure, figures.parts_figure, figures.invariance_figure)
    for draw in (*draws, figures.collapse_figure, scatter.scatter_figure):
        draw(found, tmp_path / "a.png")
    for figure in drawn:
        page = figure.bbox
        boxes = [legend.get_window_extent() for legend in figure.legends]
        titles = [axis.title.get_window_extent() for axis in figure.axes if axis.get_title()]
        labels = [axis.yaxis.label.get_window_extent() for axis in figure.axes if axis.get_ylabel()]
        boxes += titles + labels
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes)
        for group in (titles, labels):
            assert not any(a.overlaps(b) for a, b in combinations(group, 2))
    assert len(drawn) == 5


def test_a_baseline_with_a_folder_of_its_own_is_a_baseline_with_its_command(tmp_path: Path) -> None:
    whole = evaluation("a", 0.9)
    own = {**whole, "baselines": {}, **whole["baselines"].pop("random")}
    own["protocols"] = {
        name: {**record, "command": "clever-hub evaluate random:a"}
        for name, record in whole["protocols"].items()
    }
    other = evaluation("c", 0.5)
    del other["baselines"]["random"]
    for name, content in (("a-random", own), ("b", whole), ("c", other)):
        write_json(tmp_path / name / "evaluation.json", content)
    found = collect([tmp_path])
    assert [e.name for e in found.entrants] == ["a", "c", "random resnet18", "16x16 pixels"]
    assert "clever-hub evaluate random:a\n" in write_page(found, tmp_path / "page")[0].read_text()


def test_of_a_shared_baseline_the_figures_of_most_seeds_count(tmp_path: Path) -> None:
    for name, seeds in (("a", 1), ("b", 3), ("c", 1)):
        content = evaluation(name, 0.5 + 0.1 * seeds)
        figure = {"mean": float(seeds), "std": None, "values": [float(seeds)] * seeds}
        pixels = content["baselines"]["pixels"]["figures"]
        pixels["equivariance"] = {"rotation": {"full": {"mlp_r2": figure}}}
        if name != "b":
            del pixels["knn"]
        content["protocols"] = {
            protocol: {**record, "command": f"clever-hub evaluate {name}"}
            for protocol, record in content["protocols"].items()
        }
        write_json(tmp_path / name / "evaluation.json", content)
    pixels_found = collect([tmp_path]).entrants[-1]
    assert pixels_found.name == "16x16 pixels"
    found = pixels_found.get("equivariance", "rotation", "full", "mlp_r2")
    assert found is not None
    assert found.mean == 3
    for protocol in ("equivariance", "knn"):
        assert pixels_found.records[protocol]["command"].endswith("evaluate b")


def test_a_star_in_code_is_no_emphasis() -> None:
    said = _inline("`a/train*.parquet` and `b/validation*.parquet`, **bold** *slanted*")
    assert said == (
        "<code>a/train*.parquet</code> and <code>b/validation*.parquet</code>, "
        "<strong>bold</strong> <em>slanted</em>"
    )


def test_a_model_beside_another_is_a_model_and_there_once(tmp_path: Path) -> None:
    dino = evaluation("dino", 0.5)
    beside = {"model": dino["model"], "figures": dino["figures"]}
    content = evaluation("clever", 0.9)
    content["baselines"]["dino"] = beside
    write_json(tmp_path / "a" / "evaluation.json", content)
    names = ["clever", "dino", "random resnet18", "16x16 pixels"]
    assert [e.name for e in collect([tmp_path]).entrants] == names
    write_json(tmp_path / "b" / "evaluation.json", dino)
    found = collect([tmp_path])
    assert [e.name for e in found.entrants] == names
    assert found.entrants[1].folder.name == "b"


def test_of_one_seed_the_noise_is_said_to_be_unknown(tmp_path: Path) -> None:
    content = evaluation("clever", 0.9)
    for measured in content["figures"].values():
        for parts in measured.values():
            for metrics in parts.values():
                for figure in metrics.values():
                    figure["values"] = figure["values"][:1]
    write_json(tmp_path / "a" / "evaluation.json", content)
    rows = claims_table(collect([tmp_path])).rows  # type: ignore[union-attr]
    noise = {row[2]: row[-1] for row in rows if row[1] == "clever"}
    assert noise["R² of the angle, MLP"].endswith(" or more")
    assert not noise["k-NN Top-1, %"].endswith(" or more")
    others = [row[-1] for row in rows if row[1] == "random resnet18"]
    assert not any(cell.endswith(" or more") for cell in others)


def test_a_split_that_was_not_trained_is_called_a_control(tmp_path: Path) -> None:
    for name, split in (("clever", True), ("dino", False), ("old", None)):
        content = evaluation(name, 0.9)
        content["model"]["split_trained"] = split
        write_json(tmp_path / name / "evaluation.json", content)
    text = write_page(collect([tmp_path]), tmp_path / "page")[0].read_text()
    assert "*dino*: trained without a split" in text
    assert text.count("trained without a split") == 1


def test_looks_are_the_same_everywhere_and_differ_in_shape_too(field: Field) -> None:
    found = looks(field.entrants)
    models = [found[entrant.name] for entrant in field.models]
    assert len({look.color for look in found.values()}) == 4
    assert len({look.marker for look in models}) == 2
    assert found["random resnet18"].line != found["16x16 pixels"].line
    random = next(entrant for entrant in field.entrants if entrant.kind == "random")
    several = looks([*field.entrants, replace(random, name="random resnet50")])
    assert several["random resnet50"][:2] != several["random resnet18"][:2]


def test_the_command_writes_the_page(example: Path, tmp_path: Path) -> None:
    tuned = str(example / "tuned")
    result = CliRunner().invoke(app, ["report", tuned, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "report.html" in result.stderr
    assert (tmp_path / "out" / "report.md").is_file()
    words: list[Any] = ["report", str(example), "-o", str(tmp_path / "o"), "--data", "x"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "t-SNE maps need both" in refused.stderr


def test_options_of_maps_without_maps_are_said_to_be_unused(example: Path, tmp_path: Path) -> None:
    words = ["report", str(example / "tuned"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--points", "500", "--cache", str(tmp_path / "c")])
    assert result.exit_code == 0, result.output
    assert "not used: --points, --cache; no t-SNE map was asked for" in result.stderr
    again = CliRunner().invoke(app, [*words, "--device", "cpu"])
    assert "not used: --device; no t-SNE map was asked for" in again.stderr
    assert "not used" not in CliRunner().invoke(app, words).stderr


def test_the_papers_rows_stand_below_ours_of_the_same_backbone(tmp_path: Path) -> None:
    content = evaluation("clever-resnet18", 0.9)
    content["model"] |= {"data": "100 classes", "epochs": 24.0, "hours": 3.78, "views": "caug"}
    path = write_json(tmp_path / "a" / "evaluation.json", content)
    table = published_table(collect([path]))
    assert table.header == (
        *("backbone", "model", "trained on", "views"),
        *("original", "CJ", "CJ+Flip", "CJ+Ro", "CJ+Ro+ET"),
    )
    assert len({len(row) for row in table.rows} | {len(table.header)}) == 1
    ours, random, *published = table.rows
    assert ours[:4] == (
        *("ResNet-18", "**clever-resnet18**"),
        *("100 classes, 24 epochs, 3.8 hours, 64 px", "CAug"),
    )
    measured = content["figures"]["robustness"]["upright/cj+ro"]["full"]["top1"]["mean"]
    assert ours[7].startswith(f"{measured:.1f}")
    assert random[2] == "nothing"
    assert [row[1] for row in published] == ["DINO, published"] * 2 + ["CLeVER, published"] * 2
    # The published figures of ResNet-18 with CAug.
    assert published[3][3:] == ("CAug", "74.2", "–", "–", "71.3", "–")
    assert all("ImageNet-100" in row[2] and "ImageNet-100" not in ours[2] for row in published)
    text, _ = write_page(collect([path]), tmp_path / "page")
    assert "*other data and another budget*" in text.read_text()


def test_every_published_row_is_there() -> None:
    backbones = [row.backbone for row in PUBLISHED]
    assert len(PUBLISHED) == 5 * 4 + 3
    assert backbones.count("ResNet-50") == 7
    by_name = {(row.backbone, row.method, row.views): row.top1 for row in PUBLISHED}
    assert by_name["VMamba-T", "CLeVER", "BAug"] == {"original": 83.7, "cj+ro": 54.4}
    assert by_name["ResNet-50", "CLeVER-DDCL", "CAug"]["cj+ro+et"] == 48.1


def test_another_backbone_has_no_published_rows(tmp_path: Path) -> None:
    content = evaluation("mine", 0.9)
    content["model"]["architecture"] = "tf_efficientnet_lite0"
    content["baselines"] = {}
    path = write_json(tmp_path / "evaluation.json", content)
    assert published_table(collect([path])).rows == ()


def test_videos_have_a_section_of_their_own(tmp_path: Path) -> None:
    content = evaluation("clever-resnet18", 0.9)
    metrics = {"j_and_f": 40.0, "j": 41.0, "f": 39.0, "j_recall": 30.0, "f_recall": 20.0}
    cut = {"corloc": 12.5, "iou": 20.0, "cut_share": 100.0}
    content["figures"]["video"] = summarize([{"all": {"full": metrics}}])
    content["figures"]["saliency"] = summarize([{"plain": {"full": cut}}])
    record = {**content["protocols"]["knn"], "command": "clever-hub evaluate --video DAVIS"}
    record["data"] = {"videos": {"name": "DAVIS", "videos": 20, "frames": 1376}}
    content["protocols"] |= {"video": record, "saliency": record}
    path = write_json(tmp_path / "a" / "evaluation.json", content)
    text = write_page(collect([path]), tmp_path / "page")[0].read_text()
    section = text.partition("## Video and saliency")[2].partition("\n## ")[0]
    assert "| clever-resnet18 | full | 40.0 | 41.0 | 39.0 | 30.0 | 20.0 |" in section
    assert "| clever-resnet18 | full | 12.5 | 20.0 |" in section
    assert "Measured on 1,376 frames of 20 videos (`DAVIS`)." in text


def test_what_was_measured_beside_another_model_alone_is_not_lost(tmp_path: Path) -> None:
    dino = evaluation("dino", 0.5)
    content = evaluation("clever", 0.9)
    content["baselines"]["dino"] = {"model": dino["model"], "figures": dino["figures"]}
    write_json(tmp_path / "a" / "evaluation.json", content)
    whole = set(dino["figures"])
    for kind in ("figures", "protocols"):
        dino[kind] = {"knn": dino[kind]["knn"]}
    write_json(tmp_path / "b" / "evaluation.json", dino)
    (found,) = (one for one in collect([tmp_path]).entrants if one.name == "dino")
    assert set(found.figures) == set(found.records) == whole > {"knn"}


def test_two_splits_of_the_same_weights_are_two_models(tmp_path: Path) -> None:
    one, other = evaluation("a", 0.5), evaluation("b", 0.5)
    other["model"]["identity"] = one["model"]["identity"]
    other["model"]["dims"] = {**one["model"]["dims"], "invariant": 1}
    for name, content in (("a", one), ("b", other)):
        write_json(tmp_path / name / "evaluation.json", content)
    assert [e.name for e in collect([tmp_path]).entrants[:2]] == ["a", "b"]
    one["baselines"]["b"] = {"model": other["model"], "figures": other["figures"]}
    write_json(tmp_path / "a" / "evaluation.json", one)
    assert [e.name for e in collect([tmp_path / "a"]).entrants[:2]] == ["a", "b"]
