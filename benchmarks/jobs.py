"""What the jobs are worth, next to what a user would pick: one command each.

    python benchmarks/jobs.py relate DATA --model MODEL --out benchmarks/RESULTS.md
    python benchmarks/jobs.py recolouring DATA --model MODEL
    python benchmarks/jobs.py orient DATA --model MODEL --plain PLAIN

DATA has the folders photos-224, imagenet-photos and tiny-imagenet-100. MODEL is a model with heads
that were not fitted to or calibrated on photos-224/validation; PLAIN the network that it was made
of. Each job is a file in ``benchmarks/jobs/`` with a function ``main(arguments)``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def jobs() -> dict[str, str]:
    """The module of each job: those files of the folder that have a ``JOB``."""
    folder = Path(__file__).parent / "jobs"
    found = {}
    for path in sorted(folder.glob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("JOB = "):
                found[line.removeprefix("JOB = ").strip('"')] = f"jobs.{path.stem}"
    return found


def main() -> None:
    """Run the job that the first argument names."""
    known = jobs()
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        print(f"{__doc__}\nJobs: {', '.join(known)}")
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    importlib.import_module(known[sys.argv[1]]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
