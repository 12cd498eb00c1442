"""The ONNX Runtime backend: no torch, only numpy, Pillow and onnxruntime."""

from __future__ import annotations

import ctypes
import json
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clever_hub.backends.int8 import Calibration, int8_folder
from clever_hub.backends.variants import GRAPH_NAME, HASH_KEY, PIXEL_VALUES, Variant
from clever_hub.config import CONFIG_NAME, ModelConfig
from clever_hub.errors import ConfigError, DeviceError, ModelFormatError
from clever_hub.hub.source import Source
from clever_hub.images.preparing import Preprocessor
from clever_hub.jobs.answering import JobsMixin
from clever_hub.threads import check_threads
from clever_hub.weights import WEIGHTS_NAME, Weights

CONFIG_KEY = "clever_config"
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
# By default a waiting thread spins for a millisecond or more and takes the core from threads that
# decode the next images and from other processes. Ten microseconds are enough between two layers.
# Splitting the work into more pieces than threads avoids waiting for a thread that was interrupted.
# On two busy cores, from file to vector, both together saved a third of the processor time.
_SESSION_CONFIG = {
    "session.intra_op.spin_duration_us": "10",
    "session.dynamic_block_base": "4",
}

# The sessions of this process.
_SESSIONS: weakref.WeakSet[onnxruntime.InferenceSession] = weakref.WeakSet()

Provider = str | tuple[str, dict[str, Any]]


class OnnxOutput(NamedTuple):
    """Embeddings of a batch.

    Attributes:
        invariant: float32 (batch, invariant_dim).
        equivariant: float32 (batch, equivariant_dim).
    """

    invariant: NDArray[np.float32]
    equivariant: NDArray[np.float32]

    @property
    def full(self) -> NDArray[np.float32]:
        """The whole embedding, the invariant part first."""
        return np.concatenate(self, axis=1)


class OnnxModel(JobsMixin):
    """A model folder run by ONNX Runtime, with the ``encode`` of the torch backend.

    It may be shared between threads, pickled into spawned workers, and used after a fork: each
    process opens its own session. With onnxruntime 1.32, a forked child that ends by the normal
    exit of its interpreter hangs there, with or without this class. The children of multiprocessing
    are not affected; end others with ``os._exit``, or import onnxruntime after the fork.

    Attributes:
        config: What the model is.
        source: Where its weights came from.
        preprocessor: Turns images into ``pixel_values``.
        folder: The folder of the graph: the source's, or of the int8 variant made from it.

    Example:
        >>> import clever_hub
        >>> model = clever_hub.from_pretrained(
        ...     "clever-resnet18", backend="onnx", threads=2)  # doctest: +SKIP
        >>> model.encode("photo.jpg").full.shape  # doctest: +SKIP
        (1, 512)
    """

    source: Source

    def __init__(
        self, folder: str | Path, source: Source, providers: Sequence[Provider], threads: int | None
    ) -> None:
        """Open a model folder; use ``clever_hub.from_pretrained`` instead.

        Args:
            folder: The model folder, with a model.onnx.
            source: Where it came from.
            providers: Execution providers of ONNX Runtime, by preference.
            threads: Threads of one run; None leaves it to ONNX Runtime.

        Raises:
            ModelFormatError: When model.onnx is missing, damaged or made for other weights.
            DeviceError: When the first provider cannot be used, or the processor would compute an
                int8 variant wrongly.
        """
        folder = Path(folder)
        self.config = ModelConfig.load(folder)
        self.preprocessor = Preprocessor(self.config.preprocessing)
        # A forked child may have changed its working directory before it opens its own session.
        self.folder = folder.absolute()
        self._providers, self._threads = list(providers), threads
        self._lock = threading.Lock()
        self._variant = Variant.of(self.config) or Variant("fp32", PIXEL_VALUES, {})
        self.source = source
        self._session: tuple[int, onnxruntime.InferenceSession] = (os.getpid(), self._open())

    def __call__(self, pixel_values: NDArray[np.float32]) -> OnnxOutput:
        """Embed a batch of prepared images.

        Args:
            pixel_values: float32 (batch, 3, size, size), as ``preprocessor`` makes them.

        Returns:
            The raw (not normalised) embeddings.

        Raises:
            ValueError: When the shape or the dtype is wrong.
            ModelFormatError: When the graph cannot be run.
            DeviceError: When another device than the CPU cannot run it.
        """
        size = self.config.preprocessing.crop_size
        if not isinstance(pixel_values, np.ndarray):
            raise ValueError(
                f"pixel_values: expected a numpy array, got {type(pixel_values).__name__}. Give "
                "model.preprocessor.batch(images), or tensor.numpy()"
            )
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, size, size):
            raise ValueError(
                f"pixel_values: expected (batch, 3, {size}, {size}), got {pixel_values.shape}"
            )
        if pixel_values.dtype != np.float32:
            raise ValueError(f"pixel_values: expected float32, got {pixel_values.dtype}")
        inputs = self._variant.feed(pixel_values, self.config.preprocessing)
        session = self._here()
        try:
            return OnnxOutput(*session.run(["invariant", "equivariant"], inputs))
        except Exception as error:  # onnxruntime's own classes share no base but this
            raise self._failed("run", error) from error

    def _backend(self) -> str:
        """The first execution provider, without its ending."""
        return f"onnx on {_wanted(self._providers).removesuffix('ExecutionProvider')}"

    def _embed_batch(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed (N, 3, H, W) float32; returns (N, num_features) float32."""
        return self(pixel_values).full

    def _here(self) -> onnxruntime.InferenceSession:
        """This process's session: the parent's threads do not exist in a forked child."""
        owner, session = self._session
        if owner != os.getpid():
            with self._lock:
                owner, session = self._session
                if owner != os.getpid():
                    session = self._open()
                    self._session = (os.getpid(), session)
        return session

    def _open(self) -> onnxruntime.InferenceSession:
        """A session of the weights that were loaded: the files may have changed since."""
        variant = Variant.of(self.config)
        self._variant.check_processor()
        if variant:
            variant.check(self.folder)
        digest = variant.known_by(self.folder) if variant else _sha256_of_weights(self.folder)
        self.source = self.source.verified(digest)
        session = self._start()
        if variant is None:
            _check_hash(session, digest, self.folder)
        _check_config(session, self.config, self.folder)
        return session

    def _start(self) -> onnxruntime.InferenceSession:
        path = self.folder / GRAPH_NAME
        if not path.is_file():
            raise ModelFormatError(
                f"{path}: no such file. This model folder has no ONNX graph; load it with "
                'backend="torch", or add the graph with clever_export.onnx.export_onnx'
            )
        options = onnxruntime.SessionOptions()
        # Only what is fatal: of an error that is raised it would print the text as well.
        options.log_severity_level = 4
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
        for key, value in _SESSION_CONFIG.items():
            options.add_session_config_entry(key, value)
        # All inputs have the same size and batches are at most batch_size, so the arena stops
        # growing after the first batch. Memory patterns would be stored for every batch size.
        options.enable_mem_pattern = False
        try:
            # ONNX Runtime's fallback would print, drop the options, and move to the CPU midway.
            session = onnxruntime.InferenceSession(
                str(path), options, self._providers, enable_fallback=0
            )
        except Exception as error:  # onnxruntime's own classes share no base but this
            raise self._failed("load", error) from error
        _SESSIONS.add(session)
        self._check_provider(session)
        return session

    def _failed(self, what: str, error: Exception) -> DeviceError | ModelFormatError:
        """What to raise where ONNX Runtime has failed: on the CPU it is the graph's fault."""
        where = f"{self.folder / GRAPH_NAME}: ONNX Runtime {onnxruntime.__version__} cannot {what}"
        if (wanted := _wanted(self._providers)) != _CPU:
            return DeviceError(f"{where} it by {wanted}: {error}")
        return ModelFormatError(f"{where} it: {error}")

    def _check_provider(self, session: onnxruntime.InferenceSession) -> None:
        """Raise where ONNX Runtime has silently fallen back to another provider."""
        wanted, got = _wanted(self._providers), session.get_providers()
        if wanted not in got:
            raise DeviceError(
                f"{wanted} was asked for and ONNX Runtime runs on {', '.join(got)}. Check the "
                "driver and its libraries, or leave device and providers out for the CPU"
            )

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_session"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._session = (os.getpid(), self._open())


def _keep_inherited_sessions() -> None:
    """In a forked child, never destroy a session of the parent.

    Its destructor would wait forever for the threads of its pool, which do not exist in the child
    (https://github.com/microsoft/onnxruntime/pull/31961). An extra reference that is never released
    keeps each session alive.
    """
    for session in list(_SESSIONS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
    _SESSIONS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited_sessions)


def _wanted(providers: Sequence[Provider]) -> str:
    """The name of the first provider, the one that a user asks for."""
    return providers[0] if isinstance(providers[0], str) else providers[0][0]


def _sha256_of_weights(folder: Path) -> str:
    with Weights(folder / WEIGHTS_NAME) as weights:
        return weights.sha256()


def _check_hash(session: onnxruntime.InferenceSession, digest: str, folder: Path) -> None:
    """Refuse a graph that was made for another weights file: it refers to bytes by their offset."""
    found = _metadata(session).get(HASH_KEY)
    if found != digest:
        raise ModelFormatError(
            f"{folder / GRAPH_NAME}: made for weights with SHA-256 {found}, {WEIGHTS_NAME} has "
            f"{digest}. Fetch the folder again, or export it again with clever_export"
        )


def load(
    folder: Path,
    source: Source,
    *,
    device: str | None = None,
    dtype: str | None = None,
    providers: Sequence[Provider] | None = None,
    threads: SupportsIndex | None = None,
    tensorrt: bool = False,
    precision: str | None = None,
    calibration: Calibration = None,
    **options: Any,
) -> OnnxModel:
    """What ``clever_hub.from_pretrained(backend="onnx")`` calls.

    Args:
        folder: The model folder.
        source: Where it came from.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; None is the CPU.
        dtype: None or ``"float32"``: the precision is chosen when the graph is exported.
        providers: Execution providers of ONNX Runtime, instead of ``device``.
        threads: Threads of one run; None leaves it to ONNX Runtime.
        tensorrt: Prefer TensorRT; needs a CUDA device.
        precision: None or ``"float32"``; ``"int8"`` makes an int8 variant once and caches it.
        calibration: Photos, or folders with photos, to calibrate int8 on; see ``int8_folder``.
        **options: Refused: there are no others.

    Returns:
        The model.

    Raises:
        ConfigError: When an option is unknown or contradicts another.
        DeviceError: When the device is not there.
        ModelFormatError: When the folder cannot be loaded.
    """
    if options:
        raise ConfigError(
            f"the onnx backend has no option {sorted(options)}; known: providers, "
            "tensorrt, threads, precision, calibration"
        )
    if str(dtype).removeprefix("torch.") not in ("None", "float32"):
        raise ConfigError(f"dtype: the onnx backend computes in float32, got {dtype}. Leave it out")
    if providers is not None and (device is not None or tensorrt):
        raise ConfigError("give providers, or device and tensorrt, not both")
    if providers is not None and not _are_providers(providers):
        raise ConfigError(
            f"providers: expected a list such as ['CPUExecutionProvider'], got {providers!r}"
        )
    chosen = list(providers) if providers is not None else _providers(str(device), tensorrt)
    _check_available(chosen)
    if precision not in (None, "float32", "int8"):
        raise ConfigError(f"precision: expected 'float32' or 'int8', got {precision!r}")
    if calibration is not None and precision != "int8":
        raise ConfigError('calibration: only int8 is calibrated. Add precision="int8"')
    if precision == "int8":
        made = int8_folder(folder, calibration)
        # The variant has weights of its own; the heads still lie beside the model's.
        folder, source = made, source._replace(weights_sha256=None)
    return OnnxModel(folder, source, chosen, check_threads(threads))


def _are_providers(given: object) -> bool:
    """Whether it is a list of names, or of pairs of a name and options, as ONNX Runtime takes."""
    return (
        isinstance(given, Sequence)
        and not isinstance(given, str)
        and len(given) > 0
        and all(isinstance(entry, str) or _is_provider_with_options(entry) for entry in given)
    )


def _is_provider_with_options(entry: object) -> bool:
    return (
        isinstance(entry, tuple)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], Mapping)
    )


# The keys of the config that decide which vector an image gets.
OF_THE_GRAPH = (
    *("architecture", "model_args", "num_features", "invariant_dim", "preprocessing"),
    "projection",
)


def _check_config(session: onnxruntime.InferenceSession, config: ModelConfig, folder: Path) -> None:
    """Refuse a config.json of another network, split or preparation than the exported graph."""
    graph = read_graph_config(session)
    for key in OF_THE_GRAPH:
        here, there = getattr(config, key), getattr(graph, key)
        if here != there:
            raise ModelFormatError(
                f"{folder / CONFIG_NAME}: {key} is {here}, {GRAPH_NAME} was made with {there}. "
                "Fetch the folder again, or export it again with clever_export"
            )


def read_graph_config(session: onnxruntime.InferenceSession) -> ModelConfig:
    """The config that a graph carries, for programs that have only the graph.

    Args:
        session: Opened from a model.onnx of this project.

    Returns:
        Preprocessing, split and provenance.

    Raises:
        ModelFormatError: When the graph carries none.
    """
    text = _metadata(session).get(CONFIG_KEY)
    if text is None:
        raise ModelFormatError(f"the graph has no {CONFIG_KEY} in its metadata")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the graph's {CONFIG_KEY} is not JSON: {error}") from error
    return ModelConfig.from_dict(content)


def _metadata(session: onnxruntime.InferenceSession) -> dict[str, str]:
    try:
        found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"the graph's metadata is not UTF-8: {error}") from error
    return found


def _providers(device: str, tensorrt: bool) -> list[Provider]:
    kind, _, index = device.partition(":")
    if device in ("None", "cpu"):
        if tensorrt:
            raise ConfigError('tensorrt=True: TensorRT runs on GPUs only, add device="cuda"')
        return [_CPU]
    if kind != "cuda" or (index and not (index.isascii() and index.isdecimal())):
        raise DeviceError(
            f"device: the onnx backend knows 'cpu', 'cuda' and 'cuda:1' …, got {device!r}. Use "
            "providers for any other"
        )
    options = {"device_id": int(index or 0)}
    first: list[Provider] = [(_TENSORRT, options)] if tensorrt else []
    return [*first, (_CUDA, options), _CPU]


def _check_available(providers: Sequence[Provider]) -> None:
    available = onnxruntime.get_available_providers()
    for provider in providers:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise DeviceError(
                f"{name} was asked for; this onnxruntime has {', '.join(available)}. {_hint(name)}"
            )


def _hint(provider: str) -> str:
    """What to do about a missing provider."""
    if provider in (_CUDA, _TENSORRT):
        return 'Run: pip uninstall onnxruntime, then pip install "clever-hub[onnx-gpu]"'
    known: list[str] = onnxruntime.get_all_providers()
    if provider in known:
        return "It is in another build of ONNX Runtime: https://onnxruntime.ai/docs/install"
    return f"Known to ONNX Runtime: {', '.join(known)}"
