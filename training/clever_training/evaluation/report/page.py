"""The page: sections with texts, tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clever_hub.errors import DataError
from clever_hub.files import write_text
from clever_training.evaluation.report import figures, tables
from clever_training.evaluation.report.claims import claims_table
from clever_training.evaluation.report.collect import Field
from clever_training.evaluation.report.document import (
    Block,
    Heading,
    Items,
    Picture,
    Text,
    to_html,
    to_markdown,
)
from clever_training.evaluation.report.origin import described, how_measured
from clever_training.evaluation.report.published import published_table
from clever_training.evaluation.report.scatter import scatter_figure

TITLE = "Models side by side"


class Map(NamedTuple):
    """A t-SNE picture that was drawn already.

    Attributes:
        name: Name of the model.
        path: The PNG, in the folder of the page.
    """

    name: str
    path: Path


class Section(NamedTuple):
    """A section of the page.

    Attributes:
        title: Its heading.
        needs: The protocols that it needs.
        blocks: Makes its content; empty when there is nothing to show.
    """

    title: str
    needs: tuple[str, ...]
    blocks: Callable[[Field, Path], list[Block]]


def write_page(field: Field, out: Path, maps: Sequence[Map] = ()) -> tuple[Path, Path]:
    """Write report.md, the pictures beside it, and report.html, which embeds them.

    Args:
        field: The models and baselines.
        out: The folder; created when missing.
        maps: t-SNE pictures, in ``out``.

    Returns:
        report.md and report.html.

    Raises:
        DataError: When there is nothing to show.
    """
    if not field.entrants and not field.tuned:
        raise DataError("expected at least one evaluation.json or finetune.json")
    out.mkdir(parents=True, exist_ok=True)
    blocks: list[Block] = [Heading(TITLE, 1), *_opening(field)]
    missing: list[Section] = []
    for section in SECTIONS:
        content = section.blocks(field, out)
        if content:
            blocks += [Heading(section.title), *content]
        else:
            missing.append(section)
    if maps:
        blocks += [Heading("Maps of the features"), *_maps(maps)]
    blocks += _left_out(missing, maps)
    blocks += [Heading("How it was measured"), *how_measured(field)]
    markdown = write_text(out / "report.md", to_markdown(blocks))
    return markdown, write_text(out / "report.html", to_html(TITLE, blocks))


def _opening(field: Field) -> Iterator[Block]:
    if not field.entrants:
        return
    data = field.data()
    if len(data) == 1:
        yield Text(described(data[0]))
    elif data:
        yield Text(
            "**The figures below come from different photos or different subsets of them; compare "
            "a model with its own baselines, not with the others.** The last section says which."
        )
    yield Text(
        "When a photo is rotated or distorted, the invariant part of its embedding should stay the "
        "same, and the equivariant part should change with it. *Random* is the same backbone with "
        "random weights, *pixels* is the shrunk photo itself. Training has taught a model only "
        "what it does better than these two. Figures are means over the seeds, ± their standard "
        "deviation."
    )
    yield tables.models_table(field)
    cut = [f"*{e.name}*" for e in field.models if e.model.get("split_trained") is False]
    if cut:
        yield Text(
            f"{' and '.join(cut)}: trained without a split. Its parts are the same columns as in "
            "the other models, so they differ only by chance. The parts of a model with a split "
            "should differ more."
        )


def _claims(field: Field, _: Path) -> list[Block]:
    table = claims_table(field)
    if table is None:
        return []
    return [
        Text(
            "*First* and *second* are the figures of the two parts in the order in which the claim "
            "names them. The difference has to exceed the *noise*: twice its standard deviation "
            "over the seeds, and at least the 95 % interval for this number of photos "
            "(accuracies) or 0.01 (other figures). *Or more* marks a single seed, whose deviation "
            "is not known. The same claims are tested on random weights; a claim that holds for "
            "them, too, does not result from the training. *Neither knows it* means that both R² "
            "are at most 0.01, no better than always predicting the mean."
        ),
        table,
    ]


def _paper(field: Field, _: Path) -> list[Block]:
    blocks: list[Block] = []
    for trained in ("upright", "rotated"):
        table = tables.paper_table(field, trained)
        if table.rows:
            blocks += [
                Text(f"Linear probe Top-1 in per cent, **trained on {trained} photos**:"),
                table,
            ]
    explained = Text(
        "The paper's table: accuracy when the validation photos are perturbed. CJ is colour "
        "jitter, Flip a horizontal flip, Ro a rotation within ±90°, ET an elastic transform. A "
        "disc covers the corners of every photo, so that they do not reveal the rotation."
    )
    return [explained, *blocks, *_published(field)] if blocks else []


def _published(field: Field) -> Iterator[Block]:
    table = published_table(field)
    if not table.rows:
        return
    yield Text(
        "**Beside the published figures** (CLeVER, arXiv 2406.00262; linear probe on the full "
        "embedding, trained on upright photos). The rows of the paper are from *other data and "
        "another budget*: 100 classes of ImageNet at 224 pixels, for days on several GPUs. The "
        "bold rows are the models of this page, on the photos named above; their epochs and hours "
        "are those of the last stage of training. One that was distilled learned from a teacher, "
        "which may have had labels: its card says so. Compare the differences "
        "within a kind of rows, from left to right, not the rows with each other. *Views*: BAug is "
        "without rotation, CAug with one within ±90°, CAug+ with an elastic distortion, too."
    )
    yield table


def _curves(field: Field, out: Path) -> list[Block]:
    blocks: list[Block] = []
    if path := figures.robustness_figure(field, out / "robustness.png"):
        blocks.append(
            Picture(
                path,
                "Top-1 accuracy against angle, crop, brightness and blur, a line per model",
                "Accuracy of a linear probe on the full embedding, trained on upright, undistorted "
                "photos, against the strength of one transformation. The dotted line marks the "
                f"neutral strength; {_bands(field)}.",
            )
        )
    if path := figures.parts_figure(field, out / "robustness-parts.png"):
        blocks.append(
            Picture(
                path,
                "Top-1 accuracy of each part against the rotation angle",
                "The same for each part against the angle, with a probe trained on upright photos "
                "and a probe trained on photos rotated within ±90°.",
            )
        )
    return blocks


def _bands(field: Field) -> str:
    """What the bands of the curves are, and whether their photos are the same."""
    entrants = field.having("sweeps")
    known = sorted({entrant.sweep_photos or 0 for entrant in entrants})
    if not any(known):
        return "bands are one standard deviation over the seeds"
    counts = f"{known[-1]:,}" if len(known) == 1 else "each line's"
    words = f"bands are the 95 % interval that {counts} photos leave"
    if not known[0]:
        words += ", or one standard deviation over the seeds where their number is not known"
    subsets = {entrant.subset("sweeps") for entrant in entrants}
    same = len(known) == len(subsets) == 1 and None not in subsets
    return f"{words}; all lines are from the same photos" if same else words


def _accuracy(protocol: str, words: str) -> Callable[[Field, Path], list[Block]]:
    def blocks(field: Field, _: Path) -> list[Block]:
        table = tables.accuracy_table(field, protocol)
        explained = Text(
            f"{words} In per cent. *Plain* photos are whole and upright. *Upright* photos are cut "
            "to a disc. *Rotated* validation photos are cut to the same disc and rotated at random "
            "within ±90°, while the training photos stay upright."
        )
        return [explained, table] if table.rows else []

    return blocks


def _invariance(field: Field, out: Path) -> list[Block]:
    table = tables.invariance_table(field)
    blocks: list[Block] = []
    if table.rows:
        blocks += [
            Text(
                "Cosine between a photo and its copy rotated within ±90°, and between different "
                "photos, after the mean feature was subtracted. Only the gap is informative, since "
                "in a collapsed embedding all photos are similar. *Found again*: the rotated copy "
                "is the query that should retrieve its original among all validation photos."
            ),
            table,
        ]
    if path := figures.invariance_figure(field, out / "invariance.png"):
        blocks.append(
            Picture(
                path,
                "Cosine gap of each part against the strength of each transformation",
                "Similarity of a photo and its transformed copy, minus that of different photos. 1 "
                "is perfectly invariant, 0 is as different as another photo.",
            )
        )
    return blocks


def _equivariance(field: Field, _: Path) -> list[Block]:
    first, second = tables.equivariance_table(field), tables.rotation_table(field)
    blocks: list[Block] = []
    if first.rows:
        blocks += [
            Text(
                "R² of predicting the transformation between two views of a photo from their "
                "features, on photos that nothing was fitted on. 1 is exact, 0 is no better than "
                "the mean, less is worse. More dimensions contain more, so compare the equivariant "
                "part with *invariant, cut*: as many random columns of the invariant part."
            ),
            first,
        ]
    if second.rows:
        blocks += [
            Text(
                "The rotation in other units: the mean error of the angle (45° for always "
                "predicting 0°); the accuracy of classifying quarter turns from one view (chance "
                "25 %); and how well a linear map of the upright photo's feature retrieves that of "
                "the rotated photo, among other angles of the photo (*pose*, chance MRR 0.245) and "
                "among other photos."
            ),
            second,
        ]
    return blocks


def _scatter(field: Field, out: Path) -> list[Block]:
    path = scatter_figure(field, out / "invariance-equivariance.png")
    if path is None:
        return []
    caption = (
        "Right is more invariant, up is more equivariant. A purely invariant part is at the "
        "bottom right, a purely equivariant part at the top left. Hollow markers are baselines; a "
        "thin line joins the parts of one model. More dimensions contain more, so compare the "
        "height of the equivariant part with *invariant, cut*: as many random columns of the "
        "invariant part, drawn at the same invariance as its marker. At the dotted line, R² 0, a "
        "part says nothing about the angle; values below −0.05 are drawn at the bottom."
    )
    alt = "Invariance against equivariance of each part of each model"
    return [Picture(path, alt, caption)]


def _collapse(field: Field, out: Path) -> list[Block]:
    table = tables.collapse_table(field)
    path = figures.collapse_figure(field, out / "collapse.png")
    if path is None or not table.rows:
        return []
    caption = (
        "Spread of the normalised features over their dimensions, and the number of dimensions "
        "that they use. Both near 0 mean collapse: all photos have nearly the same feature."
    )
    return [table, Picture(path, "Spread and effective rank of each part", caption)]


def _places(field: Field, _: Path) -> list[Block]:
    followed, cut = tables.video_table(field), tables.saliency_table(field)
    blocks: list[Block] = []
    if followed.rows:
        blocks += [
            Text(
                "The mask of a video's first frame, carried on by the similarity of features of "
                "places, without training: region similarity J, boundary accuracy F and their "
                "mean, per cent."
            ),
            followed,
        ]
    if cut.rows:
        blocks += [
            Text(
                "The object of single frames, found by TokenCut: share of frames whose box is right"
                " (CorLoc), and intersection over union of the mask, per cent. *Centred*: the mean "
                "of the frame's places taken off first."
            ),
            cut,
        ]
    return blocks


def _few_labels(field: Field, _: Path) -> list[Block]:
    table = tables.semi_supervised_table(field)
    explained = Text(
        "Accuracy in per cent of a linear probe on a share of the labels; each seed draws its own."
    )
    return [explained, table] if table.rows else []


def _tuned(field: Field, _: Path) -> list[Block]:
    table = tables.finetune_table(field)
    explained = Text(
        "Supervised fine-tuning. The accuracy is that of the last epoch; no epoch was selected."
    )
    return [explained, table] if table.rows else []


def _maps(maps: Sequence[Map]) -> Iterator[Block]:
    for name, path in maps:
        yield Picture(
            path,
            f"t-SNE of each part of {name}, by class and by rotation",
            f"t-SNE of {name}: validation photos of a few classes, each rotated three times at "
            "random. Every point is one rotated photo; the lower row colours the same maps by "
            "angle. The numbers above the maps come from the features themselves, over the ten "
            "nearest neighbours of each point from other photos. Distances on a map have no "
            "meaning.",
        )


def _left_out(missing: Sequence[Section], maps: Sequence[Map]) -> list[Block]:
    entries = [
        f"{section.title}: no file has {' or '.join(f'`{name}`' for name in section.needs)}"
        for section in missing
    ]
    if not maps:
        entries.append("Maps of the features: drawn with `--data` and `--models`")
    if not entries:
        return []
    how = (
        "Add a protocol with `clever-hub evaluate MODEL --data … --protocols NAME -o DIR`, and "
        "fine-tuning with `clever-hub finetune`. Existing figures in a folder are kept."
    )
    return [Heading("Left out"), Items(tuple(entries)), Text(how)]


SECTIONS = (
    Section("What holds", ("invariance", "equivariance", "linear", "knn"), _claims),
    Section("Accuracy under perturbations", ("robustness",), _paper),
    Section("Accuracy against the strength", ("sweeps",), _curves),
    Section(
        "Nearest neighbours",
        ("knn",),
        _accuracy("knn", "k-NN accuracy (20 neighbours, cosine, temperature 0.07)."),
    ),
    Section(
        "Linear probe",
        ("linear",),
        _accuracy("linear", "Logistic regression on frozen features."),
    ),
    Section("Video and saliency", ("video", "saliency"), _places),
    Section("Few labels", ("semi-supervised",), _few_labels),
    Section("Fine-tuning", ("finetune",), _tuned),
    Section("Invariance", ("invariance",), _invariance),
    Section("Equivariance", ("equivariance",), _equivariance),
    Section("Invariance against equivariance", ("invariance and equivariance",), _scatter),
    Section("Collapse", ("collapse",), _collapse),
)
