"""``config.json``: what a model is, how its images are prepared, and where it comes from."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from clever_hub.errors import ModelFormatError

FORMAT_VERSION = 1
# Of a model with a projection: a reader that does not know of it would leave it out.
PROJECTION_VERSION = 2
CONFIG_NAME = "config.json"
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Configs may come from untrusted sources. These bounds are far above any real backbone. They keep a
# config from allocating much memory or looping for long before the weights are compared.
MAX_FEATURES = 65_536
MAX_PIXELS_PER_SIDE = 8_192
MAX_MODEL_ARG = 65_536
MAX_DEPTH = 1_024

# timm arguments that would fetch weights, unpickle a checkpoint or change the output.
_FORBIDDEN_MODEL_ARGS = frozenset(
    (
        *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"),
        *("cache_dir", "num_classes", "features_only", "out_indices"),
    )
)


@dataclass(frozen=True)
class PreprocessingConfig:
    """How an image becomes the backbone's input.

    Attributes:
        resize_size: Length of the shortest side after resizing, in pixels.
        crop_size: Side of the square centre crop, in pixels; at most ``resize_size``.
        interpolation: One of ``INTERPOLATIONS``, as Pillow does it (antialiased).
        mean: Mean of each channel, red green blue, for pixels in [0, 1].
        std: Standard deviation of each channel; positive.
    """

    resize_size: int
    crop_size: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        _check_int("preprocessing.resize_size", self.resize_size, MAX_PIXELS_PER_SIDE)
        _check_int("preprocessing.crop_size", self.crop_size, self.resize_size)
        if self.interpolation not in INTERPOLATIONS:
            raise ModelFormatError(
                f"preprocessing.interpolation: expected one of {', '.join(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}"
            )
        object.__setattr__(self, "mean", _three_numbers("preprocessing.mean", self.mean))
        object.__setattr__(self, "std", _three_numbers("preprocessing.std", self.std))
        if min(self.std) <= 0:
            raise ModelFormatError(f"preprocessing.std: must be positive, got {list(self.std)}")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PreprocessingConfig:
        """Build from the ``preprocessing`` entry of a config.

        Raises:
            ModelFormatError: When a key is missing or unknown, or a value is wrong.
        """
        content = _check_mapping("preprocessing", content)
        known = {entry.name for entry in fields(cls)}
        _check_keys("preprocessing.", content, required=known)
        if unknown := sorted(content.keys() - known):
            raise ModelFormatError(f"preprocessing: unknown keys {unknown}; known: {sorted(known)}")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """The ``preprocessing`` entry, ready for JSON."""
        return {
            "resize_size": self.resize_size,
            "crop_size": self.crop_size,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }


@dataclass(frozen=True)
class ModelConfig:
    """Everything in ``config.json``.

    Attributes:
        name: The model's name, ``clever-<backbone>[.<tag>]``.
        architecture: The backbone's name in timm.
        model_args: Arguments for ``timm.create_model``, plain JSON.
        num_features: Length d of the embedding.
        invariant_dim: Length of the invariant part, the first entries of the embedding. It is
            stored because implementations that compute it from a ratio round differently.
        preprocessing: How images are prepared.
        provenance: How the weights were made: method, data, epochs, recipe …
        license: SPDX identifier of the licence of the weights.
        data_terms: Terms of the training data, in a sentence.
        projection: Whether a linear map from d to d follows the pooled features. It is stored as
            timm's classifier, weight and bias, and every reader applies it.
        extra: Every other key of the file; written back unchanged.

    Example:
        >>> config = ModelConfig(
        ...     name="clever-resnet18", architecture="resnet18", num_features=512,
        ...     invariant_dim=409, preprocessing=PreprocessingConfig(64, 64))
        >>> config.equivariant_dim
        103
    """

    name: str
    architecture: str
    num_features: int
    invariant_dim: int
    preprocessing: PreprocessingConfig
    model_args: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    license: str = "apache-2.0"
    data_terms: str = ""
    projection: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("name", "architecture", "license", "data_terms"):
            _check_type(key, getattr(self, key), str, "a text")
        # timm also accepts "hf-hub:…" and "local-dir:…", which would load other weights.
        if not re.fullmatch(r"[a-z0-9_]+", self.architecture):
            raise ModelFormatError(
                f"architecture: expected the name of a timm model, such as 'resnet18', "
                f"got {self.architecture!r}"
            )
        _check_int("num_features", self.num_features, MAX_FEATURES)
        # Equal is allowed: a split ratio of 1.0 is plain SimSiam or DINO.
        _check_int("invariant_dim", self.invariant_dim, self.num_features)
        for key in ("model_args", "provenance", "extra"):
            _check_mapping(key, getattr(self, key))
        _check_model_args(self.model_args)
        if not isinstance(self.projection, bool):
            raise ModelFormatError(f"projection: expected true or false, got {self.projection!r}")
        if self.projection:
            _check_no_classifier(self.extra.get("pretrained_cfg"))

    @property
    def equivariant_dim(self) -> int:
        """Length of the equivariant part, the last entries of the embedding."""
        return self.num_features - self.invariant_dim

    @property
    def num_classes(self) -> int:
        """Outputs of the network's classifier: d where it is the projection, else 0."""
        return self.num_features if self.projection else 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModelConfig:
        """Build from the content of a ``config.json``.

        Args:
            content: The parsed file.

        Returns:
            The checked config.

        Raises:
            ModelFormatError: When it is not a CLeVER config, a key is missing, or a value is wrong.
        """
        content = dict(_check_mapping(CONFIG_NAME, content))
        if content.get("model_type") != "clever":
            raise ModelFormatError(
                f"model_type: expected 'clever', got {content.get('model_type')!r}; "
                "this is not a CLeVER model"
            )
        _check_format_version(content.get("format_version"), content.get("projection"))
        optional = {"data_terms", "projection"}
        required = {entry.name for entry in fields(cls)} - {"extra"} - optional
        _check_keys("", content, required=required)
        known = {key: content.pop(key) for key in required | optional if key in content}
        known["preprocessing"] = PreprocessingConfig.from_dict(known["preprocessing"])
        config = cls(**known)
        _check_derived(content, config._derived())
        extra = {key: value for key, value in content.items() if key not in config._derived()}
        if timm_extra := _difference(content.get("pretrained_cfg"), config):
            extra["pretrained_cfg"] = timm_extra
            if config.projection:
                _check_no_classifier(timm_extra)
        object.__setattr__(config, "extra", extra)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The whole ``config.json``, with the entries that transformers and timm read."""
        extra = dict(self.extra)
        derived = self._derived()
        derived["pretrained_cfg"] = {
            **extra.pop("pretrained_cfg", {}),
            **self._pretrained_cfg(),
        }
        return {
            **derived,
            "name": self.name,
            "architecture": self.architecture,
            "model_args": self.model_args,
            "num_features": self.num_features,
            "invariant_dim": self.invariant_dim,
            "preprocessing": self.preprocessing.to_dict(),
            "provenance": self.provenance,
            "license": self.license,
            "data_terms": self.data_terms,
            **({"projection": True} if self.projection else {}),
            **extra,
        }

    @classmethod
    def load(cls, folder: str | Path) -> ModelConfig:
        """Read ``config.json`` from a model folder.

        Args:
            folder: The model folder.

        Returns:
            The checked config.

        Raises:
            ModelFormatError: When the file is missing or unreadable, or its content is wrong.
        """
        path = Path(folder) / CONFIG_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelFormatError(
                f"{folder}: expected a model folder with {CONFIG_NAME} and model.safetensors, "
                f"found {_listing(Path(folder))}{_model_within(Path(folder))}"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise ModelFormatError(f"{path}: cannot be read as JSON: {error}") from error
        try:
            return cls.from_dict(content)
        except ModelFormatError as error:
            raise ModelFormatError(f"{path}: {error}") from error

    def fingerprint(self, preprocessing: PreprocessingConfig | None = None) -> str:
        """A short hash of all that an embedding depends on, the weights aside.

        Two models of the same weights may differ in their split or in the size of their input.

        Args:
            preprocessing: How images are prepared, where it is not the config's own.
        """
        on = {
            "architecture": self.architecture,
            "model_args": self.model_args,
            "num_features": self.num_features,
            "invariant_dim": self.invariant_dim,
            "projection": self.projection,
            "preprocessing": (preprocessing or self.preprocessing).to_dict(),
        }
        return hashlib.blake2b(json.dumps(on, sort_keys=True).encode(), digest_size=8).hexdigest()

    def _derived(self) -> dict[str, Any]:
        """Keys that other readers need, and keys that follow from the rest."""
        return {
            "model_type": "clever",
            "architectures": ["CleverModel"],
            "dtype": "float32",
            "format_version": PROJECTION_VERSION if self.projection else FORMAT_VERSION,
            "num_classes": self.num_classes,
            "pretrained_cfg": {},
        }

    def _pretrained_cfg(self) -> dict[str, Any]:
        """The keys of timm's ``pretrained_cfg`` that follow from the preprocessing."""
        preprocessing = self.preprocessing
        return {
            "input_size": [3, preprocessing.crop_size, preprocessing.crop_size],
            "interpolation": preprocessing.interpolation,
            "crop_pct": _crop_pct(preprocessing),
            "crop_mode": "center",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": self.num_classes,
        }


def _check_derived(content: Mapping[str, Any], derived: Mapping[str, Any]) -> None:
    if content.get("architectures") == ["CleverForImageClassification"]:
        raise ModelFormatError(
            "architectures: this is a model with a classification head, which transformers reads. "
            "Its backbone alone: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW). For ONNX "
            "Runtime: `clever-hub export FOLDER -o NEW`"
        )
    for key in ("architectures", "dtype", "num_classes"):
        if key in content and content[key] != derived[key]:
            raise ModelFormatError(f"{key}: expected {derived[key]!r}, got {content[key]!r}")


def _crop_pct(preprocessing: PreprocessingConfig) -> float:
    """The share from which timm computes the size to resize to, and rounds that down."""
    crop, resize = preprocessing.crop_size, preprocessing.resize_size
    share = crop / resize
    return share if math.floor(crop / share) == resize else crop / (resize + 0.5)


def _difference(found: object, config: ModelConfig) -> dict[str, Any]:
    """The keys of a file's ``pretrained_cfg`` that do not follow from the preprocessing."""
    found = _check_mapping("pretrained_cfg", {} if found is None else found)
    derived, preprocessing = config._pretrained_cfg(), config.preprocessing
    # As 0.2.0 wrote it, although timm came out one pixel short for some sizes.
    earlier = {"crop_pct": preprocessing.crop_size / preprocessing.resize_size}
    for key, value in derived.items():
        if key in found and found[key] not in (value, earlier.get(key, value)):
            raise ModelFormatError(
                f"pretrained_cfg.{key}: expected {value!r}, as in preprocessing, got {found[key]!r}"
            )
    return {key: value for key, value in found.items() if key not in derived}


def _check_no_classifier(pretrained_cfg: object) -> None:
    """With timm's name of its classifier, num_classes=0 would silently leave a projection out."""
    if isinstance(pretrained_cfg, Mapping) and pretrained_cfg.get("classifier") is not None:
        raise ModelFormatError(
            "pretrained_cfg.classifier: expected none in a model with a projection, got "
            f"{pretrained_cfg['classifier']!r}. Remove the key"
        )


def _check_format_version(version: object, projection: object) -> None:
    _check_type("format_version", version, int, "a whole number")
    if version not in (FORMAT_VERSION, PROJECTION_VERSION):
        raise ModelFormatError(
            f"format_version: this clever-hub reads {FORMAT_VERSION} and {PROJECTION_VERSION}, "
            f"got {version}. Update it: pip install -U clever-hub"
        )
    expected = PROJECTION_VERSION if projection else FORMAT_VERSION
    if version != expected:
        raise ModelFormatError(
            f"format_version: expected {expected} for a model with{'' if projection else 'out'} a "
            f"projection, got {version}"
        )


def _check_keys(prefix: str, content: Mapping[str, Any], required: Iterable[str]) -> None:
    if missing := sorted(set(required) - content.keys()):
        raise ModelFormatError(f"missing keys: {', '.join(prefix + key for key in missing)}")


def _check_type(key: str, value: object, kind: type, words: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelFormatError(f"{key}: expected {words}, got {value!r}")


def _check_mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ModelFormatError(f"{key}: expected an object, got {value!r}")
    return value


def _check_int(key: str, value: object, maximum: int) -> None:
    _check_type(key, value, int, "a whole number")
    assert isinstance(value, int)
    if not 1 <= value <= maximum:
        raise ModelFormatError(f"{key}: expected 1 to {maximum}, got {value}")


def _three_numbers(key: str, value: object) -> tuple[float, float, float]:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    real = [isinstance(x, (int, float)) and not isinstance(x, bool) for x in numbers]
    if len(numbers) != 3 or not all(real) or not all(abs(x) < 1e6 for x in numbers):
        raise ModelFormatError(f"{key}: expected three numbers, got {value!r}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _check_model_args(model_args: Mapping[str, Any]) -> None:
    if forbidden := sorted(_FORBIDDEN_MODEL_ARGS & model_args.keys()):
        raise ModelFormatError(f"model_args: {forbidden} cannot be set; leave them out")
    for key, value in model_args.items():
        deep = re.search("depth|layers|blocks", key)
        _check_size(f"model_args.{key}", value, MAX_DEPTH if deep else MAX_MODEL_ARG)


def _check_size(key: str, value: object, maximum: int) -> None:
    """Refuse a number that no real backbone has, at any depth of lists and objects."""
    if isinstance(value, (int, float)):
        if not abs(value) <= maximum:
            raise ModelFormatError(f"{key}: expected at most {maximum}, got {value}")
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            _check_size(f"{key}.{name}", entry, maximum)
    elif isinstance(value, (list, tuple)):
        if len(value) > MAX_DEPTH:
            raise ModelFormatError(f"{key}: expected at most {MAX_DEPTH} entries, got {len(value)}")
        for index, entry in enumerate(value):
            _check_size(f"{key}[{index}]", entry, maximum)
    elif value is not None and not isinstance(value, str):
        raise ModelFormatError(f"{key}: expected plain JSON, got {type(value).__name__}")


def _model_within(folder: Path) -> str:
    """Advice for the folder of a run, which has the model's folder inside."""
    model = folder / "model"
    return f". Its model is in {model}" if (model / CONFIG_NAME).is_file() else ""


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return "no folder"
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "an empty folder"
