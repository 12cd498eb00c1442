"""The heads of a model: what its equivariant part says of turns, mirroring, crops and colours.

Two small networks are trained with a model, or fitted to it afterwards, and lie beside its weights
in ``heads.safetensors``. One sees the equivariant parts of two images and predicts how the second
is made from the first; the other sees one image and predicts how it is turned from upright. numpy
evaluates them. The entry ``"heads"`` of config.json says what they were trained on and how far
they can be trusted (``clever_hub.jobs.calibration``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from clever_hub.config import MAX_FEATURES, ModelConfig
from clever_hub.errors import ModelFormatError
from clever_hub.files import atomic_path
from clever_hub.hub.shipped import ZOO, model_names
from clever_hub.jobs.calibration import Calibration
from clever_hub.jobs.checks import number
from clever_hub.weights import Weights

HEADS_NAME = "heads.safetensors"
HEADS_KEY = "heads"

Array = NDArray[np.float32]
# Columns of what is regressed, as unit.center and unit.scale have them.
STRAIGHT, MIRRORED = slice(0, 2), slice(2, 4)
CROP, COLOR, TURN = slice(4, 8), slice(8, 12), slice(12, 14)
OF_PAIRS, REGRESSED = 12, 14
_LAYER_NORM_EPS = 1e-5
_BLOCK = 4096  # pairs at once: the hidden layers of more would not stay in the cache


class PairValues(NamedTuple):
    """How image b is made from image a, for N pairs, as the head predicts it.

    Attributes:
        straight: (N, 2), sine and cosine of the angle by which a is turned clockwise to lie as b,
            if b is not mirrored. Shorter than 1 where the head is not sure.
        mirrored: (N, 2), sine and cosine of the angle by which a, first mirrored left to right, is
            turned counter-clockwise to lie as b.
        crop: (N, 4): where b's centre lies in a, right and down, in halves of a's side; logarithm
            of b's width by a's, and of the heights.
        color: (N, 4): logarithm of b's brightness by a's, of contrast, of saturation; difference of
            the hues as a share of a full turn.
        logit: (N,), log-odds that one of the two is mirrored and the other is not.
    """

    straight: Array
    mirrored: Array
    crop: Array
    color: Array
    logit: Array


@dataclass(frozen=True)
class HeadsConfig:
    """The entry ``"heads"`` of a config.json.

    Attributes:
        sha256: Hash of heads.safetensors.
        in_dim: Length e of the equivariant part.
        hidden_dim: Width h of the hidden layers.
        rotation: The views that it was trained on were turned by up to so many degrees, both ways.
        data: The photos that it was trained on.
        photos: How many they were.
        calibration: How far the heads can be trusted; None where that was not measured.
    """

    sha256: str
    in_dim: int
    hidden_dim: int
    rotation: float
    data: str = ""
    photos: int = 0
    calibration: Calibration | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> HeadsConfig | None:
        """Read the entry of a model's config; None where it has none.

        Args:
            config: The model's.

        Raises:
            ModelFormatError: When the entry is malformed, or is of another model.
        """
        entry = config.extra.get(HEADS_KEY)
        if entry is None:
            return None
        try:
            found = cls._read(entry)
        except ModelFormatError as error:
            raise ModelFormatError(f"config.json, {HEADS_KEY}.{error}") from error
        if found.in_dim != config.equivariant_dim:
            raise ModelFormatError(
                f"config.json, {HEADS_KEY}.in_dim: the heads read {found.in_dim} entries, the "
                f"equivariant part has {config.equivariant_dim}"
            )
        return found

    @classmethod
    def _read(cls, entry: object) -> Self:
        if not isinstance(entry, Mapping):
            raise ModelFormatError(f": expected an object, got {entry!r}")
        if (file := entry.get("file")) != HEADS_NAME:
            raise ModelFormatError(f"file: expected {HEADS_NAME!r}, got {file!r}")
        digest = entry.get("sha256")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ModelFormatError(f"sha256: expected 64 hexadecimal digits, got {digest!r}")
        calibration = entry.get("calibration")
        return cls(
            sha256=digest,
            in_dim=int(number("in_dim", entry.get("in_dim"), 1, MAX_FEATURES)),
            hidden_dim=int(number("hidden_dim", entry.get("hidden_dim"), 1, MAX_FEATURES)),
            rotation=number("rotation", entry.get("rotation"), 0, 180),
            data=str(entry.get("data", "")),
            photos=int(number("photos", entry.get("photos", 0), 0, 2**53)),
            calibration=None if calibration is None else Calibration.from_dict(calibration),
        )

    def in_words(self) -> str:
        """What the heads answer and how well, in one line."""
        answers = f"for relate and orient, of photos turned by up to ±{self.rotation:g}°"
        found = self.calibration
        if found is None:
            return f"{answers}; not calibrated, so without probabilities"
        told = found.measured
        shown = {
            "angle_median": "angle to {:.1f}° in the median",
            "mirrored": "mirrored or not {:.0%} right",
            "quarter": "quarter turn {:.0%} right",
            "quarter_from_four": "{:.0%} from four looks",
        }
        words = [text.format(told[name]) for name, text in shown.items() if name in told]
        return f"{answers}. On {found.photos:,} photos of {found.data}: {', '.join(words)}"

    def to_dict(self) -> dict[str, Any]:
        """The entry, ready for JSON."""
        entry = {
            "file": HEADS_NAME,
            "sha256": self.sha256,
            "in_dim": self.in_dim,
            "hidden_dim": self.hidden_dim,
            "rotation": self.rotation,
            "data": self.data,
            "photos": self.photos,
        }
        return entry | ({"calibration": self.calibration.to_dict()} if self.calibration else {})


class Heads:
    """Evaluates the heads of a model.

    Attributes:
        config: What they were trained on, and how far they can be trusted.
        invariant_mean: float32 (d_i,), mean of the invariant part over the calibration's photos,
            for centring.
        equivariant_mean: float32 (d_e,), of the equivariant part.
        tensors: float32, by name, as ``expected_shapes`` has them.

    Example:
        >>> heads = Heads.load(ZOO / "clever-efficientnet-lite0")  # doctest: +SKIP
        >>> heads.turns(model.encode("a.jpg").equivariant)  # doctest: +SKIP
        array([[0.02, 0.97]], dtype=float32)
    """

    def __init__(self, config: HeadsConfig, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Take the tensors of a heads.safetensors."""
        self.config = config
        self.tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        mean = self.tensors["calibration.mean"]
        split = len(mean) - config.in_dim
        self.invariant_mean, self.equivariant_mean = mean[:split], mean[split:]

    @classmethod
    def load(cls, folder: str | Path) -> Heads:
        """Read the heads of a model folder, strictly.

        Args:
            folder: The model folder.

        Returns:
            The heads.

        Raises:
            ModelFormatError: When the model has none, the file is missing or another one than the
                config names, or a tensor is missing, of the wrong shape or not finite.
        """
        model = ModelConfig.load(folder)
        config = HeadsConfig.of(model)
        if config is None:
            raise ModelFormatError(f"{model.name} has no heads. {which_have_heads()}")
        path = Path(folder) / HEADS_NAME
        with Weights(path) as weights:
            weights.check(expected_shapes(config.in_dim, config.hidden_dim, model.num_features))
            if (found := weights.sha256()) != config.sha256:
                raise ModelFormatError(
                    f"{path}: config.json names the file with SHA-256 {config.sha256}, this one "
                    f"has {found}. Fetch the folder again"
                )
            tensors = {name: np.array(value) for name, value in weights.tensors().items()}
        if bad := [name for name, value in tensors.items() if not np.isfinite(value).all()]:
            raise ModelFormatError(f"{path}: not finite: {', '.join(sorted(bad))}")
        return cls(config, tensors)

    def pairs(self, a: Array, b: Array) -> PairValues:
        """How the second image of each pair is made from the first.

        Args:
            a: float32 (N, e), raw equivariant parts: neither normalised nor centred.
            b: float32 (N, e), of the other images.

        Returns:
            The predictions, in the units of ``PairValues``.
        """
        outputs = [
            self._pairs(a[start : start + _BLOCK], b[start : start + _BLOCK])
            for start in range(0, max(1, len(a)), _BLOCK)
        ]
        predicted = np.concatenate(outputs)
        values = self._in_units(predicted[:, :OF_PAIRS], slice(0, OF_PAIRS))
        return PairValues(
            straight=values[:, STRAIGHT],
            mirrored=values[:, MIRRORED],
            crop=values[:, CROP],
            color=values[:, COLOR],
            logit=predicted[:, OF_PAIRS],
        )

    def turns(self, equivariant: Array) -> Array:
        """How each image is turned from upright.

        Args:
            equivariant: float32 (N, e), raw equivariant parts.

        Returns:
            float32 (N, 2): sine and cosine of the angle, counter-clockwise; shorter than 1 where
            the head is not sure.
        """
        hidden = self._normalized("turn.1", self._linear("turn.0", equivariant))
        return self._in_units(self._linear("last_turn", hidden), TURN)

    def _pairs(self, a: Array, b: Array) -> Array:
        weight, e = self.tensors["pair.0.weight"], self.config.in_dim
        first = a @ weight[:, :e].T + b @ weight[:, e:].T + self.tensors["pair.0.bias"]
        hidden = self._linear("pair.3", self._normalized("pair.1", first))
        return self._linear("last", np.maximum(hidden, 0))

    def _linear(self, name: str, inputs: Array) -> Array:
        product: Array = inputs @ self.tensors[f"{name}.weight"].T
        return product + self.tensors[f"{name}.bias"]

    def _normalized(self, name: str, hidden: Array) -> Array:
        """LayerNorm, then ReLU."""
        centered = hidden - hidden.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centered).mean(axis=1, keepdims=True) + _LAYER_NORM_EPS)
        scaled = centered / deviation * self.tensors[f"{name}.weight"]
        rectified: Array = np.maximum(scaled + self.tensors[f"{name}.bias"], 0)
        return rectified

    def _in_units(self, predicted: Array, columns: slice) -> Array:
        scale, center = (self.tensors[f"unit.{name}"][columns] for name in ("scale", "center"))
        return predicted * scale + center


def expected_shapes(in_dim: int, hidden_dim: int, num_features: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a heads.safetensors.

    Args:
        in_dim: Length of the equivariant part.
        hidden_dim: Width of the hidden layers.
        num_features: Length of the whole embedding.

    Returns:
        Shapes by name.
    """
    hidden = (hidden_dim,)
    norms = {f"{n}.1.{kind}": hidden for n in ("pair", "turn") for kind in ("weight", "bias")}
    return norms | {
        "pair.0.weight": (hidden_dim, 2 * in_dim),
        "pair.0.bias": hidden,
        "pair.3.weight": (hidden_dim, hidden_dim),
        "pair.3.bias": hidden,
        "last.weight": (OF_PAIRS + 1, hidden_dim),
        "last.bias": (OF_PAIRS + 1,),
        "turn.0.weight": (hidden_dim, in_dim),
        "turn.0.bias": hidden,
        "last_turn.weight": (REGRESSED - OF_PAIRS, hidden_dim),
        "last_turn.bias": (REGRESSED - OF_PAIRS,),
        "unit.center": (REGRESSED,),
        "unit.scale": (REGRESSED,),
        "calibration.mean": (num_features,),
    }


def copy_heads(source: str | Path, target: str | Path) -> None:
    """Copy a model's heads, if it has any, to a folder that gets the same embedding.

    Args:
        source: A model folder.
        target: Another, made when missing; or the same, which is left as it is.
    """
    path, copy = Path(source) / HEADS_NAME, Path(target) / HEADS_NAME
    if path.is_file() and path.resolve() != copy.resolve():
        content = path.read_bytes()
        with atomic_path(copy) as temporary:
            temporary.write_bytes(content)


def shipped_with_heads() -> dict[str, HeadsConfig]:
    """The entry of each shipped model that has heads, by its name."""
    configs = {name: HeadsConfig.of(ModelConfig.load(ZOO / name)) for name in model_names()}
    return {name: found for name, found in configs.items() if found is not None}


def which_have_heads() -> str:
    """Where to find heads, for error messages."""
    having = shipped_with_heads()
    shipped = f"Of the shipped models these have: {', '.join(having)}. " if having else ""
    return f"{shipped}To fit some to any model: clever-hub heads MODEL --data PHOTOS -o FOLDER"
