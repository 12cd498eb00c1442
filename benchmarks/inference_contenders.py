"""The contenders of ``inference.py``: each lives in a process of its own and waits for its turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Contender(NamedTuple):
    """A way to embed images.

    Attributes:
        model: From prepared images, float32 (batch, 3, size, size), to vectors.
        files: From image files to vectors, by batches.
        decode: Prepares image files and no more; None where that is not asked for.
    """

    model: Callable[[NDArray[np.float32]], Vectors]
    files: Callable[[Sequence[Path]], Vectors]
    decode: Callable[[Sequence[Path]], None] | None = None


class Failure(NamedTuple):
    """An answer of a contender that cannot take part.

    Attributes:
        reason: Why.
    """

    reason: str


class Job(NamedTuple):
    """What a process is to do.

    Attributes:
        contender: A key of ``CONTENDERS``.
        folder: A complete model folder; its int8 variant lies beside it.
        batch: Images at once.
        threads: How many threads each part may use.
        photos: JPEG files.
    """

    contender: str
    folder: Path
    batch: int
    threads: int
    photos: list[Path]


class _Numbers:
    """0, 1, 2 … as many as are wanted at the time."""

    def __init__(self, wanted: list[int]) -> None:
        self._wanted = wanted

    def __len__(self) -> int:
        return self._wanted[0]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._wanted[0]))


def _timm(job: Job, change: Callable[[Any], tuple[Any, Callable[[Any], Any]]]) -> Contender:
    """Timm with its own transform, files read by torch's DataLoader with a worker per thread."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader

    torch.set_num_threads(job.threads)
    backbone = timm.create_model(f"local-dir:{job.folder}", pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=backbone))
    forward, prepare = change(backbone)

    class Files(torch.utils.data.Dataset[Any]):
        def __getitem__(self, index: int) -> Any:
            path = job.photos[index % len(job.photos)]
            return transform(Image.open(path).convert("RGB"))

    wanted = [0]
    # The workers stay; each pass reads so many photos and none ahead for the next.
    loader = DataLoader(
        Files(),
        job.batch,
        sampler=_Numbers(wanted),
        num_workers=job.threads,
        persistent_workers=True,
        multiprocessing_context="fork",  # what Linux gives to a program that says nothing
    )

    def model(pixels: Any) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = forward(prepare(torch.as_tensor(pixels))).float().numpy()
        return vectors

    def files(paths: Sequence[Path]) -> Vectors:
        wanted[0] = len(paths)
        return np.concatenate([model(batch) for batch in loader])

    return Contender(model, files)


def _eager(job: Job) -> Contender:
    return _timm(job, lambda backbone: (backbone, lambda x: x))


def _bf16(job: Job) -> Contender:
    import torch

    kind = {"dtype": torch.bfloat16, "memory_format": torch.channels_last}
    return _timm(job, lambda backbone: (backbone.to(**kind), lambda x: x.to(**kind)))


def _compiled(job: Job) -> Contender:
    import torch

    return _timm(job, lambda backbone: (torch.compile(backbone), lambda x: x))


def _torch(job: Job) -> Contender:
    import torch

    import clever_hub

    torch.set_num_threads(job.threads)
    loaded = clever_hub.from_pretrained(job.folder)

    def model(pixels: NDArray[np.float32]) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = loaded(torch.from_numpy(pixels)).full.numpy()
        return vectors

    return Contender(model, _encode(loaded, job))


def _onnx(job: Job, suffix: str = "") -> Contender:
    import clever_hub

    folder = job.folder.with_name(job.folder.name + suffix)
    loaded = clever_hub.from_pretrained(folder, backend="onnx", threads=job.threads)

    def decode(paths: Sequence[Path]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(job.threads) as pool:
            for _ in pool.map(loaded.preprocessor, paths):
                pass

    return Contender(lambda pixels: loaded(pixels).full, _encode(loaded, job), decode)


def _encode(loaded: Any, job: Job) -> Callable[[Sequence[Path]], Vectors]:
    def files(paths: Sequence[Path]) -> Vectors:
        vectors: Vectors = loaded.encode(paths, batch_size=job.batch, num_workers=job.threads).full
        return vectors

    return files


CONTENDERS: dict[str, Callable[[Job], Contender]] = {
    "timm eager": _eager,
    "timm bf16 channels_last": _bf16,
    "timm torch.compile": _compiled,
    "clever_hub torch": _torch,
    "clever_hub onnx": _onnx,
    "clever_hub onnx int8": lambda job: _onnx(job, "-int8"),
}


def serve(connection: Connection, job: Job) -> None:
    """Build a contender, then answer requests until ``None`` comes.

    Requests are ``(what, seconds)``; the answer to ``vectors`` is what the photos of one batch
    become, to ``model``, ``files`` and ``decode`` images/s, to ``memory`` resident bytes.
    """
    try:
        _serve(connection, job)
    except Exception as error:  # noqa: BLE001 -- the parent shows it and goes on with the others
        connection.send(Failure(f"{type(error).__name__}: {error}"))


def _serve(connection: Connection, job: Job) -> None:
    import clever_hub

    contender = CONTENDERS[job.contender](job)
    preprocessor = clever_hub.Preprocessor(clever_hub.ModelConfig.load(job.folder).preprocessing)
    pixels = preprocessor.batch([job.photos[i % len(job.photos)] for i in range(job.batch)])
    paths = job.photos * 64
    works: dict[str, Callable[[int], object]] = {
        "model": lambda count: [contender.model(pixels) for _ in range(count // job.batch)],
        "files": lambda count: contender.files(paths[:count]),
        "decode": lambda count: contender.decode and contender.decode(paths[:count]),
    }
    while (request := connection.recv()) is not None:
        what, seconds = request
        if what == "vectors":
            connection.send(contender.model(pixels))
        elif what == "memory":
            connection.send(_resident())
        else:
            connection.send(_rate(works[what], job.batch, seconds))


def _rate(work: Callable[[int], object], batch: int, seconds: float) -> float:
    """Images/s over about so many seconds; the first, short piece says how many images that is."""
    count = 2 * batch
    while True:
        start = time.perf_counter()
        work(count)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds / 2:
            return count / elapsed
        # Whole batches; at most 16 times more, in case the first was slow for a reason of its own.
        wanted = count * min(16.0, max(2.0, 0.9 * seconds / elapsed))
        count = int(-(-wanted // batch)) * batch


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
