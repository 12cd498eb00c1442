"""What ``import clever_hub`` costs, as a ratio to ``import numpy, PIL.Image`` in the same run.

    python benchmarks/import_time.py

Each statement is imported by fresh interpreters, in turns, so that both meet the same machine; the
interpreter's own start is taken off. The aim is a ratio of at most 1.5.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PLAIN = "pass"
REFERENCE = "import numpy, PIL.Image"
CANDIDATES = {
    "import clever_hub": "import clever_hub",
    "… and look up from_pretrained": "import clever_hub; clever_hub.from_pretrained",
    "… and list_models()": "import clever_hub; clever_hub.list_models()",
    "… and an Embeddings (numpy)": "import clever_hub; clever_hub.Embeddings",
}


def seconds(statement: str) -> float:
    """Wall time of a fresh interpreter that runs a statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="interpreters for each statement")
    rounds = parser.parse_args().rounds
    statements = [PLAIN, REFERENCE, *CANDIDATES.values()]
    taken: dict[str, list[float]] = {statement: [] for statement in statements}
    for statement in statements:
        seconds(statement)  # fills the file cache
    for _ in range(rounds):
        for statement in statements:
            taken[statement].append(seconds(statement))
    median = {statement: statistics.median(times) for statement, times in taken.items()}
    reference = median[REFERENCE] - median[PLAIN]
    print(f"Median of {rounds} fresh interpreters, relative to `{REFERENCE}`:\n")
    print("| statement | ratio |\n|---|---:|")
    for label, statement in CANDIDATES.items():
        print(f"| {label} | {(median[statement] - median[PLAIN]) / reference:.2f} |")


if __name__ == "__main__":
    main()
