"""A page on which one drops photos: how two relate, and what turning a photo changes.

A Space of Hugging Face runs it as it is; README.md beside it has the Space's settings. On a machine
of one's own: `pip install -r requirements.txt`, then `python app.py`. It takes the model that
CLEVER_HUB_MODEL names, else the best one that ships with clever-hub, and fetches nothing.
"""

from __future__ import annotations

import os

# Before gradio is imported, which reads it then: nothing is reported to anybody.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from collections.abc import Iterator

import gradio as gr
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import clever_hub
from clever_hub.errors import CleverError
from clever_hub.jobs.default import default_model

Vectors = NDArray[np.float32]
PARTS = ("invariant", "equivariant")
COLORS = {"invariant": "#0072B2", "equivariant": "#D55E00"}  # safe for colour-blind readers
ANGLES = tuple(range(-180, 181, 15))  # degrees, counter-clockwise
SIDE = 256  # px; well above the model's input, so that resampling does not tell the angle
GREY = (124, 116, 104)


MODEL = clever_hub.from_pretrained(
    os.environ.get("CLEVER_HUB_MODEL") or default_model(), backend="onnx"
)


def seen(photo: Image.Image, degrees: float) -> Image.Image:
    """The middle of a photo, turned, through a round mask: no corner tells the turn.

    Args:
        photo: Any image.
        degrees: Counter-clockwise.

    Returns:
        RGB, `SIDE` by `SIDE` pixels.
    """
    edge = min(photo.size)
    left, top = (photo.width - edge) // 2, (photo.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    square = photo.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)
    disc = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(disc).ellipse((0, 0, SIDE - 1, SIDE - 1), fill=255)
    turned = square.rotate(degrees, resample=Image.Resampling.BICUBIC)
    return Image.composite(turned, Image.new("RGB", (SIDE, SIDE), GREY), disc)


def similarities(photos: list[Image.Image]) -> dict[str, Vectors]:
    """Cosine of the first photo's embedding with each photo's, part by part.

    Args:
        photos: One at least.

    Returns:
        float32 (photos,) of each part, centred where the model knows its mean.
    """
    found = MODEL.encode(photos)
    heads = MODEL.heads if MODEL.has_heads else None
    cosines = {}
    for part in PARTS:
        vectors: Vectors = getattr(found, part)
        if heads is not None:
            vectors = vectors - getattr(heads, f"{part}_mean")
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines[part] = unit @ unit[0]
    return cosines


def relate(first: Image.Image | None, second: Image.Image | None) -> str:
    """How the second photo is made from the first, in words.

    Args:
        first: A photo.
        second: Another one, or a copy of it.

    Returns:
        Markdown.
    """
    if first is None or second is None:
        return "Drop two photos."
    cosines = similarities([first, second])
    alike = ", ".join(f"{part} part {cosines[part][1]:.2f}" for part in PARTS)
    try:
        words = MODEL.relate(first, second).words()
    except CleverError as error:
        words = f"unknown: {error}"
    return f"**Second photo:** {words}\n\nCosine similarity: {alike}"


def _rows(cosines: dict[str, Vectors]) -> Iterator[tuple[int, float, str]]:
    for part, values in cosines.items():
        for angle, value in zip(ANGLES, values[1:], strict=True):
            yield angle, float(value), part


def curve(photo: Image.Image | None) -> pd.DataFrame:
    """How alike a photo and its turned copies are, part by part.

    Args:
        photo: A photo; None gives an empty table.

    Returns:
        Columns angle, similarity and part.
    """
    copies = [] if photo is None else [seen(photo, angle) for angle in (0, *ANGLES)]
    rows = _rows(similarities(copies)) if copies else ()
    return pd.DataFrame(rows, columns=["angle", "similarity", "part"])


def turned(photo: Image.Image | None, degrees: float) -> tuple[Image.Image | None, str]:
    """A turned copy, and how alike it is to the photo.

    Args:
        photo: A photo.
        degrees: Counter-clockwise.

    Returns:
        The copy as the model sees it, and Markdown.
    """
    if photo is None:
        return None, "Drop a photo."
    upright, copy = seen(photo, 0), seen(photo, degrees)
    cosines = similarities([upright, copy])
    lines = [f"**Turned by {degrees:g}°.** Cosine similarity to the photo:", ""]
    return copy, "\n".join(lines + [f"- {part} part {cosines[part][1]:.2f}" for part in PARTS])


def page() -> gr.Blocks:
    """The page.

    Returns:
        Not launched yet.
    """
    config = MODEL.config
    with gr.Blocks(title="CLeVER: what stays and what turns", analytics_enabled=False) as blocks:
        gr.Markdown(
            f"# What stays and what turns\n`{config.name}` makes two vectors of a photo. The "
            f"invariant part ({config.invariant_dim} numbers) is to stay when the photo is turned, "
            f"cropped or recoloured, the equivariant part ({config.equivariant_dim}) may change."
        )
        with gr.Row():
            first = gr.Image(type="pil", label="A photo", height=320)
            second = gr.Image(type="pil", label="Another photo, or a changed copy", height=320)
        answer = gr.Markdown("Drop two photos.")
        with gr.Row():
            with gr.Column():
                slider = gr.Slider(-180, 180, value=0, step=5, label="Turn the first photo by (°)")
                copy = gr.Image(type="pil", label="As the model sees it", interactive=False)
                similarity = gr.Markdown()
            plot = gr.LinePlot(
                x="angle",
                y="similarity",
                color="part",
                color_map=COLORS,
                y_lim=[-0.2, 1.0],
                title="Similarity of the photo and its turned copies",
            )
        gr.on([first.change, second.change], relate, [first, second], answer, api_name="relate")
        first.change(curve, first, plot, api_name="curve")
        gr.on(
            [first.change, slider.change],  # gradio tells of no release by the keyboard
            turned,
            [first, slider],
            [copy, similarity],
            api_name="turned",
            trigger_mode="always_last",
        )
    return blocks


if __name__ == "__main__":
    # Fonts of the machine: gradio's own theme would fetch its from a server.
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    page().launch(theme=gr.themes.Default(**fonts), footer_links=[], max_file_size="20mb")
