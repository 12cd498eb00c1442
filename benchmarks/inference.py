"""Speed of embedding photos on a CPU: timm, and this project's backends, on one machine, in turns.

    python benchmarks/inference.py ../shared/data/imagenet-photos --out benchmarks/RESULTS.md

ResNet-18 and ResNet-50 at 64 and at 224 px, one and 32 photos at once, two threads: images/s of the
model alone and from JPEG file to vector, resident memory, and the seconds from process start to the
first vector. Every contender waits in its own process; they take turns of a second or two. The
result is the median over the rounds of the ratio to timm in the same round, so that all contenders
have the same conditions. Run it on an idle machine. ``--quick`` only checks within a few minutes
that it works.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from inference_contenders import CONTENDERS, Failure, Job, serve
from inference_models import make_folders
from inference_report import report
from inference_settings import ONNX, REFERENCE, SETTINGS, Measured, Setting
from inference_start import first_vectors
from results import write_section


def measure(setting: Setting, job: Job, rounds: int, seconds: float) -> None:
    """Measure every contender of a setting: all wait in processes and take turns."""
    with ExitStack() as stack:
        waiting = {
            name: stack.enter_context(_process(job._replace(contender=name)))
            for name in setting.contenders
        }
        expected = None
        for name in setting.contenders:
            vectors = _ask(setting, waiting, name, "vectors", 0.0)
            expected = vectors if name == REFERENCE else expected
            _compare(name, vectors, expected)
            _ask(setting, waiting, name, "model", seconds / 2)  # warm
        for _ in range(rounds):
            for name, measured in setting.contenders.items():
                for what, figures in (("model", measured.model), ("files", measured.files)):
                    if (rate := _ask(setting, waiting, name, what, seconds)) is not None:
                        figures.append(rate)
            setting.decode.append(_ask(setting, waiting, ONNX, "decode", seconds))
        for name, measured in setting.contenders.items():
            measured.memory = _ask(setting, waiting, name, "memory", 0.0) or 0


def _ask(
    setting: Setting, waiting: dict[str, Connection], name: str, what: str, seconds: float
) -> Any:
    """A contender's answer; None if it has failed, which is reported once."""
    measured = setting.contenders[name]
    if measured.failure:
        return None
    try:
        waiting[name].send((what, seconds))
        answer = waiting[name].recv()
    except (EOFError, OSError) as error:
        answer = Failure(f"its process ended ({error!r})")
    if isinstance(answer, Failure):
        measured.failure = answer.reason
        print(f"\n{name} does not take part: {answer.reason[:500]}", file=sys.stderr)
        return None
    return answer


def _compare(name: str, vectors: Any, expected: Any) -> None:
    """Check that a contender computes the same embeddings as the reference."""
    if vectors is None or expected is None:
        return
    dots = (vectors * expected).sum(1)
    cosine = (dots / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)).min()
    least = 0.9 if "int8" in name else 0.99 if "bf16" in name else 0.99999
    if not cosine > least:
        raise RuntimeError(f"{name}: cosine {cosine:.6f} to {REFERENCE}, expected {least}")


@contextmanager
def _process(job: Job) -> Iterator[Connection]:
    # Spawned: a forked process would inherit the parent's imports and memory.
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, job))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with suppress(OSError):
            ours.send(None)
        process.join(20)
        if process.is_alive():
            process.terminate()
        ours.close()


class _Progress:
    """One line on stderr: the current step and the estimated time left."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._start = total, 0, time.monotonic()

    def __call__(self, what: str) -> None:
        elapsed = time.monotonic() - self._start
        left = elapsed / max(1, self._done) * (self._total - self._done)
        passed = f"{elapsed / 60:.0f} min passed"
        about = f", about {left / 60:.0f} min left" if self._done else ""
        print(f"[{self._done + 1}/{self._total}] {what}, {passed}{about}", file=sys.stderr)
        self._done += 1


def run(options: argparse.Namespace, photos: Sequence[Path]) -> str:
    """Measure everything and return the section as Markdown."""
    settings = [
        Setting(architecture, size, batch, {name: Measured() for name in options.contenders})
        for architecture, size in SETTINGS
        if architecture in options.models and size in options.sizes
        for batch in options.batches
    ]
    progress = _Progress(len(settings) + 2)
    with tempfile.TemporaryDirectory() as temporary:
        progress("making the model folders")
        kinds = list(dict.fromkeys((s.architecture, s.size) for s in settings))
        models = make_folders(Path(temporary), kinds, photos)
        for setting in settings:
            progress(f"{setting.architecture}, {setting.size} px, batch {setting.batch}")
            folder = models[setting.architecture, setting.size].folder
            job = Job("", folder, setting.batch, options.threads, list(photos))
            measure(setting, job, options.rounds, options.seconds)
        progress("process start to first vector")
        first = next(iter(models.values())).folder
        starts = first_vectors(first, photos[0], options.rounds, options.threads)
    return report(settings, starts, models, options)


def main() -> None:
    """Measure, print, and write the section of ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("--out", type=Path, help="Markdown file whose section is replaced")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--quick", action="store_true", help="one short round")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.2
    options.contenders = list(dict.fromkeys((REFERENCE, ONNX, *options.contenders)))
    endings = (".jpg", ".jpeg")
    photos = sorted(p for p in options.photos.iterdir() if p.suffix.lower() in endings)
    if not photos:
        parser.error(f"{options.photos}: no JPEG files")
    # Before any child imports torch.
    os.environ.update(OMP_NUM_THREADS=str(options.threads), HF_HUB_OFFLINE="1")
    if (busy := os.getloadavg()[0]) > 0.7:
        print(f"The machine is busy (load {busy:.1f}): the figures will suffer.", file=sys.stderr)
    text = run(options, photos)
    print(text)
    if options.out:
        write_section(options.out, "inference", text)


if __name__ == "__main__":
    main()
