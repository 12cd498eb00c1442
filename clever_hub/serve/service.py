"""The models of a server, each with its batcher; everything that an answer needs, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from clever_hub.embeddings import Embeddings
from clever_hub.errors import CleverError, ConfigError, suggest
from clever_hub.images.options import LoadOptions
from clever_hub.jobs.alignment import Alignment, align
from clever_hub.jobs.answering import JobsMixin
from clever_hub.jobs.keypoints import Keypoints
from clever_hub.jobs.verifying import one_thread
from clever_hub.serve.batching import Batcher, Vector, yield_to_others
from clever_hub.serve.decoding import PictureReader, is_url
from clever_hub.serve.errors import ApiError
from clever_hub.serve.limits import Gate, Slot
from clever_hub.serve.metrics import Metrics
from clever_hub.serve.schemas import Picture
from clever_hub.serve.settings import Settings
from clever_hub.serve.urls import UrlFetcher

T = TypeVar("T")
Part: TypeAlias = Literal["full", "invariant", "equivariant"]
PARTS: tuple[Part, ...] = ("full", "invariant", "equivariant")
_FETCH_THREADS = 16
# Mirrored or not, then turned counter-clockwise by so many quarters.
_EIGHT = tuple((mirrored, quarter) for mirrored in (False, True) for quarter in range(4))


@dataclass(frozen=True)
class Served:
    """A model that is served.

    Attributes:
        name: What requests call it.
        model: The model.
        batcher: Gathers its images into batches.
        read: Decodes and prepares an image.
    """

    name: str
    model: JobsMixin
    batcher: Batcher
    read: PictureReader

    def parts(self) -> dict[str, tuple[Part, int]]:
        """The names under which it is served, each with the part and its length."""
        config = self.model.config
        lengths = config.num_features, config.invariant_dim, config.equivariant_dim
        return {
            self.name if part == "full" else f"{self.name}:{part}": (part, length)
            for part, length in zip(PARTS, lengths, strict=True)
            if length
        }


class Service:
    """Models, batches and limits.

    Attributes:
        settings: The limits.
        gate: Who gets in.
        metrics: The figures.
        served: The models by name.
    """

    def __init__(self, models: Mapping[str, JobsMixin], settings: Settings) -> None:
        """Start the threads; ``close`` ends them.

        Args:
            models: At least one, by the name that requests use.
            settings: The limits.

        Raises:
            ConfigError: When there is no model, or a name cannot be used.
            ModelFormatError: When a model's heads are damaged.
        """
        if not models:
            raise ConfigError("expected one model at least to serve, got none")
        for name in models:
            if not name or ":" in name:
                raise ConfigError(f"the name of a served model: expected no colon, got {name!r}")
        for model in models.values():
            if model.has_heads:
                _ = model.heads  # read now: what is damaged should not be met by a request
        self.settings, self.gate, self.metrics = settings, Gate(settings), Metrics()
        self._decoders = ThreadPoolExecutor(
            settings.threads, "clever-hub-decode", initializer=yield_to_others
        )
        self._fetchers = ThreadPoolExecutor(_FETCH_THREADS, "clever-hub-fetch")
        self._fetch = UrlFetcher() if settings.allow_urls else None
        self.served = {name: self._serve(name, model) for name, model in models.items()}
        watch = self.metrics.watch
        watch("clever_waiting_images", "Images in the server.", lambda: self.gate.images)
        watch("clever_waiting_bytes", "Bytes of bodies in it.", lambda: self.gate.body_bytes)

    def _serve(self, name: str, model: JobsMixin) -> Served:
        batcher = Batcher(
            model._embed_batch,
            self._decoders,
            max_batch=self.settings.max_batch,
            max_wait=self.settings.max_wait_ms / 1_000,
            wait_above=self.settings.threads,
            watcher=self.metrics.of_model(name),
        )
        preprocessor = model.preprocessor.with_options(LoadOptions(decode=self.settings.decode))
        return Served(name, model, batcher, PictureReader(preprocessor, self.settings))

    def find(self, name: str | None) -> tuple[Served, Part]:
        """The model and the part that a request means.

        Args:
            name: ``NAME``, ``NAME:invariant`` or ``NAME:equivariant``; None is the only model.

        Returns:
            The model, and the part of its embedding.

        Raises:
            ApiError: 404 for an unknown name, 400 for none where there are several models.
        """
        if name is None:
            if len(self.served) > 1:
                known = ", ".join(self.served)
                raise ApiError(
                    400, "missing_model", f"model: expected one of {known}, got none", param="model"
                )
            return next(iter(self.served.values())), "full"
        names = {key: (one, p[0]) for one in self.served.values() for key, p in one.parts().items()}
        if name not in names:
            message = f"model: unknown {name[:200]!r}. {suggest(name[:200], names)}"
            raise ApiError(404, "model_not_found", message, param="model")
        return names[name]

    async def embed(
        self, served: Served, pictures: Sequence[Picture], slot: Slot | None = None
    ) -> Embeddings:
        """Embed the images of a request.

        Args:
            served: The model.
            pictures: The images.
            slot: Is grown by the bytes of those that are fetched.

        Returns:
            Their embeddings, in order.

        Raises:
            ApiError: When one cannot be read; names each.
        """
        work = [self._one(served, index, picture, slot) for index, picture in enumerate(pictures)]
        return _embeddings(served, await _all(work))

    async def embed_turned(
        self, served: Served, pictures: Sequence[Picture], slot: Slot | None = None
    ) -> list[Embeddings]:
        """Embed images in four positions, each decoded once.

        Args:
            served: The model.
            pictures: The images.
            slot: As for ``embed``.

        Returns:
            The embeddings of the images as they are, and turned by 90, 180 and 270 degrees
            counter-clockwise.

        Raises:
            ApiError: As for ``embed``.
        """
        work = [self._positions(served, i, one, _EIGHT[:4], slot) for i, one in enumerate(pictures)]
        turned = np.stack(await _all(work))  # (N, 4, d)
        return [_embeddings(served, turned[:, position]) for position in range(4)]

    async def embed_pair(self, served: Served, a: Picture, b: Picture) -> list[list[Embeddings]]:
        """Embed two images in all eight positions.

        Args:
            served: The model.
            a: The first image.
            b: The second.

        Returns:
            Of each, the embeddings as it is and turned as by ``embed_turned``, then of the mirrored
            one likewise.

        Raises:
            ApiError: As for ``embed``.
        """
        work = [self._positions(served, i, one, _EIGHT) for i, one in enumerate((a, b))]
        return [
            [_embeddings(served, vector[None]) for vector in eight] for eight in await _all(work)
        ]

    async def fetched(self, pictures: Sequence[Picture], slot: Slot) -> list[Picture]:
        """Fetch the images that are addresses, once for all that is done with them.

        Args:
            pictures: The images of a request.
            slot: As for ``embed``.

        Returns:
            The same images; none is an address, unless addresses are not allowed.

        Raises:
            ApiError: When one cannot be fetched.
        """
        return await _all([self._here(index, one, slot) for index, one in enumerate(pictures)])

    async def align(self, served: Served, a: Picture, b: Picture) -> Alignment:
        """Lay the middle square of b onto that of a by keypoints, in a thread that decodes.

        Args:
            served: The model, for what it sees of an image.
            a: The first image.
            b: The second.

        Returns:
            The alignment.

        Raises:
            ApiError: As for ``embed``.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._decoders, partial(_aligned, served, (a, b))
        )

    async def _one(self, served: Served, index: int, picture: Picture, slot: Slot | None) -> Vector:
        read = partial(served.read, await self._here(index, picture, slot), _param(index))
        return await asyncio.wrap_future(served.batcher.submit(read))

    async def _positions(
        self,
        served: Served,
        index: int,
        picture: Picture,
        views: Sequence[tuple[bool, int]],
        slot: Slot | None = None,
    ) -> Vector:
        """The embeddings of an image in several positions, (views, d); the first is as it is."""
        here, kept = await self._here(index, picture, slot), list[NDArray[np.float32]]()

        def read() -> NDArray[np.float32]:
            kept.append(served.read(here, _param(index)))
            return kept[0]

        first = await asyncio.wrap_future(served.batcher.submit(read))
        turned = [partial(_turned, kept[0], flip, quarter) for flip, quarter in views[1:]]
        others = [asyncio.wrap_future(served.batcher.submit(turn)) for turn in turned]
        return np.stack([first, *await asyncio.gather(*others)])

    async def _here(self, index: int, picture: Picture, slot: Slot | None) -> Picture:
        """The image, fetched where it is an address; it counts as the bytes of a body do."""
        if self._fetch is None or not is_url(picture):
            return picture
        assert isinstance(picture, str)
        fetch = partial(self._fetch, picture, self.settings.max_image_bytes)
        try:
            content = await asyncio.get_running_loop().run_in_executor(self._fetchers, fetch)
        except ApiError as error:
            param = _param(index)
            raise ApiError(error.status, error.code, f"{param}: {error}", param=param) from error
        if slot is not None:
            slot.grow(body_bytes=len(content))
        return content

    async def check(self) -> None:
        """Send a black image through every model.

        Raises:
            Exception: What the network raised.
        """
        await asyncio.gather(*(_check(served) for served in self.served.values()))

    def close(self) -> None:
        """Finish what is waiting and end the threads."""
        for served in self.served.values():
            served.batcher.close()
        self._decoders.shutdown()
        self._fetchers.shutdown(cancel_futures=True)


async def _check(served: Served) -> None:
    side = served.model.config.preprocessing.crop_size
    black = np.zeros((3, side, side), np.float32)
    vector = await asyncio.wrap_future(served.batcher.submit(lambda: black))
    if not np.isfinite(vector).all():
        raise CleverError(f"{served.name} gave numbers that are not finite")


def _aligned(served: Served, pictures: Sequence[Picture]) -> Alignment:
    found, bad = list[Keypoints](), list[ApiError]()
    for index, one in enumerate(pictures):
        try:
            found.append(served.read.keypoints(one, _param(index)))
        except ApiError as error:
            bad.append(error)
    if bad:
        raise _together(bad)
    a, b = found
    with one_thread():
        return align(a, b)


def _turned(pixels: NDArray[np.float32], flip: bool, quarter: int) -> NDArray[np.float32]:
    """(3, H, W), mirrored or not, then turned counter-clockwise by quarters."""
    return np.rot90(pixels[:, :, ::-1] if flip else pixels, quarter, axes=(1, 2))


def _param(index: int) -> str:
    return f"input[{index}]"


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all images of a request, then raise what went wrong with any."""
    if len(work) == 1:
        return [await work[0]]
    results = await asyncio.gather(*work, return_exceptions=True)
    failed = [result for result in results if isinstance(result, BaseException)]
    bad = [error for error in failed if isinstance(error, ApiError)]
    if len(bad) < len(failed):
        raise next(error for error in failed if not isinstance(error, ApiError))
    if bad:
        raise _together(bad)
    return [result for result in results if not isinstance(result, BaseException)]


def _together(bad: Sequence[ApiError]) -> ApiError:
    """One error that names all bad images; programs are told the first one's code."""
    first, text = bad[0], "; ".join(str(error) for error in bad)
    return ApiError(
        first.status, first.code, text, param=first.param, retry_after=first.retry_after
    )


def _embeddings(served: Served, vectors: Sequence[Vector] | Vector) -> Embeddings:
    full = np.stack(list(vectors))
    if not np.isfinite(full).all():
        raise ApiError(500, "not_finite", "the network gave numbers that are not finite")
    split = served.model.config.invariant_dim
    return Embeddings(full[:, :split], full[:, split:])
