"""For Hugging Face Inference Endpoints: images in, embeddings out, with this folder alone.

An endpoint made from the repository finds this file, and takes requests such as

    {"inputs": "<base64 of an image file>"}
    {"inputs": ["…", "…"], "parameters": {"part": "invariant", "normalize": true}}

or an image file as the body. It fetches no addresses: an endpoint that did would let strangers look
into the network that it runs in.
"""

from __future__ import annotations

import binascii
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

# As `clever-hub serve` has them.
MAX_IMAGES = 64
MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
# Not all of Pillow's: its EPS reader, for example, runs Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
PARTS = ("invariant", "equivariant", "full")


class EndpointHandler:
    """What an endpoint calls.

    Args:
        path: The folder of the model; empty is the one with this file.
    """

    def __init__(self, path: str = "") -> None:
        folder = str(path or Path(__file__).parent)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
        model: Any = AutoModel.from_pretrained(folder, trust_remote_code=True)
        self.model = model.eval().to(self.device)

    def __call__(self, data: Mapping[str, Any]) -> list[dict[str, list[float]]]:
        """Answer a request.

        Args:
            data: ``inputs``, one image or a list of up to 64: base64 of an image file, a data URI,
                the bytes of a file, or a PIL image. ``parameters``, optional: ``part``, one of
                invariant, equivariant and full, instead of the first two; ``normalize``, for
                vectors of length 1.

        Returns:
            For each image its parts by name, lists of float32 numbers.

        Raises:
            ValueError: When the request or an image is not as expected; names the image. The
                endpoint answers with status 400 and this text.
        """
        parts, normalize = _parameters(data.get("parameters") or {})
        if "inputs" not in data:
            raise ValueError(f"expected 'inputs', got {sorted(map(str, data))}")
        given = data["inputs"]
        several = given if isinstance(given, list | tuple) else [given]
        if not 1 <= len(several) <= MAX_IMAGES:
            raise ValueError(f"inputs: expected 1 to {MAX_IMAGES} images, got {len(several)}")
        pixels = torch.cat([self._prepared(one, f"inputs[{n}]") for n, one in enumerate(several)])
        with torch.inference_mode():
            output = self.model(pixel_values=pixels.to(self.device))
        found = {name: output.pooler_output if name == "full" else output[name] for name in parts}
        if normalize:
            found = {k: torch.nn.functional.normalize(v, dim=1) for k, v in found.items()}
        lists = {name: values.float().cpu().tolist() for name, values in found.items()}
        return [{name: lists[name][row] for name in parts} for row in range(len(several))]

    def _prepared(self, given: Any, name: str) -> torch.Tensor:
        try:
            image = given if isinstance(given, Image.Image) else _opened(_content(given))
            _check_pixels(image)
            prepared: torch.Tensor = self.processor(image, return_tensors="pt")["pixel_values"]
        except Exception as error:  # a file of strangers raises whatever it leads Pillow to
            raise ValueError(f"{name}: {error}") from error
        return prepared


def _parameters(given: Any) -> tuple[tuple[str, ...], bool]:
    if not isinstance(given, Mapping):
        raise ValueError(f"parameters: expected an object, got {type(given).__name__}")
    if unknown := sorted(given.keys() - {"part", "normalize"}):
        raise ValueError(f"parameters: expected part and normalize, got {', '.join(unknown)}")
    part, normalize = given.get("part"), given.get("normalize", False)
    if part not in (None, *PARTS):
        raise ValueError(f"parameters.part: expected one of {', '.join(PARTS)}, got {part!r}")
    if not isinstance(normalize, bool):
        raise ValueError(f"parameters.normalize: expected true or false, got {normalize!r}")
    return (PARTS[:2] if part is None else (part,)), normalize


def _content(given: Any) -> bytes:
    """The bytes of an image file."""
    if isinstance(given, str):
        given = _decoded(given)
    if not isinstance(given, bytes):
        raise ValueError(f"expected base64 of an image file, got {type(given).__name__}")
    if len(given) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES:,} bytes, got {len(given):,}")
    return given


def _decoded(text: str) -> bytes:
    if text[:8].lower().startswith(("http://", "https://")):
        raise ValueError("addresses are not fetched. Send the image itself, as base64")
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().endswith(";base64"):
            raise ValueError("expected a data URI such as data:image/jpeg;base64,…")
    if len(text) > MAX_BYTES * 4 // 3 + 1_000:
        raise ValueError(f"expected at most {MAX_BYTES:,} bytes, got about {len(text) * 3 // 4:,}")
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:
        raise ValueError("expected base64 of an image file, or a data URI") from error


def _opened(content: bytes) -> Image.Image:
    """Only the header is read here; the processor reads the rest."""
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"expected at most {MAX_PIXELS:,} pixels, got {image.width} × {image.height}"
        )
