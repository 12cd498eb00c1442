"""``model.encode``: images in, embeddings out, for every backend."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Literal, NamedTuple, SupportsIndex, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from clever_hub.config import ModelConfig
from clever_hub.embeddings import Embeddings, EncodedBatch, Skipped, split
from clever_hub.errors import ConfigError, ImageError, MissingExtraError
from clever_hub.hub.source import Source
from clever_hub.images.opening import ImageSource, as_list, describe
from clever_hub.images.options import LoadKeywords
from clever_hub.images.preparing import Preprocessor
from clever_hub.threads import decode_threads

OnError: TypeAlias = Literal["raise", "skip"]


class EncoderMixin:
    """Adds ``encode`` to a backend with ``config``, ``preprocessor`` and ``_embed_batch``.

    Attributes:
        config: The model's config.
        preprocessor: Turns images into the backbone's input.
    """

    config: ModelConfig
    preprocessor: Preprocessor
    source: Source | None

    def __repr__(self) -> str:
        """Name, dimensions, input size, backend and source, on one line."""
        config, size = self.config, self.config.preprocessing.crop_size
        parts = f"{config.invariant_dim} invariant + {config.equivariant_dim} equivariant"
        where = f"{self.source.kind} {self.source.path}" if self.source else "a config alone"
        return (
            f"{type(self).__name__}({config.name}: {config.architecture}, {parts}, "
            f"{size} × {size} px, {self._backend()}, from {where})"
        )

    def _backend(self) -> str:
        """Name of the backend and its device."""
        raise NotImplementedError

    def _embed_batch(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed (N, 3, H, W) float32; returns (N, num_features) float32."""
        raise NotImplementedError

    def _token_grid(self) -> tuple[int, int]:
        """Rows and columns of patches in an input; ConfigError where the backend has no tokens."""
        raise ConfigError(
            "tokens=True: patch tokens come from the torch backend, and from vision transformers "
            f'alone; this is a {self.config.architecture}. Load one with backend="torch"'
        )

    def _embed_tokens(
        self, pixel_values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embed (N, 3, H, W): (N, num_features), and (N, rows, columns, num_features) tokens."""
        raise NotImplementedError

    def encode(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int = 32,
        normalize: bool = False,
        progress: bool = False,
        on_error: OnError = "raise",
        num_workers: int | None = None,
        tokens: bool = False,
        **load: Unpack[LoadKeywords],
    ) -> Embeddings:
        """Embed images.

        Args:
            images: Anything that ``clever_hub.load_image`` takes: a path, PIL image, uint8 array or
                torch tensor (height, width, 3), the bytes of an image file or a file open for
                reading; or an iterable of them, such as a generator, which is consumed lazily.
            batch_size: Number of images in a pass through the backbone.
            normalize: Scale each part to unit length.
            progress: Show a progress bar on stderr.
            on_error: ``"raise"`` stops at the first image that cannot be read; ``"skip"`` leaves it
                out and lists it in ``Embeddings.skipped``.
            num_workers: Threads that decode; None chooses by the number of cores.
            tokens: Also return the token of each patch after the final norm, for dense tasks; only
                for vision transformers, with the torch backend. A photo has hundreds of tokens,
                0.3 MB for a ViT-S at 224 px: use ``encode_batches`` for many photos.
            **load: How images are opened: ``color_management``, ``background``, ``layout``,
                ``decode``; see ``clever_hub.load_image``. What is left out is as the model's
                ``preprocessor`` has it.

        Returns:
            The embeddings, in the order of the input; one row for a single image.

        Raises:
            ImageError: When an image cannot be read; names it.
            MissingExtraError: When one is a HEIC file and the extra ``heic`` is not installed.
            ValueError: When an option is out of range.
            ConfigError: When ``images`` is not an image, an option of ``load`` is wrong, or tokens
                are requested from a backbone or a backend that has none.

        Example:
            >>> model.encode(["a.jpg", "b.jpg"]).invariant.shape  # doctest: +SKIP
            (2, 409)
        """
        batches = self.encode_batches(
            images,
            batch_size=batch_size,
            normalize=normalize,
            on_error=on_error,
            num_workers=num_workers,
            tokens=tokens,
            **load,
        )
        if progress:
            from clever_hub.images.progress import track

            batches = track(batches, total=_length(as_list(images)))
        empty = self._embed_images([], tokens)
        return Embeddings.joined([empty, *(batch.embeddings for batch in batches)])

    def encode_batches(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int = 32,
        normalize: bool = False,
        on_error: OnError = "raise",
        num_workers: int | None = None,
        tokens: bool = False,
        **load: Unpack[LoadKeywords],
    ) -> Iterator[EncodedBatch]:
        """Embed images batch by batch, for inputs whose embeddings do not fit into memory.

        Threads decode the next images while the backbone computes. They are at most two batches
        ahead, so that memory does not grow with the length of the stream.

        Args:
            images: As for ``encode``.
            batch_size: As for ``encode``.
            normalize: As for ``encode``.
            on_error: As for ``encode``.
            num_workers: As for ``encode``.
            tokens: As for ``encode``.
            **load: As for ``encode``.

        Yields:
            Batches in the order of the input.

        Raises:
            ImageError: As for ``encode``.
            MissingExtraError: As for ``encode``.
            ValueError: When an option is out of range.
            ConfigError: As for ``encode``.
        """
        workers = decode_threads() if num_workers is None else num_workers
        check_batches(batch_size, on_error, workers)
        if tokens:
            self._token_grid()  # raises now, not at the first batch
        preprocessor = self.preprocessor
        if load:
            preprocessor = preprocessor.with_options(replace(preprocessor.options, **load))
        batches = prepared_batches(
            preprocessor,
            as_list(images),
            batch_size=batch_size,
            on_error=on_error,
            workers=workers,
        )
        return self._stream(batches, normalize, tokens)

    def _stream(
        self,
        batches: Generator[tuple[list[Prepared], list[Skipped]]],
        normalize: bool,
        tokens: bool,
    ) -> Iterator[EncodedBatch]:
        # Closed here rather than by the garbage collector, so that its threads end now.
        with closing(batches):
            for good, bad in batches:
                embeddings = self._embed_images(good, tokens)
                embeddings = embeddings.normalized() if normalize else embeddings
                yield EncodedBatch(
                    [image.position for image in good],
                    [image.source for image in good],
                    replace(embeddings, skipped=tuple(bad)),
                )

    def _embed_images(self, images: Sequence[Prepared], tokens: bool) -> Embeddings:
        if not images:
            width = self.config.num_features
            empty = self._split(np.empty((0, width), np.float32))
            if not tokens:
                return empty
            return replace(empty, tokens=np.empty((0, *self._token_grid(), width), np.float32))
        pixel_values = np.stack([image.pixels for image in images])
        if not tokens:
            return self._split(self._embed_batch(pixel_values))
        embedding, patches = self._embed_tokens(pixel_values)
        return replace(self._split(embedding), tokens=patches)

    def _split(self, embedding: NDArray[np.float32]) -> Embeddings:
        """Split (N, num_features); copies, so that keeping one part frees the other."""
        invariant, equivariant = split(embedding, self.config.invariant_dim)
        return Embeddings(invariant.copy(), equivariant.copy())


class Prepared(NamedTuple):
    """An image that was read: its index, its name, float32 (3, H, W)."""

    position: int
    source: str
    pixels: NDArray[np.float32]


def prepared_batches(
    preprocessor: Preprocessor,
    images: Iterable[ImageSource],
    *,
    batch_size: int,
    on_error: OnError,
    workers: int,
) -> Generator[tuple[list[Prepared], list[Skipped]]]:
    """Read images in threads, no more than two batches ahead.

    Args:
        preprocessor: Prepares each image.
        images: Anything that ``load_image`` takes.
        batch_size: Images that can be read to a batch; the last may have fewer.
        on_error: As for ``encode``.
        workers: How many threads.

    Yields:
        The images of a batch, and those that could not be read before it was full.

    Raises:
        ImageError: When one cannot be read, unless it is to be skipped.
        MissingExtraError: When an extra is needed to read one, unless it is to be skipped.
    """
    prepared = _prepare(preprocessor, images, 2 * batch_size, on_error, workers)
    with closing(prepared):
        yield from _batched(prepared, batch_size, on_error)


def _prepare(
    preprocessor: Preprocessor,
    images: Iterable[ImageSource],
    ahead: int,
    on_error: OnError,
    workers: int,
) -> Generator[Prepared | Skipped]:
    """Read images in threads, at most ``ahead`` of the consumer; the order is kept."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="clever-hub-decode")
    numbered = enumerate(images)
    waiting: deque[Future[Prepared | Skipped]] = deque()
    try:
        while True:
            for index, image in islice(numbered, ahead - len(waiting)):
                waiting.append(pool.submit(_read, preprocessor, index, image, on_error))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(
    preprocessor: Preprocessor, index: int, image: ImageSource, on_error: OnError
) -> Prepared | Skipped:
    described = describe(image)
    name = described if isinstance(image, (str, os.PathLike)) else f"image {index} {described}"
    try:
        return Prepared(index, name, preprocessor(image))
    except ImageError as error:
        return Skipped(index, name, error.reason)
    except MissingExtraError as error:
        if on_error == "raise":
            raise
        return Skipped(index, name, str(error).removeprefix(f"{described}: "))


def _batched(
    prepared: Iterable[Prepared | Skipped], batch_size: int, on_error: OnError
) -> Iterator[tuple[list[Prepared], list[Skipped]]]:
    """Group images into batches; unreadable ones are listed with the next batch."""
    good: list[Prepared] = []
    bad: list[Skipped] = []
    for image in prepared:
        if isinstance(image, Skipped):
            if on_error == "raise":
                raise ImageError(image.source, image.reason)
            bad.append(image)
        else:
            good.append(image)
        if len(good) == batch_size:
            yield good, bad
            good, bad = [], []
    if good or bad:
        yield good, bad


def check_batches(batch_size: object, on_error: object, workers: object) -> None:
    """Refuse options by which no batch would come, or an error would be passed over.

    Raises:
        ValueError: When one is out of range.
    """
    _check_whole("batch_size", batch_size)
    _check_whole("num_workers", workers)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")


def _check_whole(name: str, value: object) -> None:
    if not isinstance(value, SupportsIndex) or isinstance(value, bool) or value.__index__() < 1:
        raise ValueError(f"{name}: expected a whole number, 1 or more, got {value!r}")


def _length(images: object) -> int | None:
    return len(images) if isinstance(images, Sized) else None
