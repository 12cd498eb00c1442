"""Check that all readers of a model folder compute the same embeddings from image files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import clever_hub
from clever_export.progress import Report, silent
from clever_hub import __version__
from clever_hub.backends.own import OWN_BACKBONES, register
from clever_hub.backends.variants import DATA_NAME, GRAPH_NAME, PIXEL_VALUES, Variant
from clever_hub.config import ModelConfig
from clever_hub.embeddings import split
from clever_hub.errors import CleverError, DataError, ModelFormatError, missing_extra
from clever_hub.files import write_json
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME, Heads
from clever_hub.weights import WEIGHTS_NAME, sha256_of

REPORT_NAME = "verify.json"
# What the readers read, beside the config; a variant has no weights but those of its graph.
READ_FILES = (WEIGHTS_NAME, GRAPH_NAME, DATA_NAME, HEADS_NAME, "preprocessor_config.json")
TOLERANCE = 1e-4
# With float16 and int8, embeddings differ slightly between batch sizes.
MIN_COSINE = 0.999
BATCH_SIZES = (1, 2, 7)
_EXIF_ORIENTATION = 0x0112

Vectors = NDArray[np.float32]
Reader = Callable[[list[Path], int], Vectors]


@dataclass(frozen=True)
class Agreement:
    """Difference of a reader from the torch backend.

    Attributes:
        reader: Its name.
        batch_size: Number of images in a batch.
        max_abs: Largest absolute difference for each part.
        min_cosine: Smallest cosine over the images for each part.
        exact: Whether ``max_abs`` decides; otherwise ``min_cosine`` does.
        error: What the reader said when it could not compute the embeddings; then it has no
            figures.
    """

    reader: str
    batch_size: int
    max_abs: dict[str, float]
    min_cosine: dict[str, float]
    exact: bool = True
    error: str = ""

    @property
    def green(self) -> bool:
        """Whether every part is within the tolerance; NaN never is, nor is an error."""
        if self.error:
            return False
        if self.exact:
            return all(value <= TOLERANCE for value in self.max_abs.values())
        return all(value >= MIN_COSINE for value in self.min_cosine.values())


def verify(
    folder: str | Path,
    images: Iterable[str | Path] = (),
    report: str | Path | None = None,
    progress: Report = silent,
) -> list[Agreement]:
    """Compare every installed reader with the torch backend, and write verify.json.

    Without torch, the onnx backend is the reference. In addition to the images, odd-sized, gray and
    EXIF-rotated copies of the first one are read. A variant, which torch does not read, is compared
    with itself: in a bare session, and at several batch sizes. Its fidelity to the model was
    measured when it was made and is in its config.json.

    Args:
        folder: A model folder, or a variant's.
        images: Image files; generated pictures when there are none.
        report: The JSON file to write; verify.json in the folder when None.
        progress: Called with the progress.

    Returns:
        One entry for each reader and batch size, the reference first. All are ``green`` when the
        readers agree.

    Raises:
        DataError: When the report cannot be written.
        ModelFormatError: When a reader refuses the folder, or the reference cannot compute the
            embeddings. Another reader's error is in its entry.
        MissingExtraError: When no reader of the folder's files is installed.

    Example:
        >>> verify("runs/mine/model", ["a.jpg"])[0].green  # doctest: +SKIP
        True
    """
    folder, paths = Path(folder), [Path(path) for path in images]
    config = ModelConfig.load(folder)
    variant = Variant.of(config)
    exact = variant is None or variant.precision == "fp32"
    if HEADS_KEY in config.extra:
        Heads.load(folder)  # refuses what is damaged or of another model
    with tempfile.TemporaryDirectory() as temporary:
        paths = pictures(Path(temporary), paths)
        progress("opening the readers", 0, 0)
        found = readers(folder)
        work = [(name, size) for name in found for size in BATCH_SIZES]
        progress(f"comparing {len(found)} readers", 0, len(work) + 1)
        reference = next(iter(found))
        expected, error = _read(found[reference], paths, 4)
        if expected is None:
            raise ModelFormatError(
                f"{folder}: {reference} cannot compute embeddings: {error}. Fetch it again, or "
                "export it again"
            )
        agreements: list[Agreement] = []
        for name, size in work:
            progress(f"comparing {len(found)} readers", len(agreements) + 1, len(work) + 1)
            vectors, error = _read(found[name], paths, size)
            agreements.append(
                Agreement(name, size, {}, {}, exact, error)
                if vectors is None
                else _compare(name, size, vectors, expected, config.invariant_dim, exact)
            )
    _write_report(folder, agreements, len(paths), Path(report or folder / REPORT_NAME))
    return agreements


def _read(reader: Reader, paths: list[Path], size: int) -> tuple[Vectors | None, str]:
    """The embeddings, or what the reader says in their place."""
    try:
        return reader(paths, size), ""
    except CleverError:
        raise
    except Exception as error:  # noqa: BLE001 -- the other libraries' errors have no other common base
        return None, f"{type(error).__name__}: {error}"


def readers(folder: Path) -> Mapping[str, Reader]:
    """The readers that are installed and that the folder has files for.

    Args:
        folder: A model folder.

    Returns:
        Functions from image files and a batch size to full embeddings, by name; the first is the
        reference.

    Raises:
        MissingExtraError: When there is none.
    """
    left_out = not_compared(folder)
    if left_out.keys() == _OPEN.keys():
        raise missing_extra("a reader of this folder", "export")
    wanted = [name for name in _OPEN if name not in left_out]
    if Variant.of(ModelConfig.load(folder)) is not None:
        wanted = [name for name in _OPEN if _NEEDS[name][0] == ("onnxruntime",)]
    return {name: _opened(name, folder) for name in wanted}


def _opened(name: str, folder: Path) -> Reader:
    try:
        return _OPEN[name](folder)
    except CleverError:
        raise
    except Exception as error:  # the other libraries' errors have no other common base
        raise ModelFormatError(
            f"{folder}: {name} cannot read the folder: {error}. Fetch it again, or export it again"
        ) from error


def not_compared(folder: Path) -> Mapping[str, str]:
    """The possible readers of a folder that cannot be compared here.

    Args:
        folder: A model folder.

    Returns:
        The reason, by reader; empty for a variant, which has only one kind of reader.
    """
    if Variant.of(ModelConfig.load(folder)) is not None:
        return {}
    found = {}
    for name, (modules, file) in _NEEDS.items():
        if absent := [module for module in modules if find_spec(module) is None]:
            found[name] = f"{', '.join(absent)} not installed"
        elif file and not (folder / file).is_file():
            found[name] = f"no {file} in the folder"
    return found


def conditions(folder: Path) -> Mapping[str, str]:
    """What readers need beyond the folder and themselves.

    Args:
        folder: A model folder.

    Returns:
        The condition, by reader; of most models there is none.
    """
    modules = OWN_BACKBONES.get(ModelConfig.load(folder).architecture)
    if not modules:
        return {}
    return {"timm": f"after `import clever_hub.backends.{modules[0]}`: timm does not have it"}


def _clever(folder: Path, backend: str) -> Reader:
    model = clever_hub.from_pretrained(folder, backend=backend)
    return lambda paths, size: model.encode(paths, batch_size=size).full


def _timm(folder: Path) -> Reader:
    import timm
    import torch

    register(ModelConfig.load(folder).architecture)
    backbone = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    prepare = clever_hub.from_pretrained(folder).preprocessor

    def embed(batch: list[Path]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = backbone(torch.from_numpy(prepare.batch(batch))).numpy()
        return vectors

    return _batched(embed)


def _session(folder: Path) -> Reader:
    import onnxruntime

    from clever_hub.backends.onnx import read_graph_config

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / GRAPH_NAME), options)
    config = read_graph_config(session)
    variant = Variant.of(config) or Variant("fp32", PIXEL_VALUES, {})
    prepare = clever_hub.Preprocessor(config.preprocessing)

    def embed(batch: list[Path]) -> Vectors:
        inputs = variant.feed(prepare.batch(batch), config.preprocessing)
        outputs = session.run(["invariant", "equivariant"], inputs)
        return np.concatenate(outputs, axis=1)

    return _batched(embed)


def _transformers(folder: Path) -> Reader:
    import torch
    from transformers import AutoImageProcessor, AutoModel

    import clever_hub.transformers

    processor: Any = AutoImageProcessor
    prepare = processor.from_pretrained(folder)
    with _no_bar_of_transformers():
        model = AutoModel.from_pretrained(folder).eval()

    def embed(batch: list[Path]) -> Vectors:
        # transformers' own loader saturates 16-bit images; ours is what the others use.
        images = [clever_hub.load_image(path) for path in batch]
        with torch.inference_mode():
            output = model(**prepare(images, return_tensors="pt"))
        vectors: Vectors = output.pooler_output.numpy()
        return vectors

    return _batched(embed)


@contextmanager
def _no_bar_of_transformers() -> Iterator[None]:
    """Switch off transformers' progress bar, which would disturb ours."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


# The reference comes first.
_OPEN: dict[str, Callable[[Path], Reader]] = {
    "clever_hub torch": lambda folder: _clever(folder, "torch"),
    "timm": _timm,
    "clever_hub onnx": lambda folder: _clever(folder, "onnx"),
    "onnxruntime": _session,
    "transformers": _transformers,
}
# The modules that each imports, and the file that it needs besides config and weights.
_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "clever_hub torch": (("torch", "timm"), ""),
    "timm": (("torch", "timm"), ""),
    "clever_hub onnx": (("onnxruntime",), GRAPH_NAME),
    "onnxruntime": (("onnxruntime",), GRAPH_NAME),
    "transformers": (("torch", "timm", "transformers"), "preprocessor_config.json"),
}


def _batched(embed: Callable[[list[Path]], Vectors]) -> Reader:
    def read(paths: list[Path], size: int) -> Vectors:
        batches = [paths[start : start + size] for start in range(0, len(paths), size)]
        return np.concatenate([embed(batch) for batch in batches])

    return read


def _compare(
    name: str, batch_size: int, found: Vectors, expected: Vectors, invariant_dim: int, exact: bool
) -> Agreement:
    parts = zip(split(found, invariant_dim), split(expected, invariant_dim), strict=True)
    difference, cosine = {}, {}
    for part, (own, reference) in zip(("invariant", "equivariant"), parts, strict=True):
        if not reference.size:  # a split ratio of 1.0
            continue
        a, b = own.astype(np.float64), reference.astype(np.float64)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        difference[part] = float(np.abs(a - b).max())
        cosine[part] = float(((a * b).sum(axis=1) / np.maximum(norms, 1e-30)).min())
    return Agreement(name, batch_size, difference, cosine, exact)


def pictures(folder: Path, images: Iterable[Path] = ()) -> list[Path]:
    """What readers are compared on: image files of all kinds.

    Args:
        folder: Where new files go.
        images: Image files; generated pictures when there are none.

    Returns:
        These, and odd-sized, gray and EXIF-rotated copies of the first.
    """
    paths = [*images] or _drawn(folder)
    return [*paths, *_hard_cases(paths[0], folder)]


def _drawn(folder: Path) -> list[Path]:
    """Generated pictures with edges, gradients and noise."""
    random = np.random.default_rng(0)
    paths = []
    for index, (height, width) in enumerate([(240, 320), (320, 240), (200, 200), (97, 301)]):
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin((x * (i + 1) + y * (index + 1)) / (7 + 5 * i)) for i in range(3)]
        levels = 127 + 90 * np.stack(waves, axis=-1) + random.normal(0, 20, (height, width, 3))
        paths.append(folder / f"drawn-{index}.png")
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def _hard_cases(photo: Path, folder: Path) -> list[Path]:
    """Copies of a photo that other image loaders often handle differently."""
    image = clever_hub.load_image(photo)
    odd = image.resize((131, 77))
    odd.save(folder / "odd.png")
    odd.convert("L").save(folder / "grey.png")
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = 6
    odd.save(folder / "turned.jpg", exif=exif)
    return [folder / name for name in ("odd.png", "grey.png", "turned.jpg")]


def _write_report(folder: Path, agreements: list[Agreement], images: int, path: Path) -> None:
    content: dict[str, Any] = {
        "green": all(agreement.green for agreement in agreements),
        "weights_sha256": sha256_of(_weights_of(folder)),
        "graph_sha256": sha256_of(graph) if (graph := folder / GRAPH_NAME).is_file() else None,
        "clever_hub": __version__,
        "images": images,
        "tolerance": {"max_abs": TOLERANCE} if agreements[0].exact else {"min_cosine": MIN_COSINE},
        "readers": [
            {
                "reader": agreement.reader,
                "batch_size": agreement.batch_size,
                # JSON has no NaN.
                "max_abs": _finite(agreement.max_abs),
                "min_cosine": _finite(agreement.min_cosine),
                **({"error": agreement.error} if agreement.error else {}),
            }
            for agreement in agreements
        ],
    }
    if needed := conditions(folder):
        content["conditions"] = dict(needed)
    try:
        write_json(path, content)
    except OSError as error:
        raise DataError(
            f"{path}: cannot write the report: {error.strerror}. Name another place: --output FILE"
        ) from error


def _weights_of(folder: Path) -> Path:
    """The file with the weights; for a variant, the graph's data file or the graph itself."""
    names = (WEIGHTS_NAME, DATA_NAME, GRAPH_NAME)
    return next(folder / name for name in names if (folder / name).is_file())


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {part: value if np.isfinite(value) else None for part, value in figures.items()}
