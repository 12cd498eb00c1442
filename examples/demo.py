"""Embed rotated copies of real photos and draw how each part of the embedding changes.

Run by `make demo`, or as `python examples/demo.py --model clever-resnet18 --out demo.png`. Five
photos from scikit-image's wheel are rotated in steps of 15 degrees and embedded. Upright and
rotated copies are seen through the same disc, so that the corners do not reveal the angle.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

import clever_hub
from clever_hub.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# scikit-image's name and ours. Public domain (NASA, SpaceX) or CC0 by their photographers.
PHOTOS = {
    "astronaut": "astronaut",
    "chelsea": "cat",
    "coffee": "coffee",
    "rocket": "rocket",
    "camera": "photographer",
}
PARTS = ("invariant", "equivariant")
ANGLES = tuple(range(-180, 181, 15))  # degrees, counter-clockwise
SHOWN = tuple(range(-180, 181, 45))  # the copies that the picture shows
LEAST = 0.02  # smaller differences of two mean similarities are reported as none
QUARTER = 90  # degrees; the turn in the printed table
SIDE = 256  # px; well above the model's input, so that resampling does not reveal the angle
GREY = (124, 116, 104)  # ImageNet's mean colour: close to zero once normalised
COLOURS = {"invariant": "#0072B2", "equivariant": "#D55E00"}  # safe for colour-blind readers
INK, FAINT = "#222222", "#6b6b6b"
EXAMPLE = "chelsea"  # the photo that is shown turned
# Position of the curves, in fractions of the figure's width, and their range of angles: each
# rotated copy is drawn above its angle.
LEFT, WIDTH, LIMITS = 0.085, 0.885, (-202.5, 202.5)
INTRODUCTION = (
    "A CLeVER embedding has two parts: the invariant part should stay the same when a photo is "
    "turned, the equivariant part should change with the turn."
)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """Cosine similarities of one part of the embedding.

    Attributes:
        turned: (photos, angles), each upright photo with its own turned copies.
        between: (photos, photos), the upright photos with each other.
    """

    turned: Vectors
    between: Vectors

    @property
    def reference(self) -> float:
        """The mean similarity between two different photos."""
        return float(self.between[np.triu_indices(len(self.between), k=1)].mean())

    @property
    def kept(self) -> float:
        """The mean similarity of a photo with its copies, at all angles but 0."""
        # -180 degrees is the same copy as 180: it counts once.
        return float(self.turned[:, [angle not in (0, -180) for angle in ANGLES]].mean())

    @property
    def lost(self) -> float:
        """Mean change by the rotation: 0 is none, 1 is as large as to another photo."""
        return (1 - self.kept) / max(1 - self.reference, 1e-6)


def square(photo: NDArray[np.uint8]) -> Image.Image:
    """Cut the middle square out of a photo and bring it to `SIDE` pixels.

    Args:
        photo: uint8, (height, width, 3) in RGB or (height, width) in grey.

    Returns:
        An RGB image, `SIDE` by `SIDE` pixels.
    """
    image = Image.fromarray(photo).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)


def turn(image: Image.Image, degrees: float) -> Image.Image:
    """Turn a square image counter-clockwise and cover all but its inner disc with grey."""
    turned = image.rotate(degrees, resample=Image.Resampling.BICUBIC)
    disc = Image.new("L", image.size, 0)
    ImageDraw.Draw(disc).ellipse((0, 0, SIDE - 1, SIDE - 1), fill=255)
    return Image.composite(turned, Image.new("RGB", image.size, GREY), disc)


def unit(vectors: Vectors) -> Vectors:
    """Scale each vector, along the last axis, to length 1."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def measure(vectors: Vectors) -> Measured:
    """Compare the embeddings of all photos at all angles.

    Args:
        vectors: float32, (photos, angles, dimensions), one part of the embedding.

    Returns:
        Their cosine similarities.
    """
    vectors = unit(vectors)
    upright = vectors[:, ANGLES.index(0)]
    return Measured(
        turned=np.einsum("pd,pad->pa", upright, vectors),
        between=upright @ upright.T,
    )


def takeaway(invariant: Measured, equivariant: Measured) -> str:
    """One sentence that interprets the figures."""
    figures = (
        f"over all turns, a photo keeps a similarity of {invariant.kept:.2f} to itself in the "
        f"invariant part and of {equivariant.kept:.2f} in the equivariant part"
    )
    # On five photos, a difference that two digits barely show is not a finding.
    if abs(equivariant.kept - invariant.kept) < LEAST:
        return f"Both parts notice the turn about as much: {figures}."
    farther = equivariant.kept < invariant.kept
    farther_relative = equivariant.lost > invariant.lost
    if farther and farther_relative:
        return f"The equivariant part notices the turn more: {figures}."
    if farther:
        return (
            "The equivariant part falls further, but no further than its distances between "
            f"different photos explain: {figures}."
        )
    return f"The equivariant part notices the turn less than the invariant part: {figures}."


def print_tables(console: Console, measured: dict[str, Measured]) -> None:
    """Print the similarities between photos, and of each photo with its copy at 90 degrees."""
    names = list(PHOTOS.values())
    table = Table(title="Cosine similarity between different photos: invariant / equivariant part")
    for heading in ("", *names[:-1]):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row, name in list(enumerate(names))[1:]:
        pairs = [[f"{m.between[row, col]:.2f}" for m in measured.values()] for col in range(row)]
        table.add_row(name, *(" / ".join(pair) for pair in pairs))
    console.print(table)

    table = Table(title=f"Cosine similarity of a photo with itself turned by {QUARTER}°")
    table.add_column("photo")
    for part in PARTS:
        table.add_column(part, justify="right", style=COLOURS[part])
    column = ANGLES.index(QUARTER)
    for row, name in enumerate(names):
        table.add_row(name, *(f"{m.turned[row, column]:.2f}" for m in measured.values()))
    table.add_section()
    means = (f"{m.turned[:, column].mean():.2f}" for m in measured.values())
    table.add_row("mean of the photos", *means)
    others = (f"{m.reference:.2f}" for m in measured.values())
    table.add_row("for comparison: different photos", *others)
    console.print(table)


def draw_disc(axes: Axes, image: Image.Image, label: str) -> None:
    """Show a square image through a disc, with a label above it."""
    from matplotlib.patches import Circle

    shown = axes.imshow(np.asarray(image), interpolation="lanczos")
    middle = (SIDE - 1) / 2
    shown.set_clip_path(Circle((middle, middle), middle, transform=axes.transData))
    axes.set_axis_off()
    axes.set_title(label, fontsize=11, color=FAINT, pad=4)


def trained_turns(provenance: Mapping[str, Any]) -> float:
    """The largest turn in the views that a model was trained on, in degrees; 0 when unknown."""
    views = provenance.get("recipe", {}).get("views", {})
    return float(views.get("rotation", 0)) if views.get("strategy") == "caug" else 0.0


def draw_curves(axes: Axes, measured: dict[str, Measured], trained: float) -> None:
    """Draw each part's similarity against the angle, and its reference between photos.

    Args:
        axes: Where to draw.
        measured: The figures, by part.
        trained: The largest turn seen in training, in degrees; 0 draws no mark.
    """
    label = "rotation of the photo (degrees, counter-clockwise)"
    if trained:
        axes.axvspan(-trained, trained, color="#f4f4f0", lw=0, zorder=-1)
        label += f"; shaded: turns met in training, ±{trained:.0f}°"
    axes.set_xlabel(label)
    for part, figures in measured.items():
        colour = COLOURS[part]
        low, high = figures.turned.min(axis=0), figures.turned.max(axis=0)
        axes.fill_between(ANGLES, low, high, color=colour, alpha=0.12, linewidth=0)
        mean = figures.turned.mean(axis=0)
        label = f"{part} part: a photo and its turned copy"
        axes.plot(ANGLES, mean, color=colour, lw=2.6, marker="o", ms=4.5, label=label)
        label = f"{part} part: two different photos (mean {figures.reference:.2f})"
        axes.axhline(figures.reference, color=colour, lw=1.6, ls=(0, (5, 4)), label=label)
    axes.set_xlim(*LIMITS)
    # At least half of the range from 0 to 1, so that small differences look small.
    axes.set_ylim(min(0.5, axes.get_ylim()[0]), 1.03)
    axes.set_xticks(SHOWN, [f"{angle}°".replace("-", "−") for angle in SHOWN])
    axes.set_ylabel("cosine similarity (1 = same embedding)")
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.125), ncols=2, frameon=False)


def draw(
    out: Path,
    squares: list[Image.Image],
    measured: dict[str, Measured],
    model: str,
    trained: float = 0.0,
) -> None:
    """Write the picture: the photos, one of them turned, and the two curves.

    Args:
        out: The PNG file to be written.
        squares: The upright photos, in the order of `PHOTOS`.
        measured: The figures, by part.
        model: The model's name, for the caption.
        trained: The largest turn seen in training, in degrees; 0 when unknown.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 11, "axes.edgecolor": FAINT, "text.color": INK}):
        figure = plt.figure(figsize=(10.5, 12), dpi=120, facecolor="white")
        say = functools.partial(figure.text, LEFT, ha="left", va="top")
        say(0.981, "Turn a photo: which part of its embedding notices?", fontsize=19, weight="bold")
        say(0.948, textwrap.fill(INTRODUCTION, 96), fontsize=12, color=FAINT, linespacing=1.35)
        sentence = takeaway(measured["invariant"], measured["equivariant"])
        say(0.904, textwrap.fill(sentence, 92), fontsize=12.5, linespacing=1.35)

        say(0.834, f"The {len(PHOTOS)} photos, seen through a disc", weight="bold")
        for name, image, x in zip(
            PHOTOS.values(), squares, np.linspace(-144, 144, len(PHOTOS)), strict=True
        ):
            draw_disc(_axes_at(figure, x, bottom=0.674, side=0.122), turn(image, 0), name)

        say(0.648, f"One of them, turned: the {PHOTOS[EXAMPLE]}", weight="bold")
        for angle in SHOWN:
            axes = _axes_at(figure, angle, bottom=0.550, side=0.079)
            draw_disc(axes, turn(squares[list(PHOTOS).index(EXAMPLE)], angle), "")

        draw_curves(figure.add_axes((LEFT, 0.186, WIDTH, 0.352)), measured, trained)
        say(0.075, textwrap.fill(_caption(model), 128), fontsize=9.5, color=FAINT, linespacing=1.4)
        with atomic_path(out) as path:
            figure.savefig(path)
        plt.close(figure)


def _axes_at(figure: Figure, angle: float, *, bottom: float, side: float) -> Axes:
    """Add square axes, `side` of the figure's height, centred above an angle of the curves."""
    width = side * figure.get_figheight() / figure.get_figwidth()
    middle = LEFT + WIDTH * (angle - LIMITS[0]) / (LIMITS[1] - LIMITS[0])
    return figure.add_axes((middle - width / 2, bottom, width, side))


def _caption(model: str) -> str:
    pairs = len(PHOTOS) * (len(PHOTOS) - 1) // 2
    return (
        f"Model: {model}. Solid lines: mean of the {len(PHOTOS)} photos; bands: from the lowest to "
        f"the highest of them. Dashed lines: mean of all {pairs} pairs of different photos, both "
        "upright; down there, a turned copy is as far away as another photo. Every image is seen "
        "through the same disc. Photos from scikit-image: NASA, SpaceX (public domain), S. van der "
        "Walt, R. Michetti, L. Varshney (CC0)."
    )


def main() -> None:
    """Run the demonstration from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="clever-resnet18", help="a model's name or folder")
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="the picture to write")
    arguments = parser.parse_args()

    console = Console()
    model = clever_hub.from_pretrained(arguments.model)
    squares = [square(getattr(skimage.data, name)()) for name in PHOTOS]
    copies = [turn(image, angle) for image, angle in itertools.product(squares, ANGLES)]
    embeddings = model.encode(copies)
    shape = (len(squares), len(ANGLES), -1)
    measured = {part: measure(getattr(embeddings, part).reshape(shape)) for part in PARTS}

    console.print(f"{len(copies)} images: {len(PHOTOS)} photos at {len(ANGLES)} angles each")
    for name in (*PARTS, "full"):
        part = getattr(embeddings, name)
        console.print(f"  embeddings.{name:<12} {part.dtype} {part.shape}")
    print_tables(console, measured)
    trained = trained_turns(model.config.provenance)
    draw(arguments.out, squares, measured, model.config.name, trained)
    console.print(takeaway(measured["invariant"], measured["equivariant"]), style="bold")
    console.print(f"Picture: {arguments.out}")


if __name__ == "__main__":
    main()
