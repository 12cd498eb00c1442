"""The job relate beside ORB and RANSAC, which is what engineers use.

    python benchmarks/jobs.py relate ../shared/data --model MODEL --photos 300

Pairs of a photo and a copy of it, mirrored or not: turned by quarters; by any angle with black
corners; by any angle and cut out inside, so that no corner tells; and that with 40 % cropped, other
colours and JPEG 30. ORB takes 1,000 keypoints of the whole photos, matches them to the copy and to
its mirror image, and RANSAC fits a similarity; it answers where 10 matches agree. "With pixels" is
what ``model.relate(a, b)`` and ``clever-hub relate`` do with both images: keypoints where they
match, else the model from all positions of both. Times are processor times of the relation alone:
embeddings, and keypoints, are there already.

"Within its error" is the share of known angles that are wrong by no more than the ``angle_error``
that comes with them. It says so of two thirds; an angle of the wrong mirroring counts as wrong.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps
from results import machine, write_section

from clever_hub.cli.loading import load_model
from clever_hub.embeddings import Embeddings
from clever_hub.jobs.heads import PairValues
from clever_hub.jobs.pixels import aligner, measured
from clever_hub.jobs.relate import (
    POSITIONS,
    from_all_positions,
    relate,
    relate_from_eight,
    symmetric,
)
from clever_hub.jobs.relation import Relations
from jobs.copies import crop, cut_inside, recolored, recompressed
from jobs.photos import originals
from jobs.prepared import encode, kept, label_of, row

JOB = "relate"
_BICUBIC = Image.Resampling.BICUBIC
_LEAST_INLIERS = 10
_RIGHT = 15.0  # degrees
SIDE = 224


class Pair(NamedTuple):
    """A photo, a copy, and how the copy was made."""

    a: Image.Image
    b: Image.Image
    angle: float
    mirrored: bool


class Answer(NamedTuple):
    """What a contender says, None where it has no idea; whether it calls that known; its error."""

    angle: float | None
    mirrored: bool | None
    known: bool = True
    error: float | None = None


def _quarters(photo: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, float]:
    angle = 90.0 * int(rng.integers(4))
    return photo.rotate(angle), angle


def _corners(photo: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, float]:
    angle = float(rng.uniform(-180, 180))
    return photo.rotate(angle, _BICUBIC), angle


def _inside(photo: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, float]:
    angle = float(rng.uniform(-180, 180))
    return cut_inside(photo, angle), angle


def _harsh(photo: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, float]:
    copy, angle = _inside(photo, rng)
    return recompressed(recolored(crop(copy, rng, 0.4), rng), rng), angle


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], tuple[Image.Image, float]]] = {
    "quarter turns": _quarters,
    "any angle, black corners": _corners,
    "any angle, cut out inside": _inside,
    "the same, 40 % cropped, colours, JPEG 30": _harsh,
}


def make_pairs(files: Sequence[bytes], kind: str) -> list[Pair]:
    """A pair of each photo; the middle square of it, as the models see it."""
    pairs = []
    for number, file in enumerate(files):
        photo = Image.open(io.BytesIO(file)).convert("RGB")
        a = ImageOps.fit(photo, (SIDE, SIDE), _BICUBIC)
        rng = np.random.default_rng([number, len(kind)])
        mirrored = bool(rng.random() < 0.5)
        b, angle = KINDS[kind](ImageOps.mirror(a) if mirrored else a, rng)
        pairs.append(Pair(a, b, angle, mirrored))
    return pairs


class Contender(NamedTuple):
    """The answers to all pairs, and how many pairs a second."""

    answers: list[Answer]
    speed: float


def by_model(model: Any, pairs: Sequence[Pair]) -> dict[str, Contender]:
    """Answers from one look at each, from all positions of both, and with pixels."""
    a, b = (
        [_turned(model, images, n) for n in range(POSITIONS)]
        for images in ([pair.a for pair in pairs], [pair.b for pair in pairs])
    )
    start = time.process_time()
    one = relate(a[0], b[0], model.heads, given_same=True)
    speed = len(pairs) / (time.process_time() - start)
    start = time.process_time()
    many = relate_from_eight(a, b, model.heads, given_same=True)
    slower = len(pairs) / (time.process_time() - start)
    parts = ([e.equivariant for e in eight] for eight in (a, b))
    mean = from_all_positions(model.heads, *parts)
    first = symmetric(model.heads, a[0].equivariant, b[0].equivariant)
    refined, rate = by_pixels(model, pairs, many)
    return {
        "one look": Contender(_answers(one, first), speed),
        "all positions": Contender(_answers(many, mean), slower),
        "with pixels": Contender(_answers(refined, mean), rate),
    }


def _turned(model: Any, images: Sequence[Image.Image], position: int) -> Embeddings:
    """The images in one of their eight positions."""
    flipped = [ImageOps.mirror(image) if position >= 4 else image for image in images]
    turned = [image.rotate(90 * (position % 4), expand=True) for image in flipped]
    return encode(model, turned, f"position {position + 1} of {POSITIONS}")


def by_pixels(model: Any, pairs: Sequence[Pair], estimated: Relations) -> tuple[Relations, float]:
    """The relations where keypoints match, else what was estimated; and pairs/s."""
    images = [image for pair in pairs for image in pair[:2]]
    align = aligner(images, model.preprocessor.config, cached=len(images))
    rows = 2 * np.arange(len(pairs))
    align(rows, rows + 1)  # finds the keypoints
    start = time.process_time()
    found = measured(estimated, align(rows, rows + 1), given_same=True)
    return found, len(pairs) / (time.process_time() - start)


def _answers(relations: Relations, values: PairValues) -> list[Answer]:
    """What is said; and what would be said where it is unknown."""
    mirrored = values.logit > 0
    vector = np.where(mirrored[:, None], values.mirrored, values.straight)
    phi = np.degrees(np.arctan2(vector[:, 0], vector[:, 1]))
    guess = np.where(mirrored, phi, -phi)
    return [
        Answer(float(guess[row]), bool(mirrored[row]), known=False)
        if relation.angle is None
        else Answer(relation.angle, relation.mirrored, True, relation.angle_error)
        for row, relation in enumerate(relations)
    ]


def by_orb(pairs: Sequence[Pair]) -> Contender:
    """Answers, and pairs/s with the keypoints given."""
    orb = cv2.ORB_create(nfeatures=1000)

    def found(image: Image.Image) -> Any:
        return orb.detectAndCompute(np.asarray(image.convert("L")), None)

    given = [(found(p.a), found(p.b), found(ImageOps.mirror(p.b))) for p in pairs]
    answers = []
    start = time.process_time()
    for one, plain, mirror in given:
        (count, angle), (other, turned) = _matched(one, plain), _matched(one, mirror)
        if max(count, other) < _LEAST_INLIERS:
            answers.append(Answer(None, None, known=False))
        elif other > count:
            # The copy's mirror image lies turned by θ: the copy is mirrored and turned by −θ.
            answers.append(Answer(-turned, True))
        else:
            answers.append(Answer(angle, False))
    return Contender(answers, len(pairs) / (time.process_time() - start))


def _matched(one: Any, other: Any) -> tuple[int, float]:
    """How many matches agree with a similarity, and by what angle it turns."""
    (points, first), (places, second) = one, other
    if first is None or second is None:
        return 0, 0.0
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)
    if len(matches) < 4:
        return 0, 0.0
    source = np.float32([points[m.queryIdx].pt for m in matches])
    target = np.float32([places[m.trainIdx].pt for m in matches])
    matrix, inside = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=4.0)
    if matrix is None:
        return 0, 0.0
    # Pixels count downwards, angles counter-clockwise.
    return int(inside.sum()), -math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))


def scores(pairs: Sequence[Pair], answers: Sequence[Answer]) -> dict[str, float]:
    """Shares in per cent, errors in degrees; where there is no answer the error counts as 90."""
    errors = np.array([_error(p, a) for p, a in zip(pairs, answers, strict=True)])
    known = np.array([a.known for a in answers])
    mirrored = np.array([a.mirrored == p.mirrored for p, a in zip(pairs, answers, strict=True)])
    said = np.array([math.nan if a.error is None else a.error for a in answers])
    held = (errors <= said) & mirrored
    return {
        "median error of all": float(np.median(errors)),
        "answered": 100 * float(known.mean()),
        "median error of answered": float(np.median(errors[known])) if known.any() else math.nan,
        "mirroring right": 100 * float(mirrored.mean()),
        "within": 100 * float(held[known].mean()) if np.isfinite(said).any() else math.nan,
    }


def _error(pair: Pair, answer: Answer) -> float:
    if answer.angle is None:
        return 90.0
    return abs((answer.angle - pair.angle + 180) % 360 - 180)


def rescued(
    pairs: Sequence[Pair], answers: Sequence[Answer], orb: Sequence[Answer]
) -> tuple[int, float]:
    """Pairs in which ORB finds no match, and the share of them that the heads get within 15°."""
    lost = [n for n, answer in enumerate(orb) if answer.angle is None]
    right = [_error(pairs[n], answers[n]) <= _RIGHT for n in lost]
    return len(lost), 100 * float(np.mean(right)) if lost else math.nan


def report(model: Any, files: Sequence[bytes], work: Path | None = None) -> str:
    """A table in Markdown; what was measured of a kind is kept in ``work``."""
    lines = [
        (
            "| copies | contender | median error | known | of these | within its error "
            "| mirroring right | pairs/s | where ORB finds none |"
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number, kind in enumerate(KINDS):
        print(kind, file=sys.stderr)
        name = f"relate-{label_of(model)}-{len(files)}-{number}.json"
        rows = kept(work and work / name, partial(_rows_of, model, files, kind))
        lines += [row(kind, *cells) for cells in rows["rows"]]
    return "\n".join(lines) + "\n"


def _rows_of(model: Any, files: Sequence[bytes], kind: str) -> dict[str, list[list[str]]]:
    """The cells of one kind's rows."""
    pairs = make_pairs(files, kind)
    orb = by_orb(pairs)
    mine = {f"{model.config.name}, {how}": found for how, found in by_model(model, pairs).items()}
    rows = []
    for name, contender in ({"ORB + RANSAC": orb} | mine).items():
        s = scores(pairs, contender.answers)
        lost, right = rescued(pairs, contender.answers, orb.answers)
        rows.append(
            [
                name,
                f"{s['median error of all']:.1f}°",
                f"{s['answered']:.0f} %",
                _or_dash(s["median error of answered"], "{:.1f}°"),
                _or_dash(s["within"], "{:.0f} %"),
                f"{s['mirroring right']:.0f} %",
                f"{contender.speed:,.0f}",
                f"{right:.0f} % of {lost} within 15°" if lost and contender is not orb else "–",
            ]
        )
    return {"rows": rows}


def _or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(prog="jobs.py relate", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of test data")
    parser.add_argument("--model", required=True, help="a model with heads")
    parser.add_argument("--photos", type=int, default=None, help="photos to take; all of 925")
    parser.add_argument("--work", type=Path, help="folder where what was measured is kept")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    files = originals(options.data, options.photos)
    model = load_model(options.model)
    text = report(model, files, options.work)
    print(text)
    if options.out:
        command = f"python benchmarks/jobs.py relate DATA --model {model.config.name}"
        command += f" --photos {options.photos}" if options.photos else ""
        about = machine("opencv-python-headless", "onnxruntime")
        title = f"## Relate: what was done to a copy\n\n`{command}`, {len(files)} photos; {about}."
        write_section(options.out, "jobs-relate", f"{title}\n\n{text}")
