"""The server against ``encode`` in one process, on the same cores, in turns.

    python benchmarks/serve.py ../shared/data/imagenet-photos --out benchmarks/RESULTS.md

Throughput of 32 clients as a share of ``encode``'s, median over rounds; the 99th percentile of the
latency at half of that load, in times of a lone request; then ten times the load for a minute:
answers lost, crossed and late, memory, and how soon a lone request is fast again. The clients run
on the same cores and take their share of them. Run it when nothing else runs. ``--quick`` shows
that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from PIL import Image
from results import machine, write_section
from serve_load import Connection, Load, Shot, closed_loop, fire, open_loop, shots

import clever_hub
from clever_hub.threads import available_cores

CLIENTS = 32


@dataclass
class Figures:
    """What was measured of a model.

    Attributes:
        encode: Images a second of ``encode``, by round.
        serve: Images a second of the server, by round.
        processor: Seconds of processor time of an image, by round: of ``encode``, of the server, of
            its clients.
        alone: Seconds of lone requests.
        half: At half of the load.
        overload: At ten times the load.
        offered: Requests a second of that.
        recovery: Seconds from its end until a lone request is as fast as before, within a factor 2.
        memory: Resident bytes: idle after the throughput, most in the first and in the second half
            of the overload, after it.
    """

    encode: list[float] = field(default_factory=list)
    serve: list[float] = field(default_factory=list)
    processor: tuple[list[float], ...] = field(default_factory=lambda: ([], [], []))
    alone: Load = field(default_factory=Load)
    half: Load = field(default_factory=Load)
    overload: Load = field(default_factory=Load)
    offered: float = 0.0
    recovery: float = 0.0
    memory: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def share(self) -> float:
        """The server's throughput as a share of ``encode``'s."""
        return median(s / e for s, e in zip(self.serve, self.encode, strict=True))


@contextmanager
def server(model: str, threads: int) -> Iterator[tuple[int, int]]:
    """A server; its port and process id."""
    verb = "from clever_hub.cli.app import main; main()"
    command = [sys.executable, "-c", verb, "serve", model, "--port", "0"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--threads", str(threads), "--log-level", "info"],
            stderr=log,
            stdout=log,
        )
        try:
            yield _port(log, process), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(60) not in (0, -signal.SIGTERM):
                log.seek(0)
                raise RuntimeError(
                    f"the server ended with {process.returncode}: {log.read()[-2000:]}"
                )


def _port(log: Any, process: subprocess.Popen[bytes]) -> int:
    for _ in range(600):
        time.sleep(0.1)
        log.seek(0)
        for line in log.read().splitlines():
            if '"serving"' in line:
                return int(json.loads(line)["url"].rpartition(":")[2])
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"the server did not start: {log.read()}")
    raise RuntimeError("the server did not start within a minute")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _processor(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, photos: Sequence[bytes], options: argparse.Namespace) -> Figures:
    """Measure a model."""
    figures = Figures()
    model = clever_hub.from_pretrained(name, backend="onnx", threads=options.threads)
    vectors = model.encode(photos).full
    prepared = shots(photos, vectors, name)
    many = [photos[index % len(photos)] for index in range(options.images)]
    with server(name, options.threads) as (port, pid):
        run = _Runs(port)
        run(closed_loop(port, prepared, CLIENTS, options.seconds / 2))  # warm
        model.encode(many[: 2 * len(photos)])
        for index in range(options.rounds):
            print(f"{name}: round {index + 1} of {options.rounds}", file=sys.stderr)
            start, used = time.perf_counter(), time.process_time()
            model.encode(many)
            figures.encode.append(len(many) / (time.perf_counter() - start))
            figures.processor[0].append((time.process_time() - used) / len(many))
            used, theirs = time.process_time(), _processor(pid)
            load = run(closed_loop(port, prepared, CLIENTS, options.seconds))
            _check(load)
            figures.serve.append(load.rate)
            figures.processor[1].append((_processor(pid) - theirs) / len(load.latencies))
            figures.processor[2].append((time.process_time() - used) / len(load.latencies))
        capacity = median(figures.serve)
        print(f"{name}: alone, half load, overload", file=sys.stderr)
        figures.alone = run(closed_loop(port, prepared, 1, options.seconds))
        figures.half = run(open_loop(port, prepared, capacity / 2, 2 * options.seconds))
        _check(figures.half)
        _overload(figures, run, prepared, capacity, options.overload, pid)
    return figures


class _Runs:
    """Runs coroutines on uvloop: the clients should take little of the cores."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, work: Any) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)


def _check(load: Load) -> None:
    if load.crossed or load.lost or set(load.statuses) != {200}:
        raise RuntimeError(f"expected answers alone, got {load.statuses}, {load.crossed} crossed")


def _overload(
    figures: Figures, run: _Runs, prepared: Sequence[Shot], rate: float, seconds: float, pid: int
) -> None:
    """Ten times the load, then a lone client until it is answered as fast as before."""
    usual = figures.alone.quantile(0.5)
    before, seen = _resident(pid), list[int]()

    async def work() -> float:
        async def watch() -> None:
            while True:
                seen.append(_resident(pid))
                await asyncio.sleep(0.5)

        watching = asyncio.create_task(watch())
        figures.overload = await open_loop(run.port, prepared, 10 * rate, seconds)
        watching.cancel()
        end, connection, quick = time.perf_counter(), Connection(run.port), 0
        start = end
        while quick < 3:  # in a row
            load = Load()
            start = time.perf_counter()
            await fire(connection, prepared[0], load)
            quick = quick + 1 if load.latencies and load.latencies[0] < 2 * usual else 0
            if start - end > 30:
                return float("inf")
        connection.close()
        return start - end

    figures.recovery = run(work())
    sent = sum(figures.overload.statuses.values()) + figures.overload.lost
    figures.offered = sent / seconds
    half = len(seen) // 2
    peaks = max(seen[:half], default=0), max(seen[half:], default=0)
    figures.memory = (before, *peaks, _resident(pid))


def report(all_figures: dict[str, Figures], options: argparse.Namespace) -> str:
    """The section, Markdown."""
    command = f"python benchmarks/serve.py PHOTOS --models {' '.join(all_figures)}"
    command += f" --rounds {options.rounds} --overload {options.overload:g}"
    packages = machine("onnxruntime", "starlette", "uvicorn", "pillow")
    sizes = [Image.open(path).size for path in sorted(options.photos.glob("*.JPEG"))]
    width, height = (median(side) for side in zip(*sizes, strict=True))
    about = (
        f"Photos of {width:g} × {height:g} px in the median, base64 in JSON both ways; the clients "
        "run on the same cores. "
        f"Medians of {options.rounds} rounds in which `encode` and the server take turns."
    )
    tables = "\n\n".join(_table(name, figures) for name, figures in all_figures.items())
    return f"""## The server

`{command}`, {options.threads} threads. {packages}.

{about}

{tables}"""


def _table(name: str, f: Figures) -> str:
    over, seen = f.overload, f.overload.statuses
    other = sum(seen.values()) - seen[200] - seen[503]
    megabytes = " / ".join(f"{size / 1e6:.0f}" for size in f.memory)
    times = f.half.quantile(0.99) / f.alone.quantile(0.5)
    most = max(over.latencies, default=0.0)
    rows = [
        ("`encode`, batch 32, images/s", f"{median(f.encode):.0f}", ""),
        (f"server, {CLIENTS} clients, images/s", f"{median(f.serve):.0f}", ""),
        ("share of `encode`", f"{f.share:.0%}", "≥ 85 %"),
        (
            "processor time of an image, `encode` / server / clients, ms",
            " / ".join(f"{1e3 * median(times):.2f}" for times in f.processor),
            "",
        ),
        ("a lone request, median / p99, ms", _milliseconds(f.alone), ""),
        ("half load, median / p99, ms", _milliseconds(f.half), ""),
        ("p99 at half load, times a lone request's median", f"{times:.1f}", "≤ 3"),
        ("overload, requests/s", f"{f.offered:.0f} ({f.offered / median(f.serve):.1f} ×)", "10 ×"),
        ("answered / 503 / other", f"{seen[200]} / {seen[503]} / {other}", "none other"),
        ("lost / crossed", f"{over.lost} / {over.crossed}", "0 / 0"),
        ("answered within, p99 / longest, s", f"{over.quantile(0.99):.2f} / {most:.2f}", "≤ 30"),
        ("memory before / 1st half / 2nd half / after, MB", megabytes, "flat"),
        ("a lone request is fast again after, s", f"{f.recovery:.2f}", "≤ 1"),
    ]
    lines = [f"| {what} | {value} | {aim} |" for what, value, aim in rows]
    return "\n".join([f"### {name}", "", "| | | aim |", "|---|---:|---:|", *lines])


def _milliseconds(load: Load) -> str:
    return f"{1e3 * load.quantile(0.5):.1f} / {1e3 * load.quantile(0.99):.1f}"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, help="folder of JPEG files")
    parser.add_argument("--out", type=Path, help="Markdown file whose section is replaced")
    parser.add_argument("--models", nargs="+", default=["clever-resnet18", "clever-resnet50"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of a turn")
    parser.add_argument("--images", type=int, default=2_000, help="images of a turn of encode")
    parser.add_argument(
        "--overload", type=float, default=60.0, help="seconds of ten times the load"
    )
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--quick", action="store_true", help="one short round")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.images, options.overload = 1, 2.0, 300, 5.0
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.JPEG"))]
    if not photos:
        parser.error(f"{options.photos}: no JPEG files")
    if (busy := os.getloadavg()[0]) > 0.7:
        print(f"The machine is busy (load {busy:.1f}): the figures will suffer.", file=sys.stderr)
    text = report({name: measure(name, photos, options) for name in options.models}, options)
    print(text)
    if options.out:
        write_section(options.out, "serve", text)


if __name__ == "__main__":
    main()
