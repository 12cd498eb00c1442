"""Turn, mirror, crop and recolour photos; find whose copies they are and what was done.

Run by `make demo`, or as `python examples/demo.py --model MODEL --out demo.png`; MODEL is a model
with heads. Of each of five photos from scikit-image's wheel three copies are made, by angles, crops
and colours that are drawn at random, with a fixed seed. The answers are those of `clever-hub
duplicates`: embeddings find copies, keypoints say how they lie; the heads tell the colours.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.table import Table

import clever_hub
from clever_hub.cli.loading import load_model
from clever_hub.cli.relate_picture import brought_back
from clever_hub.files import atomic_path
from clever_hub.jobs.alignment import Alignment
from clever_hub.jobs.default import default_model
from clever_hub.jobs.pairs import unit_rows
from clever_hub.jobs.recolouring import UNKNOWN
from clever_hub.jobs.relation import Colors
from clever_hub.jobs.verifying import PixelVerifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clever_hub.backends.onnx import OnnxModel
    from clever_hub.backends.torch import CleverModel

# scikit-image's name and ours. Public domain (NASA, SpaceX) or CC0 by their photographers.
PHOTOS = {
    "astronaut": "astronaut",
    "chelsea": "cat",
    "coffee": "coffee",
    "rocket": "rocket",
    "camera": "photographer",
}
KINDS = ("turned", "mirrored, turned", "turned, cropped, recoloured")
SIDE = 320  # px
CLOSE = 5  # degrees; an angle that is wrong by more is marked
GOOD, BAD = "#00795A", "#A3195B"  # safe for colour-blind readers
INK, FAINT = "#222222", "#6b6b6b"
# Inches of the picture. Its text is read at 780 pixels' width, where 12.5 points are 11 pixels.
FIGURE, LEFT, COLUMNS = (12.0, 13.8), 0.35, (2.15, 5.35, 8.55)
THUMBNAIL, ROW = 1.4, 2.06


@dataclass(frozen=True)
class Deed:
    """What is done to a square photo, in this order.

    Attributes:
        mirrored: Whether it is mirrored left to right.
        angle: Degrees counter-clockwise, in (-180, 180].
        kept: Share of the side that is cut out, of the largest upright square within the turned
            photo: no blank corner gives the angle away. Just below 1 leaves room for resampling.
        place: Where that lies, right and down, from -1 to 1 as far as there is room.
        colors: Factors of brightness, contrast and saturation.
    """

    mirrored: bool
    angle: float
    kept: float = 0.98
    place: tuple[float, float] = (0.0, 0.0)
    colors: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def reach(self) -> float:
        """Side of the largest upright square within the turned photo, as a share of its side."""
        angle = math.radians(self.angle)
        return 1 / (abs(math.sin(angle)) + abs(math.cos(angle)))

    @property
    def zoom(self) -> float:
        """How much larger things are in the copy."""
        return 1 / (self.kept * self.reach)

    def copy_of(self, photo: Image.Image) -> Image.Image:
        """The copy of a square photo, of the same size."""
        side = photo.width
        copy = ImageOps.mirror(photo) if self.mirrored else photo
        copy = copy.rotate(self.angle, Image.Resampling.BICUBIC)
        room = (1 - self.kept) * self.reach / 2
        half = self.kept * self.reach / 2
        x, y = (0.5 + room * share for share in self.place)
        box = (side * (x - half), side * (y - half), side * (x + half), side * (y + half))
        copy = copy.resize((side, side), Image.Resampling.BICUBIC, box=box)
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for enhance, factor in zip(kinds, self.colors, strict=True):
            copy = enhance(copy).enhance(factor)
        return copy

    def words(self) -> str:
        """What is done, in words and degrees."""
        words = [turn_in_words(self.mirrored, self.angle)]
        words.append(f"cropped to {1 / self.zoom**2:.0%}".replace("%", " %"))
        names = ("brightness", "contrast", "saturation")
        named = zip(names, self.colors, strict=True)
        # Fewer than ten per cent are no change to speak of; `Relation.words` holds it alike.
        words += [f"{name} × {factor:.2g}" for name, factor in named if abs(math.log(factor)) > 0.1]
        return ", ".join(words)


class Answer(NamedTuple):
    """What is found out about a copy, and what is true.

    Attributes:
        photo: Number of the photo that it was made of.
        deed: What was done to it.
        nearest: Number of the photo that is nearest by the invariant part of the embedding.
        verdict: How it lies on that photo, None where it is no copy of it.
        colors: Changes of colour in words: those that the pixels tell, else the heads.
    """

    photo: int
    deed: Deed
    nearest: int
    verdict: Alignment | None
    colors: str = ""

    @property
    def error(self) -> float | None:
        """Degrees by which the angle is wrong; None where the copy is not found."""
        if self.verdict is None:
            return None
        return abs((self.verdict.angle - self.deed.angle + 180) % 360 - 180)

    @property
    def right(self) -> bool:
        """Whether photo and mirroring are right, and the angle nearly."""
        close = self.error is not None and self.error <= CLOSE
        mirrored = self.verdict is not None and self.verdict.mirrored == self.deed.mirrored
        return self.nearest == self.photo and mirrored and close


def turn_in_words(mirrored: bool, angle: float) -> str:
    """Such as "mirrored, turned 87° ↺"."""
    return f"{'mirrored, ' if mirrored else ''}turned {abs(angle):.0f}° {_arrow(angle)}"


def _arrow(angle: float) -> str:
    return "↺" if angle > 0 else "↻"


def square(photo: NDArray[np.uint8]) -> Image.Image:
    """Cut the middle square out of a photo and bring it to `SIDE` pixels.

    Args:
        photo: uint8, (height, width, 3) in RGB or (height, width) in grey.

    Returns:
        An RGB image, `SIDE` by `SIDE` pixels.
    """
    return ImageOps.fit(Image.fromarray(photo).convert("RGB"), (SIDE, SIDE))


def draw_deeds(seed: int = 0) -> list[list[Deed]]:
    """For each photo a deed of each kind, drawn at random."""
    rng = np.random.default_rng(seed)

    def angle() -> float:
        return float(rng.choice((-1, 1)) * rng.uniform(20, 180))

    def cropped() -> Deed:
        place, colors = rng.uniform(-1, 1, 2), np.exp(rng.uniform(-0.5, 0.5, 3))
        x, y = (float(share) for share in place)
        brightness, contrast, saturation = (float(factor) for factor in colors)
        return Deed(False, angle(), 0.8, (x, y), (brightness, contrast, saturation))

    return [[Deed(False, angle()), Deed(True, angle()), cropped()] for _ in PHOTOS]


def ask(
    model: CleverModel | OnnxModel, photos: Sequence[Image.Image], deeds: Sequence[Sequence[Deed]]
) -> tuple[list[Answer], int]:
    """Find the copies among all images, as `clever-hub duplicates` does.

    Args:
        model: A model with heads.
        photos: Square photos.
        deeds: What is done to each.

    Returns:
        The answers, photo after photo; and how many pairs of images of different photos are taken
        for copies.
    """
    made = [(number, deed) for number, row in enumerate(deeds) for deed in row]
    images = [*photos, *(deed.copy_of(photos[number]) for number, deed in made)]
    owner = [*range(len(photos)), *(number for number, _ in made)]
    e = model.encode(images)
    found = clever_hub.find_duplicates(e, verify=PixelVerifier(images))
    pairs = zip(found.pairs.a.tolist(), found.pairs.b.tolist(), strict=True)
    lies = dict(zip(pairs, found.verdicts, strict=True))
    unit = unit_rows(e.invariant, e.invariant.mean(axis=0))
    nearest = (unit[len(photos) :] @ unit[: len(photos)].T).argmax(axis=1)
    answers = []
    for place, (number, deed) in enumerate(made):
        a, b = int(nearest[place]), len(photos) + place
        verdict = cast("Alignment | None", lies.get((a, b)))
        relation = clever_hub.relate(e[a : a + 1], e[b : b + 1], model.heads, given_same=True)[0]
        colors, errors = relation.colors, relation.colors_error
        if verdict is not None:
            colors, errors, *_ = verdict.recolouring
        answers.append(Answer(number, deed, a, verdict, colors_in_words(colors, errors)))
    return answers, sum(owner[a] != owner[b] for a, b in lies)


def colors_in_words(colors: Colors, errors: Colors) -> str:
    """The changes of colour, those that are larger than their uncertainty."""
    words = []
    for name in ("brightness", "contrast", "saturation"):
        factor, error = getattr(colors, name), getattr(errors, name)
        if factor and abs(math.log(factor)) > max(0.1, error or 0.0):
            words.append(f"{name} × {factor:.2g}")
    return ", ".join(words)


def takeaway(answers: Sequence[Answer]) -> str:
    """The answers in one sentence, whichever way they fall."""
    count = len(answers)
    nearest = sum(answer.nearest == answer.photo for answer in answers)
    known = [answer for answer in answers if answer.verdict is not None]
    text = (
        f"{nearest} of {count} copies are nearest to their own photo by the invariant part of the "
        f"embedding; {len(known)} are laid onto it"
    )
    if not known:
        return f"{text}."
    mirrored = sum(a.verdict.mirrored == a.deed.mirrored for a in known if a.verdict is not None)
    errors = [answer.error for answer in known if answer.error is not None]
    return (
        f"{text}: mirrored or not is right for {mirrored}, the angle wrong by "
        f"{np.median(errors):.1f}° in the median and {max(errors):.1f}° at worst."
    )


def print_table(console: Console, answers: Sequence[Answer], wrong_pairs: int) -> None:
    """Print who is a copy of whom, and what was done to it, next to the truth."""
    names = list(PHOTOS.values())
    table = Table("", "found", "the truth", show_lines=True)
    for answer in answers:
        verdict = answer.verdict
        done = "not recognised"
        if verdict is not None:  # its colours follow in figures
            done = replace(verdict, recolouring=UNKNOWN).words()
        said = ", ".join(word for word in (done, answer.colors) if word)
        table.add_row(
            "✓" if answer.right else "✗",
            f"{names[answer.nearest]}: {said}",
            f"{names[answer.photo]}: {answer.deed.words()}",
        )
    console.print(table)
    console.print(f"Pairs of different photos that are taken for copies: {wrong_pairs}.")


def draw(out: Path, photos: Sequence[Image.Image], answers: Sequence[Answer], model: str) -> None:
    """Write the picture: each copy, and what it becomes when the answer is undone.

    Args:
        out: The PNG file to be written.
        photos: The photos, in the order of `PHOTOS`.
        answers: Those of one photo after the other, one of each kind.
        model: The model's name, for the caption.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width, height = FIGURE
    told = (
        "Left of an arrow: a copy. Right of it: the copy, after undoing what is found to have been "
        "done. It lies like the photo where the answer is right."
    )
    with plt.rc_context({"font.size": 12.5, "text.color": INK}):
        figure = plt.figure(figsize=FIGURE, dpi=100, facecolor="white")

        def say(x: float, y: float, text: str, **style: Any) -> None:
            figure.text(x / width, 1 - y / height, text, va="top", **style)

        say(LEFT, 0.25, "Which photo is it, and what was done to it?", size=23, weight="bold")
        say(LEFT, 0.78, textwrap.fill(told, 112), color=FAINT)
        say(LEFT, 1.32, textwrap.fill(takeaway(answers), 112))
        for x, heading in zip((LEFT, *COLUMNS), ("the photo", *KINDS), strict=True):
            say(x, 1.97, heading, weight="bold")
        for number, name in enumerate(PHOTOS.values()):
            y = 2.25 + ROW * number
            _show(figure, photos[number], LEFT, y)
            say(LEFT, y + THUMBNAIL + 0.06, name)
            for column, x in enumerate(COLUMNS):
                answer = answers[number * len(KINDS) + column]
                colour = GOOD if answer.right else BAD
                copy = answer.deed.copy_of(photos[number])
                _show(figure, copy, x, y)
                say(x + THUMBNAIL + 0.06, y + THUMBNAIL / 2 - 0.12, "→", size=16)
                _show(figure, undone(answer, photos, copy), x + THUMBNAIL + 0.33, y, colour)
                said, truth = captions(answer)
                say(x, y + THUMBNAIL + 0.06, said, color=colour, weight="bold")
                say(x, y + THUMBNAIL + 0.27, truth, color=FAINT)
        say(LEFT, 2.3 + ROW * len(PHOTOS), textwrap.fill(_caption(model), 112), color=FAINT)
        with atomic_path(out) as path:
            figure.savefig(path)
        plt.close(figure)


def undone(answer: Answer, photos: Sequence[Image.Image], copy: Image.Image) -> Image.Image:
    """A copy, brought back onto the photo that it is found to be of; unchanged without such."""
    if answer.verdict is None:
        return copy
    return brought_back(answer.verdict, photos[answer.nearest], copy)


def captions(answer: Answer) -> tuple[str, str]:
    """What stands below a copy: the answer, and the truth."""
    said = "not recognised"
    if answer.nearest != answer.photo:
        said = f"taken for: {list(PHOTOS.values())[answer.nearest]}"
    elif answer.verdict is not None:
        said = turn_in_words(answer.verdict.mirrored, answer.verdict.angle)
    truth = turn_in_words(answer.deed.mirrored, answer.deed.angle)
    return f"{'✓' if answer.right else '✗'} {said}", f"truth: {truth}"


def _show(figure: Figure, image: Image.Image, x: float, y: float, frame: str | None = None) -> None:
    """Show a square image; x and y are inches from the upper left corner of the figure."""
    width, height = FIGURE
    box = (x / width, 1 - (y + THUMBNAIL) / height, THUMBNAIL / width, THUMBNAIL / height)
    axes = figure.add_axes(box, xticks=[], yticks=[])
    axes.imshow(np.asarray(image), interpolation="lanczos")
    for spine in axes.spines.values():
        spine.set(visible=frame is not None, edgecolor=frame, linewidth=3)


def _caption(model: str) -> str:
    return (
        f"Model: {model}. As in `clever-hub duplicates`, embeddings find the photo and keypoints "
        "tell how the copy lies on it. Angles, crops and colours are drawn at random, once. ↺ is "
        f"counter-clockwise. ✓: right photo, right mirroring, angle within {CLOSE}°. Photos from "
        "scikit-image: NASA, SpaceX (public domain), S. van der Walt, R. Michetti, L. Varshney "
        "(CC0)."
    )


def main() -> None:
    """Run the demonstration from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model with heads; the default is the jobs' own")
    parser.add_argument("--out", type=Path, default=Path("demo.png"), help="the picture to write")
    arguments = parser.parse_args()

    console = Console()
    model = load_model(arguments.model or default_model(heads=True))
    photos = [square(getattr(skimage.data, name)()) for name in PHOTOS]
    answers, wrong_pairs = ask(model, photos, draw_deeds())
    parts = model.config.invariant_dim, model.config.equivariant_dim
    console.print(
        f"{len(photos)} photos, {len(answers)} copies of them; {model.config.name} embeds each in "
        f"{parts[0]} invariant and {parts[1]} equivariant numbers."
    )
    print_table(console, answers, wrong_pairs)
    draw(arguments.out, photos, answers, model.config.name)
    console.print(takeaway(answers), style="bold")
    console.print(f"Picture: {arguments.out}")


if __name__ == "__main__":
    main()
