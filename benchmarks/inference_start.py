"""Seconds from process start to the first vector, by each route to it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

# Each prints when it has the vector: what comes after, such as tearing torch down, is not counted.
ROUTES = {
    "transformers": """
        import clever_hub, clever_hub.transformers, torch
        from transformers import AutoImageProcessor, AutoModel
        torch.set_num_threads({threads})
        prepare = AutoImageProcessor.from_pretrained({folder!r})
        model = AutoModel.from_pretrained({folder!r})
        with torch.inference_mode():
            inputs = prepare(clever_hub.load_image({photo!r}), return_tensors="pt")
            vector = model(**inputs).pooler_output
        print(vector.shape)""",
    "timm": """
        import timm, torch
        from PIL import Image
        torch.set_num_threads({threads})
        model = timm.create_model("local-dir:" + {folder!r}, pretrained=True, num_classes=0).eval()
        prepare = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
        with torch.inference_mode():
            vector = model(prepare(Image.open({photo!r}).convert("RGB"))[None])
        print(vector.shape)""",
    "clever_hub torch": """
        import clever_hub
        print(clever_hub.from_pretrained({folder!r}).encode({photo!r}).full.shape)""",
    "clever_hub onnx": """
        import clever_hub
        model = clever_hub.from_pretrained({folder!r}, backend="onnx", threads={threads})
        print(model.encode({photo!r}).full.shape)""",
}


def first_vectors(folder: Path, photo: Path, rounds: int, threads: int) -> dict[str, list[float]]:
    """Start fresh interpreters, by turns.

    Args:
        folder: A complete model folder.
        photo: The image file.
        rounds: How many turns.
        threads: For every route.

    Returns:
        Seconds for each round, by route. The first round, which fills the file cache, is left out.
    """
    taken: dict[str, list[float]] = {route: [] for route in ROUTES}
    for number in range(rounds + 1):
        for route, code in ROUTES.items():
            text = code.format(folder=str(folder), photo=str(photo), threads=threads)
            elapsed = _seconds("\n".join(line[8:] for line in text.splitlines()))
            if number:
                taken[route].append(elapsed)
    return taken


def _seconds(code: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed = time.perf_counter() - start
        _, errors = process.communicate()
    if "(1, " not in line and "[1, " not in line:
        raise RuntimeError(f"no vector came: {line}{errors}")
    return elapsed
