"""The torch backend: a timm backbone whose embedding is split in two."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, cast

import numpy as np
import timm
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from clever_hub.backends.evaluating import evaluating
from clever_hub.backends.timm import (
    BackboneError,
    build_backbone,
    embedding_length,
    faster_in_channels_last,
)
from clever_hub.backends.tokens import embed_tokens, token_grid
from clever_hub.backends.variants import GRAPH_NAME, VARIANT_KEY, check_graph_beside
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.embeddings import split
from clever_hub.errors import ConfigError, DeviceError, ModelFormatError
from clever_hub.files import atomic_path, to_json
from clever_hub.hub.origin import trained_further
from clever_hub.hub.source import Source
from clever_hub.images.preparing import Preprocessor
from clever_hub.jobs.answering import JobsMixin
from clever_hub.jobs.heads import HEADS_KEY, HEADS_NAME, Heads, copy_heads
from clever_hub.threads import check_threads
from clever_hub.weights import WEIGHTS_NAME, Weights, check_shapes

MAX_PARAMETERS = 4_000_000_000


class CleverOutput(NamedTuple):
    """The two parts of a batch of embeddings; gradients flow through both.

    Attributes:
        invariant: float (batch, invariant_dim); z_IR in the paper.
        equivariant: float (batch, equivariant_dim); z_EF in the paper.
    """

    invariant: Float[Tensor, "batch invariant"]
    equivariant: Float[Tensor, "batch equivariant"]

    @property
    def full(self) -> Float[Tensor, "batch dim"]:
        """The whole embedding, the invariant part first."""
        return torch.cat(self, dim=1)


class CleverModel(JobsMixin, nn.Module):
    """A backbone whose embedding has an invariant and an equivariant part.

    The split is that of CLeVER (Song et al., https://arxiv.org/abs/2406.00262, section 3.2): the
    first ``invariant_dim`` entries and the rest.

    ``model.compile()`` compiles it in place, and ``encode`` runs what was compiled. The wrapper
    that ``torch.compile(model)`` returns compiles only calls of itself: its ``encode`` is this
    model's.

    Attributes:
        config: What the model is.
        source: Where its weights came from; None for a model built from a config alone.
        preprocessor: Turns images into ``pixel_values``.
        backbone: The timm model; its classifier is absent, or the model's projection.

    Example:
        >>> import torch
        >>> from clever_hub import ModelConfig
        >>> from clever_hub.config import PreprocessingConfig
        >>> config = ModelConfig(
        ...     name="clever-resnet18", architecture="resnet18", num_features=512,
        ...     invariant_dim=409, preprocessing=PreprocessingConfig(64, 64))
        >>> out = CleverModel(config)(torch.zeros(2, 3, 64, 64))
        >>> out.invariant.shape, out.equivariant.shape
        (torch.Size([2, 409]), torch.Size([2, 103]))
    """

    def __init__(self, config: ModelConfig) -> None:
        """Build the backbone with random weights.

        Args:
            config: What to build.

        Raises:
            ModelFormatError: When timm cannot build it, it is absurdly large, or its embedding
                has another length than the config says.
        """
        super().__init__()
        expected_shapes(config)
        self.config = config
        self.source: Source | None = None
        self.preprocessor = Preprocessor(config.preprocessing)
        # As it was for these weights, whatever becomes of the model's config or of its folder.
        self._provenance = copy.deepcopy(config.provenance)
        self.backbone = _build_backbone(config)
        self._channels_last = faster_in_channels_last(self.backbone)
        self._loaded = -1  # changes in place to tensors when they were loaded
        self._is_changed = False  # since then, as a save found
        self._compared = -1  # changes in place when the weights were last found as loaded

    def forward(
        self, pixel_values: Float[Tensor, "batch 3 height width"] | NDArray[Any]
    ) -> CleverOutput:
        """Embed a batch of prepared images, differentiably.

        Args:
            pixel_values: Images as ``preprocessor`` makes them: RGB, normalised. An array is taken
                to the device and dtype of the weights, a tensor as it is.

        Returns:
            The raw (not normalised) embeddings.

        Raises:
            ValueError: When an array is not float32 (batch, 3, height, width).
        """
        if isinstance(pixel_values, np.ndarray):
            if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
                raise ValueError(
                    f"pixel_values: expected (batch, 3, height, width), got {pixel_values.shape}. "
                    "Give model.preprocessor.batch(images)"
                )
            if pixel_values.dtype != np.float32:
                raise ValueError(
                    f"pixel_values: expected float32, got {pixel_values.dtype}. Give "
                    "model.preprocessor.batch(images)"
                )
            pixel_values = self._inputs(pixel_values)
        embedding = self.backbone(pixel_values)  # (batch, num_features)
        return CleverOutput(*split(embedding, self.config.invariant_dim))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> CleverModel:
        """Load a model folder: config.json and model.safetensors, strictly.

        Args:
            folder: The model folder.
            device: Such as ``"cuda:1"``; None is the CPU.
            dtype: The dtype to compute in, such as ``"bfloat16"``; None is float32, even where the
                weights are stored as float16.

        Returns:
            The model, in eval mode.

        Raises:
            ModelFormatError: When the config or the weights are wrong; names every tensor that is
                missing, unexpected, of the wrong shape or not finite.
            DeviceError: When the device is not there.
            ConfigError: When the dtype is not supported.

        Example:
            >>> model = CleverModel.from_folder("runs/mine/model")  # doctest: +SKIP
        """
        target = _device(device), _dtype(dtype)
        config = ModelConfig.load(folder)
        if VARIANT_KEY in config.extra:
            raise ModelFormatError(
                f"{folder}: an ONNX variant, which only ONNX Runtime reads. Load it with "
                'backend="onnx"'
            )
        with Weights(Path(folder) / WEIGHTS_NAME) as weights:
            weights.check(expected_shapes(config))
            model = cls(config)
            _copy_weights(model.backbone, weights)
            model.source = Source("folder", config.name, Path(folder), None, weights.sha256())
        model = model.to(*target).eval()
        model._loaded = _changes(model.backbone.state_dict())
        return model

    def save_pretrained(self, folder: str | Path, half_matrices: bool = False) -> Path:
        """Write a model folder that ``from_pretrained`` reads.

        Heads go along while the weights are those that they were fitted to. After a change, such as
        fine-tuning, they would answer wrongly: the folder has none, and ``clever-hub heads`` fits
        new ones. The provenance then only says what the training began with, unless
        ``model.config`` was given another one.

        Args:
            folder: The folder, made when missing; other files in it are left alone.
            half_matrices: Store tensors of two and more dimensions as float16: half the size.

        Returns:
            The folder.

        Raises:
            ModelFormatError: When the weights are not float32, a tensor is not finite, or float16
                cannot hold it.
        """
        config, weights = self.config, self.backbone.state_dict()
        _check_precision(weights)
        if self.source is not None:
            # Once saved onto its own folder, a changed model would be found there as it is.
            self._is_changed = self._is_changed or not self._is_as_loaded(self.source.path)
            if self._is_changed:
                config = self._changed_config(self.source)
            elif self.has_heads:
                copy_heads(self.source.path, folder)
        return write_model_folder(folder, config, weights, half_matrices)

    @property
    def heads(self) -> Heads:
        """The heads that lie beside the weights, read at their first use.

        Raises:
            ModelFormatError: When the model has none, they are damaged, or the weights have changed
                since they were loaded, as by training: the heads would answer wrongly.
        """
        if self.source is not None and self.has_heads and self._has_changed(self.source.path):
            raise ModelFormatError(
                f"{self.config.name}: expected the weights that its heads were fitted to, got "
                "others, such as after training. Save the model and fit new heads: clever-hub "
                "heads MODEL --data PHOTOS -o FOLDER"
            )
        return super().heads

    def _has_changed(self, folder: Path) -> bool:
        """Whether these are other weights than those loaded; the file is read once per change."""
        now = _changes(self.backbone.state_dict())
        if self._is_changed or now == self._compared:
            return self._is_changed
        as_loaded = self._is_as_loaded(folder)
        if as_loaded:
            self._compared = now
        return not as_loaded

    def _is_as_loaded(self, folder: Path) -> bool:
        """Whether these are the weights of the folder that they were loaded from."""
        tensors = self.backbone.state_dict()
        try:
            return _has_values(folder / WEIGHTS_NAME, tensors)
        except ModelFormatError:  # the folder has gone
            return _changes(tensors) == self._loaded

    def _changed_config(self, source: Source) -> ModelConfig:
        """The config without what was said of the weights before they changed."""
        config = self.config
        extra = {key: value for key, value in config.extra.items() if key != HEADS_KEY}
        provenance = config.provenance
        if provenance == self._provenance:
            provenance = trained_further(config, source.weights_sha256)
        return replace(config, extra=extra, provenance=provenance)

    def _backend(self) -> str:
        """Device and dtype of the weights."""
        parameter = next(self.backbone.parameters())
        return f"torch on {parameter.device}, {str(parameter.dtype).removeprefix('torch.')}"

    def _embed_batch(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed (N, 3, H, W) float32; returns (N, num_features) float32."""
        with torch.inference_mode():
            # Called as a user calls it, so that what model.compile() has made is used.
            embedding: Tensor = evaluating(self)(self._inputs(pixel_values)).full
            result: NDArray[np.float32] = embedding.float().cpu().numpy()
        return result

    def _inputs(self, pixel_values: NDArray[np.float32]) -> Tensor:
        """The images where the weights are, in their dtype, in the order that is fastest."""
        parameter = next(self.backbone.parameters())
        images = torch.from_numpy(pixel_values).to(parameter.device, parameter.dtype)
        measured = images.device.type == "cpu" and images.dtype == torch.float32
        if self._channels_last and measured:
            return images.to(memory_format=torch.channels_last)
        return images

    def _token_grid(self) -> tuple[int, int]:
        """Rows and columns of patches in an input; ConfigError for other than ViTs."""
        config = self.config
        return token_grid(self.backbone, config.architecture, config.preprocessing.crop_size)

    def _embed_tokens(
        self, pixel_values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embed (N, 3, H, W): (N, num_features), and (N, rows, columns, num_features) tokens."""
        with torch.inference_mode():
            backbone = evaluating(self.backbone)
            found = embed_tokens(backbone, self._inputs(pixel_values), self._token_grid())
            return found.embedding.float().cpu().numpy(), found.patches.float().cpu().numpy()


def load(
    folder: Path,
    source: Source,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    threads: SupportsIndex | None = None,
    **options: Any,
) -> CleverModel:
    """What ``clever_hub.from_pretrained(backend="torch")`` calls; see there."""
    if options:
        raise ConfigError(
            f"the torch backend has no option {sorted(options)}; known: threads. Options such as "
            "precision and calibration are those of backend='onnx'"
        )
    if (count := check_threads(threads)) is not None:
        torch.set_num_threads(count)
    model = CleverModel.from_folder(folder, device=device, dtype=dtype)
    assert model.source is not None
    digest = str(model.source.weights_sha256)
    model.source = source.verified(digest)
    check_graph_beside(folder, digest)
    return model


def write_model_folder(
    folder: str | Path,
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    half_matrices: bool = False,
) -> Path:
    """Write config.json and model.safetensors, so that no reader ever sees a partial file.

    Both are written in full under temporary names, then renamed one by one.

    Args:
        folder: The model folder, created when missing; other files in it are left alone.
        config: The model's config.
        state_dict: The backbone's state dict, under timm's own names, on any device.
        half_matrices: Store tensors of two and more dimensions as float16. Those of one dimension
            (biases, norms) stay float32: they are small and need the range.

    Returns:
        The folder.

    Raises:
        ModelFormatError: When the tensors do not fit the config, are not finite, float16 cannot
            hold one, or the folder has a model.onnx made for other weights. Nothing is written in
            these cases.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    check_shapes(config.name, shapes, expected_shapes(config))
    stored = {name: to_store(name, value, half_matrices) for name, value in state_dict.items()}
    folder = Path(folder)
    content = save(stored, metadata={"format": "pt"})
    _check_graph(folder, content)
    # The inner context ends first: the weights are renamed before the config, so a new folder never
    # has a config without weights.
    with atomic_path(folder / CONFIG_NAME) as text, atomic_path(folder / WEIGHTS_NAME) as weights:
        complete = _with_timm_names(_kept_promises(config, folder))
        text.write_text(to_json(complete.to_dict()), encoding="utf-8")
        # safetensors' own save_file makes a file that only its owner may read.
        weights.write_bytes(content)
    return folder


def _with_timm_names(config: ModelConfig) -> ModelConfig:
    """The config with the names by which timm adapts a model to other classes or channels.

    With them, ``timm.create_model("local-dir:…", pretrained=True, num_classes=10, in_chans=1)``
    makes a new classifier and sums the first filters. A projection is the model's own classifier,
    which nothing may replace.
    """
    known = timm.get_pretrained_cfg(config.architecture)
    if config.projection or known is None:
        return config
    names = {"classifier": known.classifier, "first_conv": known.first_conv}
    entries = {key: value for key, value in names.items() if isinstance(value, str)}
    given = config.extra.get("pretrained_cfg", {})
    return replace(config, extra={**config.extra, "pretrained_cfg": {**entries, **given}})


def _kept_promises(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config without the entries that name a file which is not in the folder."""
    named = config.extra.get("auto_map", {})
    entries = named.values() if isinstance(named, dict) else [named]
    files = {
        "auto_map": [f"{str(entry).partition('.')[0]}.py" for entry in entries],
        HEADS_KEY: [HEADS_NAME],
    }
    broken = {key for key, names in files.items() if not all((folder / n).is_file() for n in names)}
    return replace(config, extra={k: v for k, v in config.extra.items() if k not in broken})


def _check_graph(folder: Path, content: bytes) -> None:
    """Refuse weights that the folder's model.onnx was not made for: it refers to their bytes."""
    graph = folder / GRAPH_NAME
    digest = hashlib.sha256(content).hexdigest()
    if graph.is_file() and digest.encode() not in graph.read_bytes():
        raise ModelFormatError(
            f"{graph}: belongs to other weights than those to be written beside it. Choose another "
            "folder, or remove model.onnx and export it again"
        )


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the config's backbone; allocates none of them.

    Args:
        config: The model's config.

    Returns:
        Shapes under timm's own names, batch norm's counters included.

    Raises:
        ModelFormatError: When timm cannot build it, it is absurdly large, or its embedding has
            another length than the config says.
    """
    with torch.device("meta"):
        backbone = _build_backbone(config)
    tensors = (*backbone.parameters(), *backbone.buffers())
    if (count := sum(tensor.numel() for tensor in tensors)) > MAX_PARAMETERS:
        raise ModelFormatError(
            f"{config.architecture} with {config.model_args}: expected at most {MAX_PARAMETERS:,} "
            f"parameters, got {count:,}"
        )
    width = embedding_length(backbone)
    if width != config.num_features:
        raise ModelFormatError(
            f"num_features: {config.architecture} with {config.model_args} gives {width}, "
            f"config.json says {config.num_features}"
        )
    return {name: tuple(tensor.shape) for name, tensor in backbone.state_dict().items()}


def _build_backbone(config: ModelConfig) -> nn.Module:
    try:
        return build_backbone(config.architecture, config.model_args, projection=config.num_classes)
    except BackboneError as error:
        raise ModelFormatError(str(error)) from error


def _copy_weights(backbone: nn.Module, weights: Weights) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in weights.tensors().items()}
    if bad := [name for name, tensor in tensors.items() if not _finite(tensor)]:
        raise ModelFormatError(f"{weights.path}: not finite: {', '.join(sorted(bad)[:20])}")
    backbone.load_state_dict(tensors, strict=True)


def _changes(tensors: Mapping[str, Tensor]) -> int:
    """How often tensors were changed in place, as training does."""
    # Those of torch.inference_mode count nothing, and no training changes them.
    return sum(0 if tensor.is_inference() else tensor._version for tensor in tensors.values())


def _has_values(file: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a weights file has these values, in the precision that both have."""
    with Weights(file) as weights:
        stored = {name: torch.from_numpy(array) for name, array in weights.tensors().items()}
        return stored.keys() == tensors.keys() and all(
            torch.equal(stored[name].to(value.dtype), value.cpu())
            for name, value in tensors.items()
        )


def _check_precision(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that were rounded, which would pass as the original."""
    kinds = {str(t.dtype) for t in tensors.values() if t.is_floating_point()} - {"torch.float32"}
    if kinds:
        raise ModelFormatError(
            f"expected float32 weights, which every reader loads, got {', '.join(sorted(kinds))}. "
            "Save model.float(); from_pretrained(…, dtype=torch.bfloat16) computes in another"
        )


def to_store(name: str, tensor: Tensor, half_matrices: bool) -> Tensor:
    """A tensor as it goes into a file: on the CPU, contiguous, no memory shared.

    Args:
        name: What an error calls it.
        tensor: Of any dtype; floating-point ones become float32 or float16.
        half_matrices: As for ``write_model_folder``.

    Returns:
        A copy.

    Raises:
        ModelFormatError: When it is not finite, or float16 cannot hold it.
    """
    if tensor.is_floating_point():
        half = half_matrices and tensor.ndim >= 2
        tensor = tensor.detach().to("cpu", torch.float16 if half else torch.float32)
        if not _finite(tensor):
            raise ModelFormatError(
                f"{name}: expected finite numbers{' that float16 can hold' if half else ''}"
            )
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _device(device: str | torch.device | None) -> torch.device:
    """The device, checked to exist; there is no silent fallback to the CPU."""
    try:
        wanted = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"device: expected 'cpu', 'cuda', 'cuda:1', 'mps' …, got {device!r}"
        ) from error
    if wanted.type == "meta":
        raise DeviceError("device: 'meta' holds no numbers to compute with. Leave device out")
    try:
        torch.empty(1, device=wanted)
    except Exception as error:  # which one depends on the device and on torch's build
        raise DeviceError(
            f"device {str(wanted)!r} was asked for and cannot be used here "
            f"({str(error).splitlines()[0]}). Leave device out for the CPU"
        ) from error
    return wanted


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    found: Any = torch.float32 if dtype is None else dtype
    if isinstance(dtype, str):
        found = getattr(torch, dtype.removeprefix("torch."), None)
    if found not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ConfigError(f"dtype: expected 'float32', 'bfloat16' or 'float16', got {dtype!r}")
    return cast("torch.dtype", found)
