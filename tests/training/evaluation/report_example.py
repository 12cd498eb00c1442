"""evaluation.json files with every protocol of docs/evaluation-schema.md, figures made up.

The made-up models behave as the paper says: the invariant part stays, the equivariant part moves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from clever_hub.files import write_json
from clever_training.evaluation.results import summarize

# protocol, condition, part, metrics
Row: TypeAlias = tuple[str, str, str, dict[str, float]]
DIMS = {"full": 512, "invariant": 409, "equivariant": 103}
SWEEPS = {
    "rotation": [*range(-180, 181, 15)],
    "crop": [1, 0.8, 0.6, 0.4, 0.2],
    "brightness": [0.25, 0.5, 1, 1.5, 2],
    "blur": [0, 0.5, 1, 2, 3],
}
NEUTRAL = {"rotation": 0, "crop": 1, "brightness": 1, "blur": 0}
GRID = {"original": 1.0, "cj": 0.9, "cj+flip": 0.88, "cj+ro": 0.6, "cj+ro+et": 0.5}
# How well each part knows the class and the angle, and how little it moves.
PARTS = {
    "full": (1.0, 0.6, 0.6),
    "invariant": (0.95, 0.3, 0.8),
    "equivariant": (0.7, 0.5, 0.3),
    "invariant_slice": (0.6, 0.15, 0.8),
}


def distance(name: str, strength: float) -> float:
    """How far a strength is from changing nothing, in [0, 1]."""
    low, high = min(SWEEPS[name]), max(SWEEPS[name])
    return float(abs(strength - NEUTRAL[name]) / max(high - NEUTRAL[name], NEUTRAL[name] - low))


def seed_figures(skill: float, seed: int, parts: tuple[str, ...]) -> dict[str, Any]:
    """Every protocol's figures of one seed; skill in [0, 1]."""
    wobble = 1 + 0.01 * math.sin(seed)
    found: dict[str, Any] = {}
    rows = [row for part in parts for row in (*accuracies(part, skill), *cosines(part, skill))]
    wide = (*parts, *(("invariant_slice",) if len(parts) > 1 else ()))
    rows += [row for part in wide for row in fitted(part, skill)]
    for protocol, condition, part, metrics in rows:
        of = found.setdefault(protocol, {}).setdefault(condition, {})
        of[part] = {name: value * wobble for name, value in metrics.items()}
    return found


def fitted(part: str, skill: float) -> Iterator[Row]:
    """What is also measured of a slice of the invariant part."""
    knows, turns, _ = PARTS[part]
    top1, angle = 60 * skill * knows, turns * skill
    for condition, factor in (("plain", 1.0), ("upright", 0.95), ("rotated", 0.6)):
        metrics = {"top1": top1 * factor, "top5": min(99, 1.5 * top1), "l2": 0.1}
        yield "linear", condition, part, metrics
    known = {"ridge_r2": angle, "mlp_r2": 1.1 * angle}
    error = {"ridge_degrees": 45 - 40 * angle, "mlp_degrees": 44 - 41 * angle}
    yield "equivariance", "rotation", part, {**known, **error}
    for name in ("crop", "jitter", "blur"):
        yield "equivariance", name, part, {"ridge_r2": 0.5 * turns, "mlp_r2": 0.6 * turns}
    yield "equivariance", "quarter-turns", part, {"top1": 25 + 60 * angle}
    pose = {"pose_mrr": 0.245 + 0.5 * angle, "pose_hit1": 7.7 + 40 * angle}
    yield "equivariance", "rotation-map", part, {**pose, "photo_mrr": 0.9 * skill}


def accuracies(part: str, skill: float) -> Iterator[Row]:
    """k-NN, robustness, sweeps, few labels."""
    top1 = 60 * skill * PARTS[part][0]
    for condition, factor in (("plain", 0.8), ("upright", 0.75), ("rotated", 0.5)):
        yield "knn", condition, part, {"top1": top1 * factor}
    for trained, flat in (("upright", 0.0), ("rotated", 0.7)):
        for name, factor in GRID.items():
            yield "robustness", f"{trained}/{name}", part, {"top1": top1 * max(factor, flat)}
        for name, strength in strengths():
            left = max(math.exp(-2 * distance(name, strength)), flat)
            yield "sweeps", f"{trained}/{name}/{strength:g}", part, {"top1": top1 * left}
    for share, factor in (("1%", 0.3), ("10%", 0.6)):
        yield "semi-supervised", share, part, {"top1": top1 * factor, "top5": top1, "l2": 1.0}


def cosines(part: str, skill: float) -> Iterator[Row]:
    """Invariance, retrieval, collapse."""
    stays = PARTS[part][2]
    conditions = [("rotation", stays), *((n, stays * f) for n, f in list(GRID.items())[1:])]
    conditions += [
        (f"{name}/{strength:g}", 1 - (1 - stays) * distance(name, strength))
        for name, strength in strengths()
        if strength != NEUTRAL[name]
    ]
    for condition, gap in conditions:
        raw = {"same": gap, "different": 0.01, "gap": gap - 0.01}
        centred = {"same_centred": gap, "different_centred": 0.0, "gap_centred": gap}
        yield "invariance", condition, part, {**raw, **centred}
        yield "retrieval", condition, part, {"mrr": gap, "hit1": 90 * gap, "hit5": 95 * gap}
    rank = DIMS[part] * 0.3 * skill
    spread = {"std": 0.8 * skill, "effective_rank": rank, "dim": float(DIMS[part])}
    yield "collapse", "plain", part, spread


def strengths() -> Iterator[tuple[str, float]]:
    """Every strength of every sweep."""
    yield from ((name, strength) for name, values in SWEEPS.items() for strength in values)


def figures(skill: float, parts: tuple[str, ...] = ("full", "invariant", "equivariant")) -> Any:
    """Figures over three seeds."""
    runs = [seed_figures(skill, seed, parts) for seed in range(3)]
    return {name: summarize([run[name] for run in runs]) for name in runs[0]}


def evaluation(name: str, skill: float) -> dict[str, Any]:
    """The content of an evaluation.json: a model, random weights, raw pixels."""
    data = {
        split: {
            "name": f"photos/{split}",
            "photos": photos,
            "photos_in_all": photos,
            "classes": 100,
            "fingerprint": "f",
            "subset": split,
        }
        for split, photos in (("train", 50_000), ("validation", 5_000))
    }
    model = {
        "name": name,
        "kind": "model",
        "architecture": "resnet18",
        "dims": DIMS,
        "input_size": 64,
        "identity": name,
        "method": "clever-vicreg",
    }
    random = {**model, "name": f"random:{name}", "kind": "random", "identity": "random"}
    side = {"full": 768}
    pixels = {**model, "name": "pixels", "kind": "pixels", "identity": "pixels", "dims": side}
    pixels["architecture"] = "16x16 pixels"
    measured = figures(skill)
    record = {
        "command": f"clever-hub evaluate {name} --data photos --out measured/{name}",
        "profile": "full",
        "seeds": [0, 1, 2],
        "settings": {},
        "data": data,
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "environment": {"clever_hub": "0.1.0", "torch": "2.9"},
    }
    return {
        "schema_version": 1,
        "model": model,
        "figures": measured,
        "baselines": {
            "random": {"model": random, "figures": figures(0.2)},
            "pixels": {"model": pixels, "figures": figures(0.15, ("full",))},
        },
        "protocols": dict.fromkeys(measured, record),
    }


def tuned(name: str, share: str, top1: float) -> dict[str, Any]:
    """The content of a finetune.json."""
    whole = evaluation(name, 1.0)
    last = {"top1": top1, "top5": min(100.0, 2 * top1), "loss": 1.0}
    return {
        "schema_version": 1,
        "model": whole["model"],
        "settings": {"epochs": 10},
        "data": whole["protocols"]["knn"]["data"],
        "figures": {"finetune": summarize([{f"network/{share}": {"full": last}}])},
        "protocols": {"finetune": {**whole["protocols"]["knn"], "command": f"finetune {name}"}},
    }


def write_example(folder: Path) -> Path:
    """Two models' evaluations in sub-folders, and a fine-tuned one."""
    for name, skill in (("clever-resnet18", 0.9), ("dino-resnet18", 0.7)):
        write_json(folder / name / "evaluation.json", evaluation(name, skill))
    write_json(folder / "tuned" / "finetune.json", tuned("clever-resnet18", "1%", 31.25))
    return folder
