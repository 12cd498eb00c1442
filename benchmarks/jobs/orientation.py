"""The job orient beside a linear probe of four classes on the plain network's embedding.

    python benchmarks/jobs.py orient ../shared/data --model MODEL --plain PLAIN

Photos of photos-224/validation and the full-size photos, as they are and turned by each quarter.
The probe is fitted to photos-224/train, turned alike. Coverage at an error rate: the largest share
of photos that can be answered, the surest first, with no more than that share of them wrong. The
second table is what the command ``orient`` does by default, which believes that nine tenths of the
photos are upright, and leaves alone what it is not sure of.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from results import machine, write_section
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clever_hub.cli.loading import load_model
from clever_hub.jobs.orient import least_confidences, orientation, orientation_from_four
from jobs.photos import column, originals
from jobs.prepared import encode, kept, label_of

JOB = "orient"
QUARTERS = (0, 90, 180, 270)
RATES = (0.01, 0.05)
UPRIGHT = 0.9
Chances = NDArray[np.float64]


def squares(files: Sequence[bytes]) -> list[Image.Image]:
    """The middle square of each photo, which is what the models see."""
    images = (Image.open(io.BytesIO(file)).convert("RGB") for file in files)
    return [ImageOps.fit(image, (224, 224), Image.Resampling.BICUBIC) for image in images]


def turned(model: Any, images: Sequence[Image.Image]) -> list[Any]:
    """Embeddings of the images turned by each quarter, counter-clockwise."""
    return [
        encode(
            model,
            [image.rotate(quarter) for image in images],
            f"{model.config.name}, turned by {quarter}°",
        )
        for quarter in QUARTERS
    ]


def probe(plain: Any, train: Sequence[Image.Image], test: Sequence[Image.Image]) -> Chances:
    """Probabilities (4 N, 4) by a linear probe of the plain network."""
    fitted = np.concatenate([e.full for e in turned(plain, train)])
    labels = np.repeat(np.arange(4), len(train))
    best: Any = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    best.fit(fitted, labels)
    chances: Chances = best.predict_proba(np.concatenate([e.full for e in turned(plain, test)]))
    return chances


def by_heads(model: Any, images: Sequence[Image.Image]) -> dict[str, Chances]:
    """Probabilities (4 N, 4) from one look at each, from four, and from four as ``orient`` does."""
    four = turned(model, images)
    one = [orientation(e, model.heads).probabilities for e in four]
    # An image turned by k quarters: its own four positions are the same four, from the k-th on.
    turns = [[four[(k + step) % 4] for step in range(4)] for k in range(4)]
    looks = [
        [orientation_from_four(t, model.heads, upright=upright).probabilities for t in turns]
        for upright in (0.25, UPRIGHT)
    ]
    found = (one, *looks)
    return dict(zip(("one", "four", "by default"), map(np.concatenate, found), strict=True))


def by_default(model: Any, chances: Chances, truth: NDArray[np.int64]) -> str:
    """What ``orient`` turns of the photos that lie each way: a table in Markdown."""
    least = least_confidences(model.heads, 0.01, from_four=True, upright=UPRIGHT)
    said = chances.argmax(axis=1)
    turned = chances.max(axis=1) >= np.array([2.0, *least.values()])[said]
    lines = [
        "| photos that lie | set upright | turned wrongly | left alone |",
        "|---|---:|---:|---:|",
    ]
    for name, quarters in (("upright", (0,)), ("sideways", (1, 3)), ("upside down", (2,))):
        rows = np.isin(truth, quarters)
        right = turned[rows] & (said == truth)[rows]
        shares = (right.mean(), (turned[rows] & ~right).mean(), 1 - turned[rows].mean())
        first, *others = (f"{100 * share:.1f} %" for share in shares)
        lines.append(f"| {name} | {' | '.join(('–' if quarters == (0,) else first, *others))} |")
    weights = np.where(truth == 0, UPRIGHT, (1 - UPRIGHT) / 3) * turned
    wrong = 100 * weights[said != truth].sum() / max(weights.sum(), 1e-12)
    lines += ["", f"If nine tenths are upright, {wrong:.1f} % of what is turned is turned wrongly."]
    return "\n".join(lines) + "\n"


def coverage(chances: Chances, truth: NDArray[np.int64], rate: float) -> float:
    """The largest share of photos that can be answered with no more than this share wrong."""
    order = np.argsort(-chances.max(axis=1), kind="stable")
    wrong = np.cumsum((chances.argmax(axis=1) != truth)[order])
    kept = np.flatnonzero(wrong <= rate * np.arange(1, len(truth) + 1))
    return float((kept[-1] + 1) / len(truth)) if len(kept) else 0.0


def report(model: Any, plain: Any, data: Path, photos: int | None, work: Path | None) -> str:
    """A table in Markdown; the probabilities of each contender are kept in ``work``."""
    test = squares(originals(data, photos))

    def by_probe() -> dict[str, Any]:
        train = squares(column(data / "photos-224" / "train.parquet"))
        return {"probe": probe(plain, train, test)}

    def by_model() -> dict[str, Any]:
        return by_heads(model, test)

    def kept_of(contender: Any) -> Path | None:
        return work and work / f"orient-{label_of(contender)}-{len(test)}.npz"

    heads = kept(kept_of(model), by_model)
    rows = {f"linear probe, {plain.config.name}": kept(kept_of(plain), by_probe)["probe"]}
    for looks in ("one look", "four looks"):
        rows[f"{model.config.name}, {looks}"] = heads[looks.partition(" ")[0]]
    truth = np.repeat(np.arange(4), len(test))
    lines = [
        f"{len(test)} photos, each turned by all four quarters; chance is 25 %:\n",
        "| contender | right | 95 % interval | covered at 1 % wrong | at 5 % wrong |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, chances in rows.items():
        right = (chances.argmax(axis=1) == truth).reshape(4, -1).mean(axis=0)
        mean, half = 100 * right.mean(), 196 * right.std() / math.sqrt(len(right))
        covered = " | ".join(f"{100 * coverage(chances, truth, rate):.1f} %" for rate in RATES)
        lines.append(f"| {name} | {mean:.1f} % | ±{half:.1f} | {covered} |")
    default = by_default(model, heads["by default"], truth)
    return "\n".join((*lines, "", "By default, what `orient` does:", "", default))


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(prog="jobs.py orient", description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of test data")
    parser.add_argument("--model", required=True, help="a model with heads")
    parser.add_argument("--plain", required=True, help="the plain network, as a model folder")
    parser.add_argument("--photos", type=int, default=None, help="photos to take; all of 925")
    parser.add_argument("--work", type=Path, help="folder where what was measured is kept")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args(arguments)
    model, plain = (load_model(name) for name in (options.model, options.plain))
    text = report(model, plain, options.data, options.photos, options.work)
    print(text)
    if options.out:
        name, other = model.config.name, plain.config.name
        command = f"python benchmarks/jobs.py orient DATA --model {name} --plain {other}"
        command += f" --photos {options.photos}" if options.photos else ""
        title = f"## Orient: which way up\n\n`{command}`; {machine('scikit-learn', 'onnxruntime')}."
        write_section(options.out, "jobs-orient", f"{title}\n\n{text}")
