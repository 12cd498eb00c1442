"""fastembed beside ``embed.py``: runs under an interpreter of its own, which has fastembed alone.

    python -m venv VENV && VENV/bin/pip install fastembed onnxruntime==OURS
    python benchmarks/embed.py PHOTOS --fastembed VENV/bin/python

``prepare`` makes a folder that fastembed reads: our graph and weights, and preprocessing as CLIP
writes it. As a program it reads one request a line and answers with one number a line: ``files``
gives photos/s, ``workers`` the same in as many processes as there are cores, from the first vector
on, so that their start does not count, ``memory`` the most
bytes it had in memory, workers apart, ``vectors PATH`` writes the photos' vectors to a .npy file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

# fastembed knows how to read a model by a name of its own; this one's is a ResNet-50 as well.
KNOWN_AS = "Qdrant/resnet50-onnx"


def prepare(model: Path, folder: Path) -> None:
    """Copy a model folder's graph and weights, with CLIP's form of its preprocessing.

    Args:
        model: The model folder.
        folder: The new one.
    """
    folder.mkdir()
    for name in ("model.onnx", "model.safetensors", "config.json"):
        shutil.copy(model / name, folder / name)
    ours = json.loads((model / "preprocessor_config.json").read_text(encoding="utf-8"))
    side = ours["crop_size"]
    theirs = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": ours["resize_size"]},
        "resample": {"bilinear": 2, "bicubic": 3}[ours["interpolation"]],
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": ours["mean"],
        "image_std": ours["std"],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(theirs), encoding="utf-8")


def most_memory() -> int:
    """The most bytes this process had in memory; getrusage also counts those of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def main() -> None:
    """Load the folder, then answer requests until the input ends."""
    import numpy as np
    from fastembed import ImageEmbedding

    folder, listed = sys.argv[1:]
    files = Path(listed).read_text(encoding="utf-8").splitlines()
    cores = len(os.sched_getaffinity(0))
    model = ImageEmbedding(KNOWN_AS, specific_model_path=folder, threads=cores)
    for line in sys.stdin:
        what, _, target = line.strip().partition(" ")
        began = time.perf_counter()
        if what == "memory":
            print(most_memory(), flush=True)
            continue
        if what == "vectors":
            np.save(target, np.stack(list(model.embed(files))))
            print(len(files), flush=True)
            continue
        parallel = cores if what == "workers" else None
        answers = iter(model.embed(files, batch_size=32, parallel=parallel))
        if what == "workers":
            next(answers)
            began = time.perf_counter()
        count = sum(1 for _ in answers)
        print(count / (time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
