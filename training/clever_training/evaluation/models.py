"""Models to measure: ours, any timm model, random initialisations, and raw pixels."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clever_hub.backends.torch import CleverModel
from clever_hub.config import ModelConfig, PreprocessingConfig
from clever_hub.embeddings import part_columns, split
from clever_hub.errors import ConfigError
from clever_hub.images.preparing import Preprocessor
from clever_hub.pretrained import from_pretrained
from clever_training.model.backbones import check_size
from clever_training.model.pretrained import load_pretrained, pretrained_config

PIXELS_SIDE = 16
# The weight of a norm, and what timm calls a layer scale.
_OF_BRANCH = re.compile(r"\.(weight|gamma\w*)$")
_SILENT = 1e-3


@runtime_checkable
class FeatureExtractor(Protocol):
    """Turns photos into feature vectors.

    Attributes:
        name: Name in tables.
        preprocessing: Size of the input; photos are resized and cropped by it, then perturbed.
        parts: Columns of each part: ``full``, and ``invariant`` and ``equivariant`` if the model
            has them.
    """

    name: str
    preprocessing: PreprocessingConfig
    parts: dict[str, slice]

    @property
    def identity(self) -> str:
        """SHA-256 over everything but the photos that the features depend on."""
        ...

    def describe(self) -> dict[str, Any]:
        """The description of the model in evaluation.json."""
        ...

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """The input for one perturbed photo of the right size."""
        ...

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features float32 (N, d) for a batch of inputs."""
        ...


class ModelFeatures:
    """Features of a ``CleverModel``, computed in eval mode, in float32.

    Attributes:
        name: Name in tables.
        model: The model.
        preprocessing: The model's preprocessing, or the same at another size.
        parts: Columns of ``full``, ``invariant`` and ``equivariant``; ``full`` alone for a model
            without an equivariant part.
        last_blocks: Number of a ViT's last blocks whose CLS tokens are concatenated; 1 is the
            model's own embedding.
        image_size: Side of the input in pixels when it is not the model's own, else None.
    """

    def __init__(
        self,
        model: CleverModel,
        name: str,
        kind: str = "model",
        last_blocks: int = 1,
        image_size: int | None = None,
    ) -> None:
        self.name = name
        self.model = model.eval()
        self.preprocessing = resized(model.config.preprocessing, image_size)
        self.kind = kind
        self.last_blocks = last_blocks
        self.image_size = image_size
        config = model.config
        # Photos are already resized, cropped and perturbed; they only need to be normalised.
        side = self.preprocessing.crop_size
        self._normalize = Preprocessor(replace(self.preprocessing, resize_size=side))
        self.parts = part_columns(
            last_blocks * config.invariant_dim, last_blocks * config.num_features
        )
        self._digest: str | None = None
        if image_size is not None:
            check_size(model.backbone, f"--image-size: {name}, a {config.architecture},", side)
        if last_blocks > 1:
            _check_last_blocks(model, f"--last-blocks {last_blocks}: {name}, a")
        depth = len(getattr(model.backbone, "blocks", ()))
        if last_blocks > max(1, depth):
            raise ConfigError(
                f"--last-blocks {last_blocks}: {name}, a {config.architecture}, has {depth} blocks"
            )

    @property
    def identity(self) -> str:
        """A hash of the weights and settings; a renamed or copied model keeps its identity."""
        if self._digest is None:
            digest = weights_digest(self.model)
            config = self.model.config
            text = f"{config.architecture} {sorted(config.model_args.items())} {self.last_blocks}"
            text += repr(self.preprocessing)
            if self.last_blocks > 1:  # the split orders the columns, see _join
                text += f" {config.invariant_dim}"
            self._digest = hashlib.sha256(f"{digest} {text}".encode()).hexdigest()
        return self._digest

    def describe(self) -> dict[str, Any]:
        """Name, backbone, sizes, hash of the weights and where they came from."""
        source, config = self.model.source, self.model.config
        trained = config.provenance
        return {
            "name": self.name,
            "kind": self.kind,
            "architecture": config.architecture,
            "dims": dims(self.parts),
            "input_size": self.preprocessing.crop_size,
            "weights_sha256": source.weights_sha256 if source else None,
            "identity": self.identity,
            "last_blocks": self.last_blocks,
            "method": trained.get("method"),
            "epochs": trained.get("epochs"),
            "hours": trained.get("hours"),
            "data": trained.get("data"),
            "views": self._views(),
            "split_trained": self._split_trained(),
        }

    def _views(self) -> str | None:
        """The augmentation that a recipe names, which replaces the strategy; else the strategy."""
        views = (self.model.config.provenance.get("recipe") or {}).get("views") or {}
        return views.get("aug") or views.get("strategy")

    def _split_trained(self) -> bool | None:
        """Whether the parts were trained differently; None when the provenance does not say."""
        method = (self.model.config.provenance.get("recipe") or {}).get("method") or {}
        split = len(self.parts) > 1 and self.kind == "model"
        return method.get("equivariance") if split else None

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """Normalise; the size is already right."""
        return self._normalize(image)

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings float32 (N, d) of inputs (N, 3, H, W)."""
        parameter = next(self.model.parameters())
        inputs = torch.from_numpy(batch).to(parameter.device, parameter.dtype)
        # Convolutions on a CPU are a fifth faster in channels_last.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            tokens = self._class_tokens(inputs) if self.last_blocks > 1 else None
            output = self.model(inputs).full if tokens is None else self._join(tokens)
        result: NDArray[np.float32] = output.float().cpu().numpy()
        return result

    def _class_tokens(self, inputs: torch.Tensor) -> Sequence[torch.Tensor]:
        """The normalised CLS tokens (N, d) of the last blocks, in the order of the blocks."""
        backbone: Any = self.model.backbone
        layers = backbone.get_intermediate_layers(
            inputs, n=self.last_blocks, return_prefix_tokens=True, norm=True
        )
        return [prefix[:, 0] for _, prefix in layers]

    def _join(self, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        """Concatenate the tokens, all invariant parts first, so that the parts are contiguous."""
        parts = [split(token, self.model.config.invariant_dim) for token in tokens]
        invariant, equivariant = zip(*parts, strict=True)
        return torch.cat([*invariant, *equivariant], dim=1)


def _check_last_blocks(model: CleverModel, what: str) -> None:
    """Refuse a model whose embedding is not the class token of its last block."""
    backbone, config = model.backbone, model.config
    if not hasattr(backbone, "get_intermediate_layers"):
        raise ConfigError(f"{what} {config.architecture}: expected a vision transformer")
    pool = getattr(backbone, "global_pool", "")
    if getattr(backbone, "cls_token", None) is None or pool != "token":
        raise ConfigError(
            f"{what} {config.architecture}: expected one whose embedding is its class token; "
            f"it pools by {pool or 'none'!r}"
        )
    if config.projection:
        raise ConfigError(
            f"{what} {config.architecture}: has a projection, as `clever-hub split` makes; without "
            "it the columns of earlier blocks have no parts. Measure the model it was made of"
        )


class PixelFeatures:
    """Raw pixels of the shrunk photo: the baseline that any representation should beat.

    Attributes:
        name: Name in tables.
        preprocessing: That of the model beside it, so that both see the same crop of each photo.
        parts: ``full`` alone.
        side: Side in pixels to which photos are averaged down.
    """

    def __init__(self, preprocessing: PreprocessingConfig, side: int = PIXELS_SIDE) -> None:
        self.name = "pixels"
        self.preprocessing = preprocessing
        self.side = side
        self.parts = {"full": slice(0, 3 * side * side)}
        self._normalize = Preprocessor(replace(preprocessing, resize_size=side, crop_size=side))

    @property
    def identity(self) -> str:
        """A hash of the sizes and the normalisation."""
        return hashlib.sha256(f"pixels {self.side} {self.preprocessing}".encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name and sizes."""
        return {
            "name": self.name,
            "kind": "pixels",
            "architecture": f"{self.side}x{self.side} pixels",
            "dims": dims(self.parts),
            "input_size": self.preprocessing.crop_size,
            "weights_sha256": None,
            "identity": self.identity,
        }

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """Shrink by averaging and normalise: float32 (3, side, side)."""
        return self._normalize(image.resize((self.side, self.side), Image.Resampling.BOX))

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Flatten to (N, 3·side²)."""
        return batch.reshape(len(batch), -1)


def load_extractor(
    specification: str,
    *,
    device: str | None = None,
    last_blocks: int = 1,
    image_size: int | None = None,
    seed: int = 0,
) -> FeatureExtractor:
    """Load the model that the user named.

    Args:
        specification: A model's name, folder or Hub id, as ``clever_hub.from_pretrained`` takes
            it; ``timm:NAME`` for pretrained weights of timm; ``random:X`` for X's architecture
            with random weights; ``pixels`` or ``pixels:SIDE``, as a 64 px crop.
        device: Where to compute; None is the CPU.
        last_blocks: Number of a ViT's last blocks whose CLS tokens are concatenated.
        image_size: Side of the model's input in pixels; None is the model's own.
        seed: Seed of random weights.

    Returns:
        The extractor.

    Raises:
        ModelNotFoundError: When there is no such model.
        ConfigError: When the specification is malformed, ``last_blocks`` is given for a model that
            is no ViT, or the model does not take images of that size.

    Example:
        >>> load_extractor("pixels:8").parts["full"]
        slice(0, 192, None)
    """
    kind, _, rest = specification.partition(":")
    if kind == "pixels":
        if rest and not rest.isdigit():
            raise ConfigError(f"{specification}: expected pixels:SIDE, such as pixels:16")
        return PixelFeatures(
            resized(PreprocessingConfig(64, 64), image_size), int(rest or PIXELS_SIDE)
        )
    if kind == "random":
        config = pretrained_config(rest)
        model, name = random_model(config, seed, device), specification
    elif kind == "timm":
        model, name = load_pretrained(specification, device), specification
    else:
        model, kind = from_pretrained(specification, device=device), "model"
        name = model.config.name
    return ModelFeatures(model, name, kind, last_blocks, image_size)


def random_twin(extractor: FeatureExtractor, seed: int) -> FeatureExtractor | None:
    """The same architecture and split with random weights; None for raw pixels.

    Args:
        extractor: The model.
        seed: Seed of the random weights.

    Returns:
        The twin, on the same device.
    """
    if not isinstance(extractor, ModelFeatures):
        return None
    device = next(extractor.model.parameters()).device
    model = random_model(extractor.model.config, seed, str(device))
    return ModelFeatures(
        model,
        f"random:{extractor.name}",
        "random",
        extractor.last_blocks,
        extractor.image_size,
    )


def random_model(config: ModelConfig, seed: int, device: str | None = None) -> CleverModel:
    """A model with newly initialised weights; torch's global generator does not change.

    Networks are often made so that each residual branch starts silent: the last norm of it with a
    weight of 0, or a layer scale of 1e-6. What is left hardly looks at the photo: of a ResNet, the
    stem and the strided 1 × 1 shortcuts. As a network to compare with, all branches speak: these
    weights are 1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The provenance is of the trained weights.
        model = CleverModel(replace(config, provenance={}))
    with torch.no_grad():
        for name, weight in model.backbone.named_parameters():
            if _OF_BRANCH.search(name) and weight.ndim == 1 and weight.abs().max() < _SILENT:
                weight.fill_(1.0)
    return model.to(torch.device(device or "cpu")).eval()


def resized(preprocessing: PreprocessingConfig, side: int | None) -> PreprocessingConfig:
    """The same preprocessing at another size; the crop shows the same part of each photo.

    Args:
        preprocessing: The model's own.
        side: Side of the square centre crop in pixels; None changes nothing.

    Returns:
        The preprocessing.

    Example:
        >>> resized(PreprocessingConfig(resize_size=256, crop_size=224), 112).resize_size
        128
    """
    if side is None:
        return preprocessing
    shortest = round(side * preprocessing.resize_size / preprocessing.crop_size)
    return replace(preprocessing, resize_size=shortest, crop_size=side)


def dims(parts: dict[str, slice]) -> dict[str, int]:
    """The length of each part."""
    return {name: part.stop - part.start for name, part in parts.items()}


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over every tensor of the state dict, names and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
        digest.update(f"{name} {tuple(values.shape)} {tensor.dtype} ".encode())
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
