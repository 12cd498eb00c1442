"""The fixed words of the model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_CLEVER = """\
[CLeVER](https://arxiv.org/abs/2406.00262) (Contrastive Learning Via Equivariant Representation)
splits the embedding in two. {objective}, trained without labels, makes the **invariant** part, the
first {invariant} of {dim} dimensions, agree over augmentations: turns, crops, colours. An
orthogonality loss pushes the **equivariant** part of two views, the other {equivariant} dimensions,
apart, so that it can hold what the first part throws away{regularisation}.
"""
_REGULARISATION = """; a regularisation keeps the two heads of
the training alike"""
_PLUS = """
Not in the paper: the training also predicted, from the equivariant parts of two views, how one was
transformed into the other, and from each how its own view was turned.
"""
_PLAIN = """\
A baseline, not [CLeVER](https://arxiv.org/abs/2406.00262): {objective} alone, trained without
labels, on the whole embedding. Readers cut it as they cut a CLeVER model, in {invariant} and
{equivariant} dimensions; the training made no difference between the two.
"""
_IMPORTED = """\
Published weights, not trained here and not changed: from {source}, read from `{file}` (SHA-256
`{sha256}`), whose layout is that of {layout}. Only the names of the tensors were changed. {parts}
"""
_IMPORTED_WHOLE = """\
The embedding has no equivariant part: all {dim} dimensions count as invariant, though the training
did not aim at that."""
_IMPORTED_SPLIT = """\
Readers cut the embedding in {invariant} invariant and {equivariant} equivariant dimensions."""
_OBJECTIVES = {
    "dino": "DINO",
    "vicreg": "VICReg",
    "simclr": "SimCLR",
    "simsiam": "SimSiam",
    "lejepa": "LeJEPA",
    "ddcl": "DDCL",
}

# What the tables' words mean, before the first of them.
READING = """\
Upright photos that are compared with turned ones are seen as these are, through a round mask in the
middle (*disc mask*): the corners of a turned photo would give the turn away. *After centring*: the
mean embedding of the training photos has been taken off. ± is the deviation over {seeds} seeds,
0 where nothing is drawn; without it, a figure is of one seed."""

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
        "transformers, without clever-hub (`trust_remote_code` runs the {files} `.py` files here):",
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

backbone = timm.create_model("{timm}", pretrained=True{timm_classes}).eval()
settings = timm.data.resolve_model_data_config(backbone)
prepare = timm.data.create_transform(**settings)
full = backbone(prepare(Image.open("photo.jpg").convert("RGB"))[None])
full[:, :{split}], full[:, {split}:]  # invariant, equivariant""",
    ),
)

AGAIN = """\
The whole recipe is in `config.json`. To train again on photos of yours (a folder, a parquet file or
a data set of the Hub), with `pip install "clever-hub[train]"`:

```sh
{fetch}python -c "import json
config = json.load(open('config.json'))
json.dump(config['provenance']['recipe'], open('recipe.yaml', 'w'))"
clever-hub pretrain recipe.yaml --data PHOTOS --out again
```"""
# For a model that started from another: the recipe has the other's name, which may refer to a
# later version by now.
AGAIN_FROM = """

This was the last of several stages: the recipe begins from `{start}` as it was before (SHA-256 of
its weights {sha256}…). `--set backbone.init=FOLDER` begins from another model, `--set
backbone.init=random` anew."""


def method_name(method: str) -> str:
    """A method in words.

    Args:
        method: Such as ``"clever-vicreg"``.

    Returns:
        Markdown; an unknown method is given unchanged.

    Example:
        >>> method_name("clever-vicreg"), method_name("mine")
        ('CLeVER over VICReg (`clever-vicreg`)', 'mine')
    """
    base = method.removeprefix("clever-").removeprefix("plus-")
    if base not in _OBJECTIVES:
        return method
    over = "" if base == method else "CLeVER over "
    return f"{over}{_OBJECTIVES[base]} (`{method}`)"


def method_text(
    method: str, invariant: int, equivariant: int, settings: Mapping[str, Any] | None = None
) -> str:
    """What the method does, for a model of one's own or of the paper's kind.

    Args:
        method: Such as ``"clever-vicreg"``.
        invariant: Length of the invariant part.
        equivariant: Length of the equivariant part.
        settings: The recipe's ``method``, where it is known.

    Returns:
        A section of Markdown.
    """
    base = method.removeprefix("clever-").removeprefix("plus-")
    known = {"equivariance": not _is_plain(method), **(settings or {})}
    text = _CLEVER if known["equivariance"] else _PLAIN
    more = _PLUS if method.startswith("clever-plus-") else ""
    weight = known.get("regularization_weight", 0.0 if base == "ddcl" else 1.0)
    filled = text.format(
        # DDCL is CLeVER's sibling over SimSiam.
        objective="SimSiam" if base == "ddcl" else _OBJECTIVES.get(base, "An objective"),
        regularisation=_REGULARISATION if weight else "",
        invariant=invariant,
        equivariant=equivariant,
        dim=invariant + equivariant,
    )
    return f"## What it is\n\n{filled}{more}"


def imported_text(imported: Mapping[str, Any], invariant: int, equivariant: int) -> str:
    """Where a model's weights come from that were trained elsewhere.

    Args:
        imported: The provenance's ``imported``.
        invariant: Length of the invariant part.
        equivariant: Length of the equivariant part, 0 where there is none.

    Returns:
        A section of Markdown.
    """
    sizes = {"invariant": invariant, "equivariant": equivariant, "dim": invariant + equivariant}
    parts = (_IMPORTED_SPLIT if equivariant else _IMPORTED_WHOLE).format(**sizes)
    facts = {key: imported.get(key, "unknown") for key in ("source", "file", "sha256", "layout")}
    return f"## What it is\n\n{_IMPORTED.format(**facts, parts=parts)}"


def _is_plain(method: str) -> bool:
    """Whether a name stands for an objective alone, one of ours or ``package.module:function``."""
    if method.startswith("clever-") or method == "ddcl":
        return False
    return method in _OBJECTIVES or ":" in method


def started_from(provenance: Mapping[str, Any]) -> str | None:
    """What the weights were before this training, if they were not random.

    Args:
        provenance: The config's.

    Returns:
        The name of a model. A path is reduced to the folder's name, because cards are public.

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


def earlier_training(start: object) -> str:
    """How much training a model's start had seen.

    Args:
        start: The provenance's ``start``.

    Returns:
        The rest of a sentence; empty when it is not known.

    Example:
        >>> earlier_training({"epochs": 15.0, "hours": 1.418, "start": {"init": "random"}})
        ', 15 epochs in 1.42 hours'
    """
    if not isinstance(start, Mapping) or not {"epochs", "hours"} <= start.keys():
        return ""
    said = f", {start['epochs']:g} epochs in {start['hours']:.3g} hours"
    earlier = earlier_training(start.get("start"))
    return f"{said}, which began with{earlier.removeprefix(',')}" if earlier else said


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
    method = method_name(provenance.get("method", "method not recorded"))
    return (
        f"{method}, views `{views['strategy']}` "
        f"({views['global_count']} global{local}, "
        f"{' then '.join(str(size) for size in sizes)} pixels), {optimizer['name']} at "
        f"{optimizer['lr']:g} per 256 photos, batch {run['batch_size']}, "
        f"{provenance['epochs']:g} of {run['epochs']} planned epochs."
    )
