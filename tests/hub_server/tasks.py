"""What tests let a ``Client`` do, beyond functions that are there already."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


def upload(repo_id: str, folder: str, tag: str | None = None) -> str:
    """Upload a folder as any user of the client would; returns the commit."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, exist_ok=True)
    commit = api.upload_folder(repo_id=repo_id, folder_path=folder)
    if tag:
        api.create_tag(repo_id, tag=tag)
    return str(commit.oid)


def push_to_hub(folder: str, repo_id: str) -> None:
    """What transformers' own ``push_to_hub`` makes of a model folder."""
    from transformers import AutoImageProcessor, AutoModel

    import clever_hub.transformers  # noqa: F401 -- registers the classes

    processor: Any = AutoImageProcessor
    AutoModel.from_pretrained(folder).push_to_hub(repo_id)
    processor.from_pretrained(folder).push_to_hub(repo_id)


def push(folder: str, repo_id: str, **options: Any) -> dict[str, Any]:
    """``clever_export.push.push``; what was published."""
    from clever_export.push import push as run

    return asdict(run(folder, repo_id, **options))


def limit_file_size(size: int) -> None:
    """From now on no file of this process gets larger, as with a full disk; 0 lifts it."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size or hard, hard))


def embed(name: str, images: list[str], **options: Any) -> dict[str, Any]:
    """Load a model, embed images; the vectors and where the model came from."""
    import clever_hub

    model = clever_hub.from_pretrained(name, **options)
    assert model.source is not None
    return {
        "full": model.encode(images).full.tolist(),
        "source": model.source._asdict(),
        "torch": "torch" in sys.modules,
    }


def embed_with_transformers(repo_id: str, images: list[str], revision: str) -> list[list[float]]:
    """The vectors of transformers with the repository's own code, clever-hub not installed."""
    block("clever_hub")
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    where = {"revision": revision, "trust_remote_code": True}
    processor: Any = AutoImageProcessor
    prepare = processor.from_pretrained(repo_id, **where)
    model = AutoModel.from_pretrained(repo_id, **where).eval()
    with torch.inference_mode():
        output = model(**prepare([Image.open(path) for path in images], return_tensors="pt"))
    vectors: list[list[float]] = output.pooler_output.tolist()
    return vectors


def embed_with_timm(repo_id: str, pixels: str, revision: str) -> list[list[float]]:
    """The vectors of timm alone, for an ``.npy`` file of prepared images."""
    block("clever_hub")
    import numpy as np
    import timm
    import torch

    backbone = timm.create_model(f"hf-hub:{repo_id}@{revision}", pretrained=True, num_classes=0)
    with torch.inference_mode():
        vectors: list[list[float]] = backbone.eval()(torch.from_numpy(np.load(pixels))).tolist()
    return vectors


def run_snippets(card: str, photo: str) -> list[list[float]]:
    """Run each snippet of a model card as it stands, beside photo.jpg; the vector of each."""
    Path("photo.jpg").symlink_to(photo)
    found = []
    for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        names: dict[str, Any] = {}
        exec(code, names)
        if "e" in names:
            vectors: Any = names["e"].full
        else:
            vectors = names["output"].pooler_output if "output" in names else names["full"]
        found.append(vectors[0].tolist())
    return found


def block(module: str) -> None:
    """From now on this process cannot import it."""
    sys.modules[module] = None  # type: ignore[assignment]


def command(*arguments: str) -> int:
    """Run ``clever-hub``; returns the exit code."""
    from clever_hub.cli.app import app

    try:
        app(list(arguments))
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0
