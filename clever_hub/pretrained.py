"""``from_pretrained``: one door to every backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from clever_hub.errors import ConfigError, ModelNotFoundError, require, suggest
from clever_hub.resolve import resolve

if TYPE_CHECKING:
    import torch

    from clever_hub.onnx_model import OnnxModel
    from clever_hub.torch_model import CleverModel


class _Backend(NamedTuple):
    """A module with ``load(folder, source, *, device, dtype, **options)``, and what it imports."""

    module: str
    extra: str
    needs: tuple[str, ...]


_BACKENDS = {
    "onnx": _Backend("clever_hub.onnx_model", "onnx", ("onnxruntime",)),
    "torch": _Backend(
        "clever_hub.torch_model", "torch", ("torch", "timm", "safetensors", "jaxtyping")
    ),
}


def backend_names() -> list[str]:
    """The names that ``from_pretrained(backend=…)`` accepts."""
    return sorted(_BACKENDS)


@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: Literal["torch"] = "torch",
    **options: Any,
) -> CleverModel: ...


@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str], *, backend: Literal["onnx"], **options: Any
) -> OnnxModel: ...


@overload
def from_pretrained(
    name_or_path: str | os.PathLike[str], *, backend: str, **options: Any
) -> CleverModel | OnnxModel: ...


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str = "torch",
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    cache_dir: str | os.PathLike[str] | None = None,  # noqa: ARG001
    local_files_only: bool = False,  # noqa: ARG001
    token: str | None = None,  # noqa: ARG001
    **backend_options: Any,
) -> CleverModel | OnnxModel:
    """Load a model, ready to embed images.

    Args:
        name_or_path: A model folder, or the name of a model that ships in the package (see
            ``list_models``). A folder comes first.
        backend: ``"torch"``, or ``"onnx"``: ONNX Runtime, which needs no torch, for folders with a
            model.onnx.
        revision: A commit or branch on the Hub; folders and shipped models have none.
        device: Such as ``"cuda"`` or ``"cuda:1"``; None is the CPU. One that is missing is an
            error, never a silent CPU.
        dtype: What to compute in, such as ``"bfloat16"``; None is float32.
        cache_dir: Where downloads are kept; folders and shipped models need none.
        local_files_only: Never ask the network; folders and shipped models never do.
        token: Access token for the Hub; folders and shipped models need none.
        **backend_options: Options of the backend: ``providers``, ``threads`` and ``tensorrt`` of
            onnx; torch has none.

    Returns:
        The model, in eval mode. ``model.encode(images)`` gives ``Embeddings``; a torch model is
        also an ``nn.Module``, called with ``pixel_values``, differentiable; an onnx model is called
        with a float32 array.

    Raises:
        ModelNotFoundError: When there is no such model; names the nearest.
        ModelFormatError: When the model's config or weights are wrong. Nothing is half loaded.
        DeviceError: When the device is not there.
        MissingExtraError: When the backend is not installed; says how to.
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
    folder, source = resolve(name_or_path)
    if revision is not None:
        raise ModelNotFoundError(
            f"{source.name}: a {'shipped model' if source.kind == 'zoo' else 'folder'} has no "
            f"revisions, got revision={revision!r}. Leave it out"
        )
    chosen = _BACKENDS[backend]
    for module in chosen.needs:
        require(module, chosen.extra)
    load = require(chosen.module, chosen.extra).load
    model: CleverModel | OnnxModel = load(
        folder, source, device=device, dtype=dtype, **backend_options
    )
    return model
