"""What the second core of a processor adds to one run, and what small maps cost.

    python benchmarks/processes.py --out benchmarks/RESULTS.md

``Learner.step`` of the zoo's recipe, two views in memory, as ``torchrun`` starts it with one
process and with two, each of one thread; the batch is the same. Beside it one process with torch's
own convolutions: what ``small_maps`` spares. The settings take turns, so that all meet the
same machine; the median step of all rounds is compared. The machine must have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from results import machine, write_section

from clever_training.data.loader import Batch
from clever_training.recipe.schema import Recipe
from clever_training.run import learner
from clever_training.run.learner import Learner, make_accelerator
from clever_training.run.schedule import StepSettings
from clever_training.runtime.memory import keep_freed_memory

SETTINGS = StepSettings(1e-4, 0.05, 0.996, 0.04, freeze_last_layer=False)
MODELS = (("resnet18", 48), ("resnet50", 32))
WARM = 2
KINDS = {"one": (1, False), "two": (2, False), "plain": (1, True)}


def steps(architecture: str, size: int, batch: int, count: int, plain: bool) -> list[float]:
    """Seconds of some steps after the first ones, in which memory and buckets find their size.

    Args:
        architecture: timm's name.
        size: Side of the views in pixels.
        batch: Photos in a step, over all processes.
        count: How many steps.
        plain: Leave the convolutions as torch has them.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    if plain:
        learner.speed_up_small_maps = lambda module: module
    recipe = Recipe.parse(
        {
            "name": "benchmark",
            "backbone": architecture,
            "method": {"name": "clever-vicreg", "objective_args": {"dim": 1024}},
            "views": {"global_size": size},
            "run": {"batch_size": batch},
        }
    )
    accelerator = make_accelerator(recipe)
    running = Learner(recipe, accelerator)
    running.prepare()
    share = batch // accelerator.num_processes
    generator = torch.Generator().manual_seed(accelerator.process_index)
    pixels = torch.randint(0, 256, (2 * share, size, size, 3), generator=generator).byte()
    views = Batch([pixels], torch.zeros(share, 2, 14), share)
    taken = []
    for step in range(WARM + count):
        start = time.perf_counter()
        running.step(step, 0.0, views, SETTINGS)
        taken.append(time.perf_counter() - start)
    return taken[WARM:]


def started(kind: str, architecture: str, size: int, options: argparse.Namespace) -> list[float]:
    """The same in processes of their own, as a run has them."""
    processes, plain = KINDS[kind]
    settings = [architecture, size, options.batch, options.steps, int(plain)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), __file__, "--inside", json.dumps(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    times: list[float] = json.loads(found.stdout.splitlines()[-1])
    return times


def measure(options: argparse.Namespace) -> str:
    """All settings in turn; a table in Markdown."""
    taken: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _ in range(options.rounds):
        for architecture, size in MODELS:
            for kind in KINDS:
                taken[architecture, size, kind] += started(kind, architecture, size, options)
    lines = [
        (
            f"CLeVER over VICReg, 2 views, batch {options.batch}, one thread a process; median of "
            f"{options.rounds} rounds of {options.steps} steps:\n"
        ),
        "| model | one process, photos/s | two processes, ratio | torch's convolutions, ratio |",
        "|---|---:|---:|---:|",
    ]
    for architecture, size in MODELS:
        one, two, plain = (median(taken[architecture, size, kind]) for kind in KINDS)
        lines.append(
            f"| {architecture}, {size} px | {options.batch / one:.0f} | {one / two:.2f} "
            f"| {one / plain:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=256, help="photos in a step")
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed in a round")
    parser.add_argument("--rounds", type=int, default=2, help="turns of every setting")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        *settings, plain = json.loads(options.inside)
        times = steps(*settings, plain=bool(plain))
        if not dist.is_initialized() or dist.get_rank() == 0:
            print(json.dumps(times))
        return
    text = measure(options)
    print(text)
    if options.out:
        title = "## One run on two cores\n\n"
        about = machine("torch", "timm", "accelerate")
        command = "`python benchmarks/processes.py`"
        write_section(options.out, "processes", f"{title}{command}; {about}.\n\n{text}")


if __name__ == "__main__":
    main()
