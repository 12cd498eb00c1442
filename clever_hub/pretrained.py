"""``from_pretrained``: load a model with any backend."""

from __future__ import annotations

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


def backend_names() -> list[str]:
    """The names that ``from_pretrained(backend=…)`` accepts."""
    return sorted(_BACKENDS)


# Each overload spells its keywords, so that a type checker refuses a misspelt one.
@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: Literal["torch"] = "torch",
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
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
) -> CleverModel | OnnxModel: ...


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str = "torch",
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
        backend: ``"torch"``, or ``"onnx"`` for ONNX Runtime, which needs no torch and a folder with
            model.onnx.
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
        **backend_options: Options of the backend: ``providers``, ``threads`` and ``tensorrt`` for
            onnx; torch has none.

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
    if backend not in _BACKENDS:
        raise ConfigError(f"backend: unknown {backend!r}. {suggest(backend, _BACKENDS)}")
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
