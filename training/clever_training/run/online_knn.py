"""k-NN during a run: how good the embedding is so far, on photos that it is not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clever_hub.embeddings import invariant_length, split
from clever_hub.errors import ConfigError
from clever_hub.images.preparing import Preprocessor
from clever_training.data.labelled import LabelledPhotos, load_labelled
from clever_training.evaluation.data import Splits, check_classes, has_splits, load_splits
from clever_training.evaluation.knn import K, knn_predict, top1
from clever_training.model.normalization import preprocessing
from clever_training.recipe.schema import Recipe
from clever_training.runtime.gathering import world_size
from clever_training.runtime.processes import gathered, rank

if TYPE_CHECKING:
    from clever_training.run.learner import Learner

_BATCH = 128
# Memory of each process for photos that the next measurement need not decode again.
_KEPT_BYTES = 512 * 2**20


class OnlineKnn:
    """Classifies upright photos by their nearest neighbours every few epochs.

    This is the k-NN of ``clever-hub evaluate`` (k 20, cosine, temperature 0.07), in evaluation mode
    on the weights that the model folder gets. Each process embeds its share.

    Args:
        source: Labelled photos: ``NEIGHBOURS,QUERIES`` or a folder with both splits, as
            ``evaluate`` takes them; or one set, one half of which classifies the other.
        recipe: How often to measure, on how many photos, at which size.

    Raises:
        DataError: When the photos cannot be read or have no labels.
        ConfigError: When there are too few photos.
    """

    def __init__(self, source: str, recipe: Recipe) -> None:
        self.every = recipe.run.knn_every_epochs
        if "," in source or has_splits(source):
            splits = load_splits(source)
        else:
            photos = load_labelled(source, "validation")
            half = photos.stratified(len(photos) // 2, seed=0)
            others = np.setdiff1d(np.arange(len(photos)), half.indices)
            splits = Splits(half, photos.subset(others))
        check_classes(splits)
        most = recipe.run.knn_photos
        self.neighbours, self.queries = (part.stratified(most, seed=0) for part in splits)
        if len(self.neighbours) < K:
            raise ConfigError(
                f"--validation: {source} leaves {len(self.neighbours)} photos as neighbours; "
                f"k-NN needs at least {K}"
            )
        config = preprocessing(recipe)
        # With mean 0 and deviation 1 pixels stay in [0, 1], so that rounding to bytes is exact.
        self._crop = Preprocessor(replace(config, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
        self._normalize = Preprocessor(replace(config, resize_size=config.crop_size))
        self._kept: dict[tuple[LabelledPhotos, int], NDArray[np.uint8]] = {}

    def due(self, done: int, per_epoch: int, stop: int) -> bool:
        """Whether to measure after a step: every few epochs, and at the end.

        Args:
            done: Steps done.
            per_epoch: Steps in a pass through the data.
            stop: Steps in all.
        """
        return done == stop or (self.every > 0 and done % (self.every * per_epoch) == 0)

    def measure(self, learner: Learner) -> dict[str, float]:
        """Top-1 accuracy in per cent, of the whole embedding and of both parts.

        Args:
            learner: Has the weights. Measuring changes neither them nor running statistics nor
                random generators.

        Returns:
            ``knn``, ``knn_invariant`` and ``knn_equivariant``; the same in every process.
        """
        backbone = learner.clever.shipped_backbone
        was_training = backbone.training
        backbone.eval()
        try:
            device = learner.accelerator.device
            bank, queries = (
                self._embed(backbone, photos, device) for photos in (self.neighbours, self.queries)
            )
        finally:
            backbone.train(was_training)
        length = invariant_length(bank.shape[1], learner.recipe.method.split_ratio)
        names = ("knn", "knn_invariant", "knn_equivariant")
        parts = zip((bank, *split(bank, length)), (queries, *split(queries, length)), strict=True)
        return {name: self._accuracy(*part) for name, part in zip(names, parts, strict=True)}

    def _accuracy(self, bank: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
        predicted = knn_predict(bank, self.neighbours.labels, queries)
        return round(top1(predicted, self.queries.labels), 3)

    @torch.no_grad()
    def _embed(
        self, backbone: nn.Module, photos: LabelledPhotos, device: torch.device
    ) -> NDArray[np.float32]:
        """Embeddings (photos, d) of all photos; of n processes each embeds every n-th photo."""
        share = range(rank(), len(photos), world_size())
        parts = [backbone(batch.to(device)).float().cpu() for batch in self._batches(photos, share)]
        shares = gathered(torch.cat(parts).numpy())
        whole = np.empty((len(photos), shares[0].shape[1]), dtype=np.float32)
        for number, features in enumerate(shares):
            whole[number :: world_size()] = features
        return whole

    def _batches(self, photos: LabelledPhotos, share: range) -> Iterator[torch.Tensor]:
        """The backbone's inputs (n, 3, size, size), prepared one batch ahead of it."""

        def prepare(place: int) -> NDArray[np.float32]:
            return self._normalize(self._cropped(photos, place))

        with ThreadPoolExecutor(2, thread_name_prefix="clever-knn") as pool:
            waiting = pool.map(prepare, share[:_BATCH])
            for start in range(0, len(share), _BATCH):
                ready = list(waiting)
                waiting = pool.map(prepare, share[start + _BATCH : start + 2 * _BATCH])
                yield torch.from_numpy(np.stack(ready))

    def _cropped(self, photos: LabelledPhotos, place: int) -> NDArray[np.uint8]:
        """A photo resized and cropped, uint8 (size, size, 3); kept while there is room."""
        known = self._kept.get((photos, place))
        if known is not None:
            return known
        pixels = np.rint(self._crop(photos[place]) * 255).astype(np.uint8)  # (3, size, size)
        crop = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        if (len(self._kept) + 1) * crop.nbytes <= _KEPT_BYTES:
            self._kept[photos, place] = crop
        return crop
