"""Embedding photos: reduced decoding, int8, the defaults against other settings, and fastembed.

    python benchmarks/embed.py PHOTOS --fastembed VENV/bin/python --out benchmarks/RESULTS.md

``embed_fastembed.py`` says how to make VENV; without it fastembed is left out. Everything that is
compared takes turns in one run, each in a process of its own; the result is the median over the
rounds of the ratio in the same round. Photos of 12 megapixels are mosaics of 8 × 8 photos of the
folder, so that they have the detail of real ones. On two idle cores it takes about seven minutes.

Aims: the defaults have 90 % of the best other setting of the same precision; int8 ≥ 1.8 times
float32; int8 with reduced decoding ≥ 2 times fastembed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import embed_fastembed
import numpy as np
from PIL import Image
from results import machine, write_section

from clever_hub.threads import available_cores

LARGE = (4000, 3000)
MODELS = ("clever-resnet50", "clever-efficientnet-lite0")


def mosaics(photos: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Make photos of 12 megapixels, JPEG of quality 90."""
    made = []
    for index in range(count):
        whole = Image.new("RGB", LARGE)
        for place in range(64):
            photo = Image.open(photos[(index * 64 + place * 7) % len(photos)]).convert("RGB")
            tile = photo.resize((LARGE[0] // 8, LARGE[1] // 8), Image.Resampling.LANCZOS)
            whole.paste(tile, (place % 8 * tile.width, place // 8 * tile.height))
        made.append(folder / f"{index:02}.jpg")
        whole.save(made[-1], quality=90)
    return made


def decode_speed(photos: Sequence[Path], size: int, rounds: int) -> list[float]:
    """How many times as fast reduced decoding and resizing is, in each round, on one core."""
    from clever_hub import PreprocessingConfig, Preprocessor
    from clever_hub.images.options import LoadOptions

    exact = Preprocessor(PreprocessingConfig(size, size))
    reduced = exact.with_options(LoadOptions(decode="reduced"))
    ratios = []
    for _ in range(rounds):
        seconds = []
        for prepare in (exact, reduced):
            began = time.process_time()
            for photo in photos:
                prepare(photo)
            seconds.append(time.process_time() - began)
        ratios.append(seconds[0] / seconds[1])
    return ratios


def decode_fidelity(name: str, photos: Sequence[Path], size: int) -> dict[str, Any]:
    """Cosine of each part to exact decoding, and how often the nearest neighbour is the same."""
    import clever_hub
    from clever_hub import PreprocessingConfig, Preprocessor

    model = clever_hub.from_pretrained(name, backend="torch")
    model.preprocessor = Preprocessor(PreprocessingConfig(size, size))
    exact = model.encode(photos, normalize=True)
    reduced = model.encode(photos, normalize=True, decode="reduced")
    found: dict[str, Any] = {}
    for part in ("invariant", "equivariant"):
        a, b = getattr(exact, part), getattr(reduced, part)
        cosine = (a * b).sum(axis=1)
        near = [np.argmax(rows @ rows.T - 2 * np.eye(len(rows)), axis=1) for rows in (a, b)]
        found[part] = (float(cosine.min()), float(np.median(cosine)), np.mean(near[0] == near[1]))
    return found


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "onnx, 1 thread, 1 worker": {"backend": "onnx", "threads": 1, "num_workers": 1},
    "onnx, 1 thread, 2 workers": {"backend": "onnx", "threads": 1, "num_workers": 2},
    "onnx, 2 threads, 1 worker": {"backend": "onnx", "threads": 2, "num_workers": 1},
    "onnx, 2 threads, 2 workers": {"backend": "onnx", "threads": 2, "num_workers": 2},
    "torch, 1 thread, 2 workers": {"backend": "torch", "threads": 1, "num_workers": 2},
    "torch, 2 threads, 2 workers": {"backend": "torch", "threads": 2, "num_workers": 2},
    "int8": {"precision": "int8"},
    "int8, reduced": {"precision": "int8", "decode": "reduced"},
}

FASTEMBED, WORKERS = "fastembed", "fastembed, a process for each core"


def _serve(connection: Connection, name: str, options: dict[str, Any], files: list[Path]) -> None:
    """Load as `embed` does, then embed all files at every request; the answer is photos/s."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from clever_hub.pretrained import fastest_backend, from_pretrained
    from clever_hub.threads import available_cores

    kept = dict(options)
    workers, decode = kept.pop("num_workers", None), kept.pop("decode", "exact")
    onnx = "precision" in kept
    backend = kept.pop("backend", "onnx" if onnx else fastest_backend(name))
    kept.setdefault("threads", available_cores())
    model = from_pretrained(name, backend=backend, **kept)
    work = lambda paths: sum(  # noqa: E731
        len(batch.indices)
        for batch in model.encode_batches(paths, num_workers=workers, decode=decode)
    )
    work(files[:64])
    while request := connection.recv():
        if request == "memory":
            connection.send(embed_fastembed.most_memory())
            continue
        began = time.perf_counter()
        connection.send(work(files) / (time.perf_counter() - began))


@contextmanager
def _process(*arguments: Any) -> Iterator[Connection]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, *arguments))
    process.start()
    theirs.close()  # so that its end is seen here
    try:
        yield ours
    finally:
        with suppress(OSError):  # it may have ended
            ours.send(None)
        process.join(20)


@contextmanager
def _fastembed(python: str, name: str, files: list[Path]) -> Iterator[Callable[[str], float]]:
    """A function that asks fastembed, with this model's weights; its vectors are checked first."""
    import clever_hub

    loaded = clever_hub.from_pretrained(name, backend="onnx")
    assert loaded.source is not None
    with tempfile.TemporaryDirectory() as temporary:
        folder, listed, vectors = (Path(temporary) / part for part in ("model", "files", "v.npy"))
        embed_fastembed.prepare(loaded.source.path, folder)
        command = [python, str(Path(__file__).with_name("embed_fastembed.py")), str(folder)]
        listed.write_text("\n".join(str(file.absolute()) for file in files), encoding="utf-8")
        with subprocess.Popen(
            [*command, str(listed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            requests, answers = process.stdin, process.stdout
            assert requests is not None
            assert answers is not None

            def ask(what: str) -> float:
                print(what, file=requests, flush=True)
                if not (line := answers.readline()):
                    raise RuntimeError(f"{python}: fastembed has ended, see above")
                return float(line)

            ask(f"vectors {vectors}")
            # It takes the graph's first output, the invariant part; its crops are a pixel apart.
            ours, theirs = loaded.encode(files[:64]).invariant, np.load(vectors)[:64]
            lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
            if (worst := float(((ours * theirs).sum(axis=1) / lengths).min())) < 0.98:
                raise RuntimeError(f"fastembed gives other vectors: cosine {worst:.4f}")
            yield ask
            requests.close()


def embed_speed(
    name: str, files: list[Path], rounds: int, fastembed: str | None
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Photos/s of each setting in each round, from file to vector; and the most bytes in memory."""
    asking: dict[str, Callable[[], float]] = {}
    memory: dict[str, Callable[[], float]] = {}
    # The variant is made before: else its making would count as the memory of embedding.
    with _process(name, {"precision": "int8"}, files[:1]) as connection:
        _ask(connection, "memory")
    with ExitStack() as stack:
        for setting, options in SETTINGS.items():
            connection = stack.enter_context(_process(name, options, files))
            asking[setting] = partial(_ask, connection, "files")
            memory[setting] = partial(_ask, connection, "memory")
        if fastembed:
            ask = stack.enter_context(_fastembed(fastembed, name, files))
            asking[FASTEMBED] = partial(ask, "files")
            if len(files) >= 256:  # its processes need some batches each
                asking[WORKERS] = partial(ask, "workers")
            memory[FASTEMBED] = partial(ask, "memory")
        found: dict[str, list[float]] = {setting: [] for setting in asking}
        for _ in range(rounds):
            for setting, one in list(asking.items()):
                try:
                    found[setting].append(one())
                except (EOFError, OSError):  # its process has ended and has said why
                    del asking[setting], memory[setting], found[setting]
                    continue
                print(name, setting, f"{found[setting][-1]:.0f}/s", file=sys.stderr)
        return found, {setting: one() for setting, one in memory.items()}


def _ask(connection: Connection, what: str) -> float:
    connection.send(what)
    return float(connection.recv())


def _ratio(found: dict[str, list[float]], setting: str, to: str) -> float:
    return median(a / b for a, b in zip(found[setting], found[to], strict=True))


def _report_decode(options: argparse.Namespace, photos: list[Path]) -> Iterator[str]:
    yield "| photos | size | decode and resize, × exact | invariant: min, median | equivariant |"
    yield " same nearest photo, each part |\n|---|---:|---:|---:|---:|---:|\n"
    with tempfile.TemporaryDirectory() as folder:
        large = mosaics(photos, Path(folder), options.large)
        for what, files, size in (
            (f"{len(large)} of 12 megapixels", large, 128),
            (f"{len(large)} of 12 megapixels", large, 224),
            (f"{len(photos)} of about 500 × 375", photos, 64),
            (f"{len(photos)} of about 500 × 375", photos, 72),
        ):
            speed = median(decode_speed(files[: options.timed], size, options.rounds))
            near = decode_fidelity(options.models[0], files, size)
            cosines = [f"{low:.4f}, {middle:.4f}" for low, middle, _ in near.values()]
            same = ", ".join(f"{share:.0%}" for _, _, share in near.values())
            print(what, size, f"{speed:.1f}", cosines, same, file=sys.stderr)
            yield f"| {what} | {size} px | {speed:.1f} | {' | '.join(cosines)} | {same} |\n"


def run(options: argparse.Namespace, photos: list[Path]) -> str:
    """Measure everything; the section as Markdown."""
    load = os.getloadavg()[0]
    lines = [
        "## Embedding many photos\n\n",
        f"`python benchmarks/embed.py {_options(options)}`; ",
        f"{machine('onnxruntime', 'torch', 'pillow')}. ",
        f"{available_cores()} cores, load {load:.0f} at the start; ",
        "medians of ratios in a round.\n\n",
        f"Reduced decoding against exact, one core, cosines by {options.models[0]}:\n\n",
        *_report_decode(options, photos),
    ]
    files = photos * options.copies
    for name in options.models:
        found, memory = embed_speed(name, files, options.rounds, options.fastembed)
        lines.append(f"\n{name}, {len(files)} photos of about 500 × 375, file to vector:\n\n")
        beside = FASTEMBED in found
        head = "| setting | photos/s | × the defaults |" + f" × {FASTEMBED} |" * beside
        lines.append(f"{head} most memory, MB |\n|---|{'---:|' * (3 + beside)}\n")
        for setting, rates in found.items():
            ratios = [_ratio(found, setting, "defaults")]
            ratios += [_ratio(found, setting, FASTEMBED)] * beside
            cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            most = f"{memory[setting] / 1e6:.0f}" if setting in memory else "–"
            lines.append(f"| {setting} | {median(rates):.0f} | {cells} | {most} |\n")
        lines.append(_best(found))
        if refused := [setting for setting in SETTINGS if setting not in found]:
            lines.append(f"Left out, since {name} does not load so: {'; '.join(refused)}.\n")
    return "".join(lines)


def _best(found: dict[str, list[float]]) -> str:
    """The defaults against the best other setting that gives the same vectors."""
    same = [name for name in found if name.startswith(("onnx", "torch"))]
    best = max(same, key=lambda name: median(found[name]))
    ratio = _ratio(found, "defaults", best)
    return f"\nThe defaults have {ratio:.0%} of the best other setting ({best}); aim: 90 %.\n"


def _options(options: argparse.Namespace) -> str:
    """The options of this run as they are typed."""
    words = (
        f"--{name} {getattr(options, name)}" for name in ("rounds", "large", "timed", "copies")
    )
    fastembed = " --fastembed VENV/bin/python" if options.fastembed else ""
    return f"PHOTOS {' '.join(words)} --models {' '.join(options.models)}{fastembed}"


def main() -> None:
    """Measure, print, and write the section of ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("--out", type=Path, help="Markdown file whose section is replaced")
    parser.add_argument(
        "--models", nargs="+", default=["clever-resnet50", "clever-efficientnet-lite0"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=24, help="photos of 12 megapixels")
    parser.add_argument("--timed", type=int, default=12, help="photos to time decoding with")
    parser.add_argument("--copies", type=int, default=4, help="passes over the folder in a turn")
    parser.add_argument("--fastembed", metavar="PYTHON", help="an interpreter that has fastembed")
    options = parser.parse_args()
    photos = sorted(p for p in options.photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    text = run(options, photos)
    print(text)
    if options.out:
        write_section(options.out, "embed", text)


if __name__ == "__main__":
    main()
