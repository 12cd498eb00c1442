"""int8 in one step: a variant of a model is made once, checked, and kept in a cache.

This package only reads variants. What makes them is found through the entry point ``int8`` of the
group ``clever_hub.variants``, which the extra ``export`` makes usable.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from PIL import Image

from clever_hub.backends.variants import Variant
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import CleverError, ConfigError, ModelFormatError, missing_extra
from clever_hub.files import cache_folder
from clever_hub.images.finding import find_images, spread_evenly
from clever_hub.jobs.heads import HEADS_NAME
from clever_hub.weights import WEIGHTS_NAME, sha256_of

GROUP = "clever_hub.variants"
MOST_PHOTOS = 256
# Raise it when the way of making changes: what is in caches is then made again.
_VERSION = 3
_SHIPPED = Path(__file__).parents[1] / "serve" / "page" / "gallery"
_SHIPPED_CROPS = 16

Calibration = Iterable[str | os.PathLike[str]] | str | os.PathLike[str] | None


def int8_folder(folder: Path, calibration: Calibration = None) -> Path:
    """The int8 variant of a model folder; made now, or before.

    Args:
        folder: The model folder; a variant of int8 is returned as it is.
        calibration: Photos, or folders with photos, like those that the model will be used on, 16
            at least; at most ``MOST_PHOTOS``, evenly spaced, are used. None takes pieces of the six
            photos that ship with the page of ``serve``.

    Returns:
        The folder of the variant, in the cache; by the hash of the model's files, of which the
        variant has copies, and of the photos.

    Raises:
        ConfigError: When the model is a variant of another precision.
        MissingExtraError: When what makes variants is not installed.
        ModelFormatError: When int8 is not faithful for this model: the mean cosine to float32,
            centred, is below the threshold of ``clever-hub export``.
        DataError: When there are too few photos.
    """
    variant = Variant.of(ModelConfig.load(folder))
    if variant is not None:
        if variant.precision == "int8":
            return folder
        raise ConfigError(
            f'precision="int8": {folder} is a variant in {variant.precision}, whose graph has '
            "weights of its own. Load the model that it was made from"
        )
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ModelFormatError(f"{weights}: no such file; int8 is made from it")
    with _photos(calibration) as photos:
        target = cache_folder() / "int8" / _key(folder, photos)
        if not _is_whole(target):
            _make(folder, target, photos)
    return target


def _key(folder: Path, photos: Sequence[Path]) -> str:
    files = [folder / name for name in (WEIGHTS_NAME, CONFIG_NAME, HEADS_NAME)]
    hashes = [sha256_of(file) for file in files if file.is_file()]
    found = hashlib.sha256(f"{_VERSION} {' '.join(hashes)}".encode())
    for photo in photos:
        found.update(hashlib.sha256(photo.read_bytes()).digest())
    return found.hexdigest()[:32]


def _is_whole(folder: Path) -> bool:
    """Whether a variant is there and its files have the hashes that its config names.

    What is left of one is removed: it would be in the way of a new one.
    """
    if not folder.exists():
        return False
    try:
        variant = Variant.of(ModelConfig.load(folder))
        if variant is not None and variant.check(folder):
            return True
    except ModelFormatError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _make(folder: Path, target: Path, photos: Sequence[Path]) -> None:
    """Make the variant under another name first: one that is half made is never loaded."""
    export = _maker()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        export(folder, temporary, precision="int8", images=photos)
        try:
            temporary.replace(target)
        except OSError:
            if not _is_whole(target):  # else another process was quicker
                raise
    except OSError as error:
        raise CleverError(
            f"{target}: cannot be written: {error.strerror or error}. CLEVER_HUB_CACHE names "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _maker() -> Any:
    try:
        (entry,) = entry_points(group=GROUP, name="int8")
        return entry.load()
    except ValueError as error:
        raise missing_extra("clever_export", "export") from error
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "onnx", "export") from error


@contextmanager
def _photos(calibration: Calibration) -> Iterator[list[Path]]:
    """The photos to calibrate on, as files."""
    if calibration is not None:
        one = isinstance(calibration, (str, os.PathLike))
        given = [calibration] if one else calibration
        yield spread_evenly(list(find_images(Path(path) for path in given)), MOST_PHOTOS)  # type: ignore[union-attr,arg-type]
        return
    with tempfile.TemporaryDirectory(prefix="clever-hub-") as temporary:
        yield list(_pieces(Path(temporary)))


def _pieces(folder: Path) -> Iterator[Path]:
    """Pieces of the shipped photos: of several sizes, each mirrored once."""
    for name in sorted(_SHIPPED.glob("*.jpg")):
        photo = Image.open(name).convert("RGB")
        for index in range(_SHIPPED_CROPS):
            # From the whole photo to 2/5 of its sides, walking along the diagonals.
            side = round(min(photo.size) * (1 - 0.6 * index / (_SHIPPED_CROPS - 1)))
            left = round((photo.width - side) * (index % 4) / 3)
            top = round((photo.height - side) * (index // 4) / 3)
            piece = photo.crop((left, top, left + side, top + side))
            if index % 2:
                piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            path = folder / f"{name.stem}-{index:02}.png"
            piece.save(path)
            yield path
