"""``from_pretrained``: load a model with any backend."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, SupportsIndex, overload

from clever_hub.config import CONFIG_NAME
from clever_hub.errors import ConfigError, require, suggest
from clever_hub.hub.resolve import resolve
from clever_hub.jobs.heads import HEADS_NAME
from clever_hub.weights import WEIGHTS_NAME

if TYPE_CHECKING:
    import torch

    from clever_hub.backends.int8 import Calibration
    from clever_hub.backends.onnx import OnnxModel, Provider
    from clever_hub.backends.torch import CleverModel


class _Backend(NamedTuple):
    """A module with ``load(folder, source, *, device, dtype, **options)``.

    Attributes:
        module: The module.
        extra: The extra that installs what it imports.
        needs: The modules that it imports.
        files: The files of a model folder that it reads; only these are downloaded.
        optional: Files that it reads when the folder has them.
    """

    module: str
    extra: str
    needs: tuple[str, ...]
    files: tuple[str, ...] = (CONFIG_NAME, WEIGHTS_NAME)
    optional: tuple[str, ...] = (HEADS_NAME,)


_BACKENDS = {
    "onnx": _Backend(
        "clever_hub.backends.onnx",
        "onnx",
        ("onnxruntime",),
        (CONFIG_NAME, "model.onnx"),
        # The graph of a variant (float16, int8) has its own weights in model.onnx.data.
        (WEIGHTS_NAME, "model.onnx.data", HEADS_NAME),
    ),
    "torch": _Backend(
        "clever_hub.backends.torch", "torch", ("torch", "timm", "safetensors", "jaxtyping")
    ),
}


_GRAPH = "model.onnx"


def backend_names() -> list[str]:
    """The names that ``from_pretrained(backend=…)`` accepts."""
    return ["auto", *sorted(_BACKENDS)]


def installed(backend: str) -> bool:
    """Whether the packages that a backend imports are installed; none of them is imported."""
    return all(importlib.util.find_spec(module) for module in _BACKENDS[backend].needs)


def fastest_backend(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | None = None,
    revision: str | None = None,
) -> str:
    """The fastest installed backend that can embed with a model; what the verbs take by default.

    On a CPU that is ONNX Runtime, 1.6 to 4 times as fast as torch, where the model has a graph; on
    a GPU it is ONNX Runtime where its build has CUDA, else torch.

    Args:
        name_or_path: As for ``from_pretrained``.
        device: As for ``from_pretrained``.
        revision: As for ``from_pretrained``.

    Returns:
        ``"onnx"`` or ``"torch"``.

    Raises:
        ModelNotFoundError: When there is no such model.
        HubError: When the Hub cannot be reached or refuses.
    """
    if not installed("onnx"):
        return "torch"
    if not installed("torch"):
        return "onnx"
    if device not in (None, "cpu"):
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "torch"
    folder, _ = resolve(name_or_path, files=(CONFIG_NAME,), optional=(_GRAPH,), revision=revision)
    return "onnx" if (folder / _GRAPH).is_file() else "torch"


# Each overload spells its keywords, so that a type checker refuses a misspelt one. A type checker
# that knows torch's types has torch installed, so that "auto" is the torch backend.
@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: Literal["auto", "torch"] = "auto",
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    threads: SupportsIndex | None = None,
) -> CleverModel: ...


@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: Literal["onnx"],
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    providers: Sequence[Provider] | None = None,
    threads: SupportsIndex | None = None,
    tensorrt: bool = False,
    precision: str | None = None,
    calibration: Calibration = None,
) -> OnnxModel: ...


@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    threads: SupportsIndex | None = None,
) -> CleverModel | OnnxModel: ...


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    **backend_options: Any,
) -> CleverModel | OnnxModel:
    """Load a model, ready to embed images.

    Args:
        name_or_path: A model folder, the name of a model that ships in the package (see
            ``list_models``), or a repository on the Hugging Face Hub, ``user/name``; searched in
            this order. A bare name that does not ship is searched in the organisation
            ``clever-hub``. ``model.source`` says what was found; for the Hub, with its commit.
        backend: ``"torch"``; ``"onnx"`` for ONNX Runtime, which needs no torch and a folder with
            model.onnx; or ``"auto"``: torch where it is installed, else onnx. ``repr(model)`` says
            which it is.
        revision: A branch, tag or commit on the Hub; None is main. Folders and shipped models have
            no revisions.
        device: Such as ``"cuda"`` or ``"cuda:1"``; None is the CPU. A device that is missing is an
            error; there is no silent fallback to the CPU.
        dtype: The dtype to compute in, such as ``"bfloat16"``; None is float32.
        cache_dir: Folder for downloads; None is the cache that all Hugging Face libraries share
            (HF_HOME).
        local_files_only: Use only files that are already in the cache; send no request.
            HF_HUB_OFFLINE=1 does the same. Folders and shipped models never need a request.
        token: Access token for private and gated repositories; None takes HF_TOKEN or the token of
            ``hf auth login``; False sends none.
        **backend_options: Options of the backend: ``threads`` for both (torch has one number of
            threads for the whole process); for onnx also ``providers``, ``tensorrt``,
            ``precision="int8"``, which makes an int8 variant once, checks that it is faithful and
            keeps it in a cache, and ``calibration``, photos like those that it will be used on.

    Returns:
        The model, in eval mode. ``model.encode(images)`` returns ``Embeddings``. A torch model is
        also a differentiable ``nn.Module`` that takes ``pixel_values``; an onnx model takes a
        float32 array.

    Raises:
        ModelNotFoundError: When there is no such model; suggests similar names.
        ModelFormatError: When the model's config or weights are wrong. A model is never partly
            loaded.
        HubError: When the Hub cannot be reached or refuses, or the cache cannot be used.
        DeviceError: When the device is not there.
        MissingExtraError: When the backend is not installed; says how to install it.
        ConfigError: When the backend or one of its options is unknown.

    Example:
        >>> import clever_hub
        >>> model = clever_hub.from_pretrained("clever-resnet18")  # doctest: +SKIP
        >>> e = model.encode("photo.jpg")  # doctest: +SKIP
        >>> e.invariant.shape, e.equivariant.shape  # doctest: +SKIP
        ((1, 409), (1, 103))
    """
    if backend == "auto":
        backend = "torch" if installed("torch") or not installed("onnx") else "onnx"
    if backend not in _BACKENDS:
        raise ConfigError(f"backend: unknown {backend!r}. {suggest(backend, backend_names())}")
    chosen = _BACKENDS[backend]
    for module in chosen.needs:  # checked first, so that nothing is downloaded in vain
        require(module, chosen.extra)
    folder, source = resolve(
        name_or_path,
        files=chosen.files,
        optional=chosen.optional,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    load = require(chosen.module, chosen.extra).load
    model: CleverModel | OnnxModel = load(
        folder, source, device=device, dtype=dtype, **backend_options
    )
    return model
