"""Feature matrices of perturbed photos, cached on disk by content hash."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clever_hub import files
from clever_hub.errors import DataError
from clever_hub.images.preparing import Preprocessor
from clever_hub.threads import available_cores
from clever_training.data.labelled import LabelledPhotos
from clever_training.evaluation.kept import KeptPieces, code_digest, keep, versions
from clever_training.evaluation.models import FeatureExtractor
from clever_training.evaluation.perturbations import PLAIN, Parameters, Perturbation, draw_all

BATCH_SIZE = 128
# Memory for decoded photos; decoding is a fifth of the work of each perturbation.
KEPT_BYTES = 256 * 2**20
# Features that take longer are kept in pieces on the way, for an evaluation that is stopped.
PIECE_SECONDS = 15.0
Report = Callable[[str, int, int], None]


def cache_folder() -> Path:
    """The folder of cached features."""
    return files.cache_folder() / "features"


def no_report(_name: str, _done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class FeatureStore:
    """Computes features and caches them on disk.

    Attributes:
        folder: Folder of the cached matrices, ``<hash>.npy``; it may be deleted at any time. One
            that is not finished has ``<hash>.<first photo>.npy``.
        report: Called with a label, photos done and photos in all while features are computed.
        workers: Threads that decode and perturb while the model computes.

    Example:
        >>> store = FeatureStore()  # doctest: +SKIP
        >>> store.features(extractor, photos, UPRIGHT).shape  # doctest: +SKIP
        (5000, 512)
    """

    folder: str | Path = field(default_factory=cache_folder)
    report: Report = no_report
    workers: int = min(8, available_cores())
    _kept: dict[tuple[str, str, str, int], Image.Image] = field(default_factory=dict, repr=False)

    @property
    def pieces(self) -> KeptPieces:
        """Figures that are kept in the same folder."""
        return KeptPieces(Path(self.folder))

    def features(
        self,
        extractor: FeatureExtractor,
        photos: LabelledPhotos,
        perturbation: Perturbation = PLAIN,
        *,
        seed: int = 0,
        view: int = 0,
        label: str = "",
    ) -> NDArray[np.float32]:
        """The features of every photo, perturbed.

        Args:
            extractor: The model.
            photos: The photos.
            perturbation: Applied after the model's own resizing and cropping.
            seed: Seed of the perturbation's parameters.
            view: Number of the view, when each photo has several.
            label: Names the work in the progress report.

        Returns:
            float32 (N, d), in the order of the photos.

        Raises:
            DataError: When a photo cannot be read, or its features are not finite.
        """
        parameters = draw_all(perturbation, seed, photos.indices, view)
        path = Path(self.folder) / f"{_key(extractor, photos, perturbation, parameters)}.npy"
        if path.is_file():
            cached: NDArray[np.float32] = np.load(path)
            return cached
        parts = _load_pieces(path)
        done, kept = sum(map(len, parts)), len(parts)
        since = time.monotonic()
        for batch in self._batches(extractor, photos, perturbation, parameters, done):
            found = extractor.embed(batch)
            _check_finite(found, extractor, photos, done)
            parts.append(found)
            done += len(batch)
            if done < len(photos) and time.monotonic() - since > PIECE_SECONDS:
                parts[kept:] = [np.concatenate(parts[kept:])]
                _keep(_piece_path(path, done - len(parts[kept])), parts[kept])
                kept, since = len(parts), time.monotonic()
            self.report(label, done, len(photos))
        features = np.concatenate(parts)
        _keep(path, features)
        for piece in path.parent.glob(f"{path.stem}.*.npy"):
            piece.unlink(missing_ok=True)
        return features

    def _batches(
        self,
        extractor: FeatureExtractor,
        photos: LabelledPhotos,
        perturbation: Perturbation,
        parameters: list[tuple[Parameters, ...]],
        first: int,
    ) -> Iterator[NDArray[np.float32]]:
        """Inputs (n, 3, H, W) from a photo on, prepared one batch ahead of the model."""
        canvas = self._canvas(extractor, photos)

        def prepare(position: int) -> NDArray[np.float32]:
            return extractor.prepare(perturbation(canvas(position), parameters[position]))

        starts = range(first, len(photos), BATCH_SIZE)
        if not starts:
            return
        with ThreadPoolExecutor(self.workers, thread_name_prefix="clever-evaluate") as pool:
            waiting = [pool.map(prepare, _span(starts[0], len(photos)))]
            for start in starts:
                ready = waiting.pop()
                batch = np.stack(list(ready))
                if start + BATCH_SIZE < len(photos):
                    waiting.append(pool.map(prepare, _span(start + BATCH_SIZE, len(photos))))
                yield batch

    def _canvas(
        self, extractor: FeatureExtractor, photos: LabelledPhotos
    ) -> Callable[[int], Image.Image]:
        """A function that gives the photo at a position, resized and cropped for the model."""
        crop, geometry = _geometry(extractor), repr(extractor.preprocessing)

        def canvas(position: int) -> Image.Image:
            row = int(photos.indices[position])
            key = photos.fingerprint, photos.image_column, geometry, row
            if (known := self._kept.get(key)) is not None:
                return known
            image = crop(photos[position])
            if (len(self._kept) + 1) * 3 * image.width * image.height <= KEPT_BYTES:
                self._kept[key] = image
            return image

        return canvas


def _check_finite(
    found: NDArray[np.float32], extractor: FeatureExtractor, photos: LabelledPhotos, first: int
) -> None:
    """Refuse features that no figure can be made of, before any of them is kept."""
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        row = int(photos.indices[first + int(np.argmin(finite))])
        raise DataError(
            f"{extractor.name}: expected finite embeddings, got NaN or infinity for "
            f"{photos.photos.place(row)}. Its weights, or its mean and standard deviation, are "
            "damaged or too large: check them, or train it again"
        )


def _keep(path: Path, features: NDArray[np.float32]) -> None:
    keep(path, lambda temporary: np.save(temporary, features), "features")


def _piece_path(path: Path, first: int) -> Path:
    return path.with_name(f"{path.stem}.{first}.npy")


def _load_pieces(path: Path) -> list[NDArray[np.float32]]:
    """The features of the first photos, as far as an evaluation that was stopped came."""
    parts: list[NDArray[np.float32]] = []
    while (piece := _piece_path(path, sum(map(len, parts)))).is_file():
        parts.append(np.load(piece))
    return parts


def _span(start: int, end: int) -> range:
    return range(start, min(start + BATCH_SIZE, end))


def _geometry(extractor: FeatureExtractor) -> Callable[[Image.Image], Image.Image]:
    """The model's own resizing and centre crop as an image, to which perturbations are applied."""
    # With mean 0 and deviation 1 pixels stay in [0, 1], so that rounding to bytes is exact.
    geometry = Preprocessor(
        replace(extractor.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    )

    def crop(image: Image.Image) -> Image.Image:
        pixels = np.rint(geometry(image) * 255).astype(np.uint8)  # (3, H, W)
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    return crop


def _key(
    extractor: FeatureExtractor,
    photos: LabelledPhotos,
    perturbation: Perturbation,
    parameters: list[tuple[Parameters, ...]],
) -> str:
    """A hash of everything that the matrix depends on.

    It covers the drawn parameters and not the seed, so that fixed perturbations share a matrix.
    """
    drawn = np.asarray(parameters, dtype=object).tolist()
    text = f"{_code_digest()} {extractor.identity} {photos.subset_id()} "
    text += f"{[type(step).__name__ for step in perturbation.steps]} {perturbation.disc} {drawn}"
    # The drawn parameters of Elastic do not include its settings.
    text += repr([step for step in perturbation.steps if type(step).__name__ == "Elastic"])
    return hashlib.sha256(text.encode()).hexdigest()


def _code_digest() -> str:
    """Of the libraries' releases and the sources by which photos are opened and embedded."""
    own = tuple(f"evaluation/{name}.py" for name in ("features", "models", "perturbations"))
    return f"{versions()} {code_digest(('images/*.py', 'backends/*.py'), own)}"
