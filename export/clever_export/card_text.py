"""The fixed words of the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clever_hub.hub.origin import FINETUNED, OBJECTIVES

PAPER = "[CLeVER](https://arxiv.org/abs/2406.00262)"
# Paragraphs are one line each: what shows a card breaks lines itself.
_TWO_PARTS = (
    "An image backbone whose embedding has two parts. The **invariant** part, the first "
    "{invariant} of {dim} dimensions, {stays} the same when a photo is turned, cropped or "
    "recoloured; the **equivariant** part, the other {equivariant}, {changes} with it ({paper})."
)
_PLAIN = "A baseline, not {paper}: {objective} alone, on the whole embedding. "
_PLAIN_SPLIT = _PLAIN + (
    "Readers cut it as they cut a CLeVER model, in {invariant} invariant and {equivariant} "
    "equivariant dimensions; the training made no difference between the two."
)
_PLAIN_WHOLE = _PLAIN + "All {dim} dimensions count as invariant."
_ONE_PART = (
    "An image backbone whose embedding is to stay the same when a photo is turned, cropped or "
    "recoloured ({paper}, without an equivariant part)."
)
_UNKNOWN_SPLIT = (
    "An image backbone. Readers cut its {dim} dimensions in {invariant} invariant and "
    "{equivariant} equivariant ones; what they were trained for is not recorded."
)
_UNKNOWN_WHOLE = (
    "An image backbone. All its {dim} dimensions count as invariant; what they were trained for is "
    "not recorded."
)
_TUNED_SPLIT = (
    "An image backbone that was fine-tuned to tell classes apart. Readers cut its {dim} dimensions "
    "in {invariant} invariant and {equivariant} equivariant ones, as before; the fine-tuning did "
    "not keep them so."
)
_TUNED_WHOLE = (
    "An image backbone that was fine-tuned to tell classes apart. All its {dim} dimensions count "
    "as invariant, though the fine-tuning did not aim at that."
)
_IMPORTED_WHOLE = (
    "An image backbone whose weights were published elsewhere. Its {dim} dimensions have no "
    "equivariant part: all count as invariant, though the training did not aim at that."
)
_IMPORTED_SPLIT = (
    "An image backbone whose weights were published elsewhere. Readers cut its {dim} dimensions "
    "in {invariant} invariant and {equivariant} equivariant ones."
)

# What the table's words mean.
READING = (
    "Turned photos are seen through a round mask, so that no corner gives the turn away. {spread} "
    "All figures, with settings, versions and fingerprints of the data, are in "
    "[evaluation.json](evaluation.json)."
)
SPREAD = (
    "± is the deviation over {seeds} seeds; a figure without it does not vary, or is of one seed."
)
ONE_SEED = "Each figure is of one seed."

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

# Title, the file that the reader needs, language, code. {where} is the repository on the Hub;
# before there is one, {name} is the model's name and FOLDER stands for the folder.
SNIPPETS = (
    (
        "clever-hub with its extra `torch`:",
        "model.safetensors",
        "python",
        """\
import clever_hub
e = clever_hub.from_pretrained("{name}").encode("photo.jpg")
e.invariant, e.equivariant, e.full  # float32 arrays, one row for each image""",
    ),
    (
        "ONNX Runtime, without torch: clever-hub with its extra `onnx`:",
        "model.onnx",
        "python",
        """\
import clever_hub
e = clever_hub.from_pretrained("{name}", backend="onnx").encode("photo.jpg")""",
    ),
    (
        "transformers{place} (`trust_remote_code` runs the {files} `.py` files there):",
        "modeling_clever.py",
        "python",
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
        "python",
        """\
import timm
from PIL import Image, ImageOps
backbone = timm.create_model("{timm}", pretrained=True{timm_classes}).eval()
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone))
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
full = backbone(prepare(photo)[None]){cut}""",
    ),
    (
        "The command line (`clever-hub --help` lists the other jobs):",
        "config.json",
        "sh",
        """\
clever-hub embed {name} photos/ -o vectors/
{job}""",
    ),
)
CUT = "\nfull[:, :{split}], full[:, {split}:]  # invariant, equivariant"
WITH_HEADS = "clever-hub relate a.jpg b.jpg --model {name} --picture relation.png"
WITHOUT_HEADS = "clever-hub duplicates photos/ --model {name} -o copies.html"


def what_it_is(
    provenance: Mapping[str, Any], invariant: int, equivariant: int, *, projection: bool = False
) -> str:
    """What the embedding is, for a model of one's own, of the paper's kind, or of others.

    Args:
        provenance: The config's.
        invariant: Length of the invariant part.
        equivariant: Length of the equivariant part, 0 where there is none.
        projection: Whether the parts come from a rotation of the embedding.

    Returns:
        A paragraph of Markdown.
    """
    sizes = {"invariant": invariant, "equivariant": equivariant, "dim": invariant + equivariant}
    method = str(provenance.get("method", ""))
    settings = (provenance.get("recipe") or {}).get("method") or {}
    if "imported" in provenance:
        return (_IMPORTED_SPLIT if equivariant else _IMPORTED_WHOLE).format(**sizes)
    if method == FINETUNED:
        return (_TUNED_SPLIT if equivariant else _TUNED_WHOLE).format(**sizes)
    if not projection and not method and not settings:
        return (_UNKNOWN_SPLIT if equivariant else _UNKNOWN_WHOLE).format(**sizes)
    if not projection and not {"equivariance": not _is_plain(method), **settings}["equivariance"]:
        plain = _PLAIN_SPLIT if equivariant else _PLAIN_WHOLE
        return plain.format(paper=PAPER, objective=OBJECTIVES.get(method, "An objective"), **sizes)
    if not equivariant:
        return _ONE_PART.format(paper=PAPER)
    stays, changes = (
        ("stays most nearly", "changes") if projection else ("is to stay", "may change")
    )
    return _TWO_PARTS.format(paper=PAPER, stays=stays, changes=changes, **sizes)


def _is_plain(method: str) -> bool:
    """Whether a name stands for an objective alone, one of ours or ``package.module:function``."""
    if method.startswith("clever-") or method == "ddcl":
        return False
    return method in OBJECTIVES or ":" in method
