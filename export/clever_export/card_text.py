"""The fixed words of the model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

METHOD = """\
## What it is

CLeVER (Contrastive Learning Via Equivariant Representation) splits the embedding. A contrastive
objective makes the **invariant** part, the first 80 %, agree over augmentations. An orthogonality
loss pushes the **equivariant** part of two views apart, so that it can hold what the first part
throws away, and a regularisation keeps the two heads alike.
"""

CITATION = """\
```bibtex
@article{song2024clever,
  title   = {Contrastive Learning Via Equivariant Representation},
  author  = {Song, Sifan and others},
  journal = {arXiv preprint arXiv:2406.00262},
  year    = {2024}
}
```
"""

# Title, the file that the reader needs, code. {where} is the repository on the Hub; before there is
# one, {name} is the model's name and FOLDER stands for a copy of the folder.
SNIPPETS = (
    (
        'With clever-hub, `pip install "clever-hub[torch]"`:',
        "model.safetensors",
        """\
import clever_hub

model = clever_hub.from_pretrained("{name}")
e = model.encode("photo.jpg")
e.invariant, e.equivariant, e.full  # float32 arrays, one row per image""",
    ),
    (
        'ONNX Runtime, without torch, `pip install "clever-hub[onnx]"`:',
        "model.onnx",
        """\
import clever_hub

model = clever_hub.from_pretrained("{name}", backend="onnx")
e = model.encode("photo.jpg")""",
    ),
    (
        "transformers, without clever-hub (`trust_remote_code` runs the three `.py` files here):",
        "modeling_clever.py",
        """\
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("{where}", trust_remote_code=True)
model = AutoModel.from_pretrained("{where}", trust_remote_code=True)
output = model(**processor(Image.open("photo.jpg"), return_tensors="pt"))
output.invariant, output.equivariant, output.pooler_output  # the last is both""",
    ),
    (
        "timm (`pretrained=True` is needed, or the weights stay random):",
        "config.json",
        """\
import timm
from PIL import Image

backbone = timm.create_model("{timm}", pretrained=True, num_classes=0).eval()
settings = timm.data.resolve_model_data_config(backbone)
prepare = timm.data.create_transform(**settings)
full = backbone(prepare(Image.open("photo.jpg").convert("RGB"))[None])
full[:, :{split}], full[:, {split}:]  # invariant, equivariant""",
    ),
)


def started_from(provenance: Mapping[str, Any]) -> str | None:
    """What the weights were before this training, if they were not random.

    Args:
        provenance: The config's.

    Returns:
        The name of a model; of a folder its name alone, for its place is nobody else's.

    Example:
        >>> started_from({"recipe": {"backbone": {"init": "/home/me/runs/first/model"}}})
        'first'
    """
    recipe = provenance.get("recipe") or {}
    init = provenance.get("started_from") or recipe.get("backbone", {}).get("init")
    if not init or init == "random":
        return None
    if init == "timm":
        return "timm's pretrained weights"
    parts = [part for part in re.split(r"[/\\\\]", str(init)) if part not in ("", "model")]
    return parts[-1] if re.match(r"[/\\\\~.]|\w:", str(init)) and parts else str(init)


def recipe_line(provenance: Mapping[str, Any]) -> str:
    """The recipe in a sentence.

    Args:
        provenance: The config's, with a recipe in it.

    Returns:
        Markdown.
    """
    recipe = provenance["recipe"]
    views, run, optimizer = recipe["views"], recipe["run"], recipe["optimizer"]
    sizes = sorted({views["global_size"], *(step["global_size"] for step in views["growth"])})
    local = f" and {views['local_count']} local" if views["local_count"] else ""
    return (
        f"{provenance.get('method', 'method not recorded')}, views `{views['strategy']}` "
        f"({views['global_count']} global{local}, "
        f"{' then '.join(str(size) for size in sizes)} pixels), {optimizer['name']} at "
        f"{optimizer['lr']:g} per 256 photos, batch {run['batch_size']}, "
        f"{provenance['epochs']:g} of {run['epochs']} planned epochs."
    )
