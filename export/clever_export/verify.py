"""Do all readers of a model folder agree, from the image file to the vector?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import clever_hub
from clever_hub import __version__
from clever_hub.errors import DataError
from clever_hub.files import write_json
from clever_hub.onnx_model import GRAPH_NAME
from clever_hub.weights import WEIGHTS_NAME, Weights

REPORT_NAME = "verify.json"
TOLERANCE = 1e-4
BATCH_SIZES = (1, 2, 7)
_EXIF_ORIENTATION = 0x0112

Vectors = NDArray[np.float32]
Reader = Callable[[list[Path], int], Vectors]


@dataclass(frozen=True)
class Agreement:
    """How far a reader is from the torch backend.

    Attributes:
        reader: Its name.
        batch_size: How many images it saw at once.
        max_abs: Largest absolute difference, of each part.
        min_cosine: Smallest cosine over the images, of each part.
    """

    reader: str
    batch_size: int
    max_abs: dict[str, float]
    min_cosine: dict[str, float]

    @property
    def green(self) -> bool:
        """Whether every part is within the tolerance."""
        return max(self.max_abs.values()) <= TOLERANCE


def verify(folder: str | Path, images: Iterable[str | Path]) -> list[Agreement]:
    """Compare every installed reader with the torch backend on real photos, and write verify.json.

    Besides the photos themselves, odd-sized, grey and EXIF-turned copies of the first are read.

    Args:
        folder: A model folder.
        images: Image files.

    Returns:
        One entry for each reader and batch size. All are ``green`` when the folder is sound.

    Raises:
        DataError: When there are no images.
        ModelFormatError: When a reader refuses the folder.

    Example:
        >>> verify("runs/mine/model", ["a.jpg"])[0].green  # doctest: +SKIP
        True
    """
    folder, paths = Path(folder), [Path(path) for path in images]
    if not paths:
        raise DataError("verify: expected image files, got none")
    with tempfile.TemporaryDirectory() as temporary:
        paths += _hard_cases(paths[0], Path(temporary))
        reference = clever_hub.from_pretrained(folder)
        expected = reference.encode(paths, batch_size=4).full
        split = reference.config.invariant_dim
        agreements = [
            _compare(name, size, read(paths, size), expected, split)
            for name, read in readers(folder).items()
            for size in BATCH_SIZES
        ]
    _write_report(folder, agreements, len(paths))
    return agreements


def readers(folder: Path) -> Mapping[str, Reader]:
    """The readers that are installed and that the folder has files for.

    Args:
        folder: A model folder.

    Returns:
        Functions from image files and a batch size to full embeddings, by name.
    """
    found: dict[str, Reader] = {"clever_hub torch": _clever(folder, "torch"), "timm": _timm(folder)}
    if (folder / GRAPH_NAME).is_file() and find_spec("onnxruntime"):
        found["clever_hub onnx"] = _clever(folder, "onnx")
        found["onnxruntime"] = _session(folder)
    if (folder / "preprocessor_config.json").is_file() and find_spec("transformers"):
        found["transformers"] = _transformers(folder)
    return found


def _clever(folder: Path, backend: str) -> Reader:
    model = clever_hub.from_pretrained(folder, backend=backend)
    return lambda paths, size: model.encode(paths, batch_size=size).full


def _timm(folder: Path) -> Reader:
    import timm
    import torch

    backbone = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    prepare = clever_hub.from_pretrained(folder).preprocessor

    def embed(batch: list[Path]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = backbone(torch.from_numpy(prepare.batch(batch))).numpy()
        return vectors

    return _batched(embed)


def _session(folder: Path) -> Reader:
    import onnxruntime

    from clever_hub.onnx_model import read_graph_config

    session = onnxruntime.InferenceSession(str(folder / GRAPH_NAME))
    prepare = clever_hub.Preprocessor(read_graph_config(session).preprocessing)

    def embed(batch: list[Path]) -> Vectors:
        outputs = session.run(["invariant", "equivariant"], {"pixel_values": prepare.batch(batch)})
        return np.concatenate(outputs, axis=1)

    return _batched(embed)


def _transformers(folder: Path) -> Reader:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    import clever_hub.transformers

    processor: Any = AutoImageProcessor
    prepare = processor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def embed(batch: list[Path]) -> Vectors:
        # transformers' own loader saturates 16-bit images; ours is what the others use.
        images = [clever_hub.load_image(path) for path in batch]
        with torch.inference_mode():
            output = model(**prepare(images, return_tensors="pt"))
        vectors: Vectors = output.pooler_output.numpy()
        return vectors

    return _batched(embed)


def _batched(embed: Callable[[list[Path]], Vectors]) -> Reader:
    def read(paths: list[Path], size: int) -> Vectors:
        batches = [paths[start : start + size] for start in range(0, len(paths), size)]
        return np.concatenate([embed(batch) for batch in batches])

    return read


def _compare(
    name: str, batch_size: int, found: Vectors, expected: Vectors, split: int
) -> Agreement:
    parts = {"invariant": slice(0, split), "equivariant": slice(split, None)}
    difference, cosine = {}, {}
    for part, columns in parts.items():
        a = found[:, columns].astype(np.float64)
        b = expected[:, columns].astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        difference[part] = float(np.abs(a - b).max())
        cosine[part] = float(((a * b).sum(axis=1) / np.maximum(norms, 1e-30)).min())
    return Agreement(name, batch_size, difference, cosine)


def _hard_cases(photo: Path, folder: Path) -> list[Path]:
    """Copies of a photo that readers with image code of their own get wrong."""
    image = clever_hub.load_image(photo)
    odd = image.resize((131, 77))
    odd.save(folder / "odd.png")
    odd.convert("L").save(folder / "grey.png")
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6
    odd.save(folder / "turned.jpg", exif=exif)
    return [folder / name for name in ("odd.png", "grey.png", "turned.jpg")]


def _write_report(folder: Path, agreements: list[Agreement], images: int) -> None:
    with Weights(folder / WEIGHTS_NAME) as weights:
        digest = weights.sha256()
    write_json(
        folder / REPORT_NAME,
        {
            "green": all(agreement.green for agreement in agreements),
            "weights_sha256": digest,
            "clever_hub": __version__,
            "images": images,
            "tolerance": TOLERANCE,
            "readers": [
                {
                    "reader": agreement.reader,
                    "batch_size": agreement.batch_size,
                    "max_abs": agreement.max_abs,
                    "min_cosine": agreement.min_cosine,
                }
                for agreement in agreements
            ],
        },
    )
