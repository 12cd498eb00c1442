"""What a model answers about images: how two are related, how they are turned."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple, Unpack

import numpy as np
from PIL import Image

from clever_hub.embeddings import Embeddings, Skipped
from clever_hub.errors import ImageError, ModelFormatError
from clever_hub.hub.source import Source
from clever_hub.images.encoding import (
    EncoderMixin,
    OnError,
    Prepared,
    check_batches,
    prepared_batches,
)
from clever_hub.images.middle import WholeAndMiddle
from clever_hub.images.opening import ImageSource, as_list, open_image
from clever_hub.images.options import LoadKeywords, LoadOptions
from clever_hub.images.preparing import Preprocessor
from clever_hub.jobs.heads import HEADS_KEY, Heads
from clever_hub.jobs.orient import QUARTERS, Orientation, orientation_from_four
from clever_hub.jobs.pixels import aligner, can_measure, check_measurable, measured
from clever_hub.jobs.relate import relate, relate_from_eight
from clever_hub.jobs.relation import Relation
from clever_hub.threads import decode_threads


class Look(NamedTuple):
    """How an image is looked at.

    Attributes:
        scale: 0 is the whole, 1 its middle.
        quarter: By how many quarters it is turned counter-clockwise.
    """

    scale: int
    quarter: int


# Two scales and four turns in four looks: on heavily changed copies nearly as good as all eight,
# and better than four turns of the whole (docs/jobs/duplicates.md).
COPY_LOOKS = (Look(0, 0), Look(0, 2), Look(1, 1), Look(1, 3))


class TurnedBatch(NamedTuple):
    """A piece of the output of ``encode_turned`` and ``encode_copies``.

    Attributes:
        sources: Name of each row's image.
        turned: The embeddings of four looks at the images. By ``encode_turned`` they are the images
            as they are, and turned by 90, 180 and 270 degrees counter-clockwise. By
            ``encode_copies`` they are the whole image as it is and turned by 180 degrees, and its
            middle turned by 90 and by 270; take the mean of these.
        skipped: The images that could not be read.
        indices: Index of each row's image in the input.
    """

    sources: list[str]
    turned: list[Embeddings]
    skipped: list[Skipped]
    indices: list[int]


class JobsMixin(EncoderMixin):
    """Gives ``relate`` and ``orientation`` to a backend.

    Attributes:
        source: Where the weights came from; None for a model built from a config alone.
    """

    source: Source | None
    _heads: Heads | None = None

    @property
    def heads(self) -> Heads:
        """The heads that lie beside the weights, read at their first use.

        Raises:
            ModelFormatError: When the model has none, or they are damaged.
        """
        if self._heads is None:
            if self.source is None:
                raise ModelFormatError(
                    f"{self.config.name}: built from a config alone, so there is no folder with "
                    "heads. Load a model with clever_hub.from_pretrained"
                )
            self._heads = Heads.load(self.source.path)
        return self._heads

    @property
    def has_heads(self) -> bool:
        """Whether the model says that it has heads."""
        return HEADS_KEY in self.config.extra

    def relate(
        self,
        a: ImageSource,
        b: ImageSource,
        *,
        given_same: bool = False,
        pixels: bool | None = None,
        **load: Unpack[LoadKeywords],
    ) -> Relation:
        """Is it the same photo, and what was done to it?

        b is laid onto a by keypoints; where they match, all but ``same`` is measured on the pixels.
        Where they do not, the model answers: it looks at both in all eight positions, turned and
        mirrored. For many pairs, embed the images once and give the rows to
        ``clever_hub.relate``, which has one look at each and no pixels.

        Args:
            a: A path, PIL image, uint8 array (height, width, 3), or the bytes of an image file.
            b: Another.
            given_same: Take for granted that both show the same photo.
            pixels: Whether to look for keypoints, which needs OpenCV (extra ``jobs``). None looks
                for them if it is installed; False leaves all to the model.
            **load: As for ``encode``.

        Returns:
            How b is made from a, and which of the two answered (``by``). Both are compared as the
            model sees them: the middle square.

        Raises:
            ImageError: When an image cannot be read; names it.
            ModelFormatError: When the model has no heads; names models that have.
            MissingExtraError: When ``pixels`` is true and OpenCV is not installed.

        Example:
            >>> model.relate("a.jpg", "b.jpg").angle  # doctest: +SKIP
            90.0
        """
        heads = self.heads  # before the work
        if pixels:
            check_measurable()
        size = self.preprocessor.config.resize_size
        options = replace(self.preprocessor.options, **load)
        one, other = (_opened(name, i, options, size) for name, i in (("a", a), ("b", b)))
        if pixels is False or not can_measure():
            looks = self._eight(one), self._eight(other)
            return relate_from_eight(*looks, heads, given_same=given_same)[0]
        row = np.zeros(1, np.int64)
        aligned = aligner([one, other], self.preprocessor.config)(row, row + 1)
        if aligned[0] is not None and aligned[0].same:  # one look tells `same`
            found = relate(self.encode(one), self.encode(other), heads, given_same=True)
        else:
            looks = self._eight(one), self._eight(other)
            found = relate_from_eight(*looks, heads, given_same=True)
        return measured(found, aligned, given_same=given_same)[0]

    def _eight(self, image: ImageSource) -> list[Embeddings]:
        """Embeddings of an image turned by each quarter, then the same of it mirrored."""
        prepared = [Prepared(0, "", self.preprocessor(image))]
        return [
            self._embed_turned(prepared, quarter, mirrored=mirrored)
            for mirrored in (False, True)
            for quarter in range(len(QUARTERS))
        ]

    def orientation(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        upright: float = 0.25,
        batch_size: int = 32,
        on_error: OnError = "raise",
        num_workers: int | None = None,
        **load: Unpack[LoadKeywords],
    ) -> Orientation:
        """How images are turned from upright.

        Each is embedded in all four positions: a turn that the model misses in one position may be
        visible in another. For embeddings that exist already, use ``clever_hub.orientation``.

        Args:
            images: As for ``encode``.
            upright: The share of images that is believed to be upright before looking; the default
                favours no quarter.
            batch_size: How many images are prepared at once.
            on_error: As for ``encode``.
            num_workers: Threads that decode; None chooses by the number of cores.
            **load: As for ``encode``.

        Returns:
            Angle, quarter turn and confidence of each image, in the order of the input; those that
            could not be read are in ``skipped``.

        Raises:
            ImageError: When an image cannot be read; names it.
            ModelFormatError: When the model has no heads; names models that have.

        Example:
            >>> model.orientation(["a.jpg", "b.jpg"]).quarter  # doctest: +SKIP
            array([ 0, 90])
        """
        heads = self.heads
        found = []
        for batch in self.encode_turned(
            images, batch_size=batch_size, on_error=on_error, num_workers=num_workers, **load
        ):
            turns = orientation_from_four(batch.turned, heads, upright=upright)
            found.append(replace(turns, skipped=tuple(batch.skipped)))
        return Orientation.joined(found)

    def encode_turned(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int = 32,
        on_error: OnError = "raise",
        num_workers: int | None = None,
        **load: Unpack[LoadKeywords],
    ) -> Generator[TurnedBatch]:
        """Embed images in all four positions, each decoded once.

        Args:
            images: As for ``encode``.
            batch_size: How many images are prepared at once.
            on_error: As for ``encode``.
            num_workers: As for ``encode``.
            **load: As for ``encode``.

        Yields:
            Batches in the order of the input, for ``clever_hub.jobs.orient``.

        Raises:
            ImageError: As for ``encode``.
        """
        looks = [Look(0, quarter) for quarter in range(len(QUARTERS))]
        yield from self._looks(
            self.preprocessor, looks, images, batch_size, on_error, num_workers, load
        )

    def encode_copies(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        batch_size: int = 32,
        on_error: OnError = "raise",
        num_workers: int | None = None,
        **load: Unpack[LoadKeywords],
    ) -> Generator[TurnedBatch]:
        """Embed images as copies are found by: the whole and its middle, turned, each decoded once.

        The mean of the four embeddings changes less with turns, crops and frames than any of them.

        Args:
            images: As for ``encode``.
            batch_size: How many images are prepared at once.
            on_error: As for ``encode``.
            num_workers: As for ``encode``.
            **load: As for ``encode``.

        Yields:
            Batches in the order of the input; of each image the ``COPY_LOOKS``.

        Raises:
            ImageError: As for ``encode``.
        """
        preprocessor = WholeAndMiddle(self.preprocessor.config, self.preprocessor.options)
        yield from self._looks(
            preprocessor, COPY_LOOKS, images, batch_size, on_error, num_workers, load
        )

    def _looks(
        self,
        preprocessor: Preprocessor,
        looks: Sequence[Look],
        images: ImageSource | Iterable[ImageSource],
        batch_size: int,
        on_error: OnError,
        num_workers: int | None,
        load: LoadKeywords,
    ) -> Generator[TurnedBatch]:
        workers = decode_threads() if num_workers is None else num_workers
        check_batches(batch_size, on_error, workers)
        batches = prepared_batches(
            preprocessor.with_options(replace(preprocessor.options, **load)),
            as_list(images),
            batch_size=batch_size,
            on_error=on_error,
            workers=workers,
        )
        with closing(batches):
            for good, bad in batches:
                size = preprocessor.config.crop_size
                scales = [image.pixels.reshape(-1, 3, size, size) for image in good]
                turned = [
                    self._embed_turned(
                        [
                            image._replace(pixels=pixels[look.scale])
                            for image, pixels in zip(good, scales, strict=True)
                        ],
                        look.quarter,
                    )
                    for look in looks
                ]
                sources, places = ([getattr(i, n) for i in good] for n in ("source", "position"))
                yield TurnedBatch(sources, turned, bad, places)

    def _embed_turned(
        self, images: Sequence[Prepared], quarter: int, *, mirrored: bool = False
    ) -> Embeddings:
        """Embed prepared images, mirrored or not, then turned counter-clockwise by quarters."""
        turned = []
        for image in images:
            pixels = image.pixels[:, :, ::-1] if mirrored else image.pixels  # (3, H, W)
            turned.append(image._replace(pixels=np.rot90(pixels, quarter, axes=(1, 2))))
        return self._embed_images(turned, tokens=False)


def _opened(name: str, image: ImageSource, options: LoadOptions, size: int) -> Image.Image:
    """An image that is opened; an error names which of several it was, where it has no path."""
    try:
        return open_image(image, options, size)
    except ImageError as error:
        if isinstance(image, (str, os.PathLike)):
            raise
        raise ImageError(f"{name} {error.source}", error.reason) from error
