"""The section on inference: Markdown tables of ratios, and which aims were met."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from inference_settings import ONNX, REFERENCE
from results import machine

if TYPE_CHECKING:
    from inference_models import Model
    from inference_settings import Setting

INT8 = "clever_hub onnx int8"
_FILES = (
    "Full-size photos. timm reads them with torch's DataLoader and {threads} workers. In brackets: "
    "the share of 1/(1/decode + 1/model), what cores shared by decoding and the model allow."
)
OTHERS = (
    "timm bf16 channels_last",
    "timm torch.compile",
    "clever_hub torch",
    ONNX,
    INT8,
)


def report(
    settings: Sequence[Setting],
    starts: Mapping[str, Sequence[float]],
    models: Mapping[tuple[str, int], Model],
    options: argparse.Namespace,
) -> str:
    """All results, as Markdown.

    Args:
        settings: Models, sizes and batches with everyone's figures.
        starts: Seconds from process start to first vector, by route.
        models: The model folders, by architecture and size.
        options: Options of the command.
    """
    weights = "; ".join(f"{a} at {s} px {m.weights} weights" for (a, s), m in models.items())
    int8 = "; ".join(f"{a} at {s} px {m.int8}" for (a, s), m in models.items())
    parts = [
        "## Inference",
        _how(options),
        f"Weights: {weights}. int8, mean centred cosine to float32 on held-out photos: {int8}.",
        "### The model alone",
        "Images/s of timm, float32, eager; the others as multiples of it.",
        _table(settings, "model"),
        "### From JPEG file to vector",
        _FILES.format(threads=options.threads),
        _table(settings, "files"),
        "### Resident memory",
        "MB of the process after all rounds; of timm without its workers.",
        _memory(settings),
        "### From process start to the first vector",
        _starts(starts),
        "### Aims",
        _aims(settings, starts),
    ]
    return "\n\n".join(parts)


def _how(options: argparse.Namespace) -> str:
    given = f" --rounds {options.rounds}" + (" --quick" if options.quick else "")
    versions = machine("torch", "timm", "onnxruntime", "transformers")
    return (
        f"`python benchmarks/inference.py PHOTOS --out benchmarks/RESULTS.md{given}`, "
        f"{options.threads} threads, medians of {options.rounds} rounds. {versions}."
    )


def _label(setting: Setting) -> str:
    return f"{setting.architecture}, {setting.size} px, batch {setting.batch}"


def _ratio(setting: Setting, name: str, what: str) -> float | None:
    """The median over the rounds of the ratio to timm; None from one that took no part."""
    if name not in setting.contenders:
        return None
    own = getattr(setting.contenders[name], what)
    reference = getattr(setting.contenders[REFERENCE], what)
    if not own or not reference:
        return None
    return statistics.median(a / b for a, b in zip(own, reference, strict=True))


def _ideal(setting: Setting, name: str) -> float | None:
    """The median share of what decoding and model allow together."""
    measured = setting.contenders.get(name)
    if measured is None or not measured.files:
        return None
    rounds = zip(measured.files, measured.model, setting.decode, strict=True)
    return statistics.median(files * (1 / model + 1 / decode) for files, model, decode in rounds)


def _table(settings: Sequence[Setting], what: str) -> str:
    head = [REFERENCE, *(f"{name} ×" for name in OTHERS)]
    rows = []
    for setting in settings:
        reference = getattr(setting.contenders[REFERENCE], what)
        cells = [f"{statistics.median(reference):.0f}/s" if reference else "–"]
        for name in OTHERS:
            ratio, share = _ratio(setting, name, what), ""
            if what == "files" and name.startswith("clever_hub") and ratio is not None:
                share = f" ({_ideal(setting, name):.0%})"
            cells.append("–" if ratio is None else f"{ratio:.2f}{share}")
        if what == "files":
            cells.append(f"{statistics.median(setting.decode):.0f}/s" if setting.decode else "–")
        rows.append([_label(setting), *cells])
    return _markdown(["setting", *head, *(["decoding alone"] if what == "files" else [])], rows)


def _memory(settings: Sequence[Setting]) -> str:
    names = [REFERENCE, *OTHERS]
    rows = []
    for setting in settings:
        found = [setting.contenders.get(name) for name in names]
        cells = [f"{m.memory / 1e6:.0f}" if m and m.memory else "–" for m in found]
        rows.append([_label(setting), *cells])
    return _markdown(["setting", *names], rows)


def _starts(starts: Mapping[str, Sequence[float]]) -> str:
    reference = statistics.median(starts["transformers"])
    rows = [
        [route, f"{(median := statistics.median(taken)):.2f}", f"{reference / median:.1f}"]
        for route, taken in starts.items()
    ]
    return _markdown(["route", "seconds", "sooner than transformers ×"], rows)


def _aims(settings: Sequence[Setting], starts: Mapping[str, Sequence[float]]) -> str:
    small = [s for s in settings if s.size == 64 and s.batch == 1]
    alone, files = "model alone", "file to vector, share of what is possible"
    lines = [
        _aim(f"onnx, {alone}", 1.2, settings, lambda s: _ratio(s, ONNX, "model")),
        _aim(f"onnx, {alone}, 64 px, batch 1", 2.5, small, lambda s: _ratio(s, ONNX, "model")),
        _aim(f"int8, {alone}", 4, settings, lambda s: _ratio(s, INT8, "model")),
        _aim(f"int8, {alone}, 64 px, batch 1", 10, small, lambda s: _ratio(s, INT8, "model")),
        _aim(f"onnx, {files}", 0.9, settings, lambda s: _ideal(s, ONNX)),
        _aim(f"int8, {files}", 0.9, settings, lambda s: _ideal(s, INT8)),
        _aim(f"torch, {files}", 0.9, settings, lambda s: _ideal(s, "clever_hub torch")),
    ]
    sooner = statistics.median(starts["transformers"]) / statistics.median(starts[ONNX])
    verdict = "met" if sooner >= 5 else "**fell short**"
    lines.append(f"- first vector, onnx sooner than transformers: aim 5, {sooner:.1f}: {verdict}")
    return "\n".join(line for line in lines if line)


def _aim(
    what: str,
    aim: float,
    settings: Sequence[Setting],
    figure: Callable[[Setting], float | None],
) -> str:
    """Whether an aim was met everywhere; empty when nothing was measured."""
    found = [(value, s) for s in settings if (value := figure(s)) is not None]
    if not found:
        return ""
    worst, where = min(found, key=lambda pair: pair[0])
    short = [f"{_label(setting)} {value:.2f}" for value, setting in found if value < aim]
    verdict = f"**fell short** at {'; '.join(short)}" if short else "met"
    return f"- {what}: aim {aim}, least {worst:.2f} ({_label(where)}): {verdict}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
