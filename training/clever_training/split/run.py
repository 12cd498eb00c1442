"""Give any embedding model the two parts: embed views, find the rotation, write the projection."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clever_hub import __version__
from clever_hub.backends.timm import classifier_name
from clever_hub.backends.torch import CleverModel, write_model_folder
from clever_hub.config import ModelConfig
from clever_hub.embeddings import invariant_length
from clever_hub.errors import ConfigError, DataError, ModelFormatError
from clever_hub.jobs.heads import HEADS_KEY
from clever_hub.weights import WEIGHTS_NAME, Weights
from clever_training.data.photos import Photos, load_photos
from clever_training.data.sources import public_name
from clever_training.model.pretrained import load_pretrained
from clever_training.split.choose import MIN_PHOTOS, Split, find_split
from clever_training.split.embedding import Views, embed_views, views_recipe

# What is done, how much of it, and how much there is.
Progress = Callable[[str, int, int], None]
STRATEGIES = ("baug", "caug", "caug+")
_SHARES = (0.6, 0.2, 0.2)  # of the photos: to fit to, to choose c on, to measure


@dataclass(frozen=True)
class SplitPlan:
    """How an embedding is split.

    Attributes:
        ratio: Share of the invariant part, in (0, 1).
        views: How photos are transformed: ``baug``, ``caug`` or ``caug+``.
        photos: How many photos, at most; six tenths to fit to, two to choose c on, two to measure.
        count: Views of each photo, the photo itself included.
        seed: Of all that is drawn.
    """

    ratio: float = 0.8
    views: str = "caug"
    photos: int = 2000
    count: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"--ratio: expected a share between 0 and 1, got {self.ratio}")
        if self.views not in STRATEGIES:
            raise ConfigError(
                f"--views: expected one of {', '.join(STRATEGIES)}, got {self.views!r}"
            )
        if self.photos < 1:
            raise ConfigError(f"--photos: expected 1 or more, got {self.photos}")
        if self.count < 2:
            raise ConfigError(f"--count: expected at least 2 views of a photo, got {self.count}")


def split_model(
    model: str | Path,
    data: str,
    output: str | Path,
    *,
    plan: SplitPlan | None = None,
    image_column: str | None = None,
    force: bool = False,
    device: str | None = None,
    progress: Progress = lambda *_: None,
) -> Split:
    """Rotate a model's embedding into an invariant and an equivariant part.

    The network stays as it is. A projection is written after it, which all readers apply; every
    cosine of the whole embedding, centred, is as before.

    Args:
        model: ``timm:NAME``, or a clever model as ``clever_hub.from_pretrained`` takes it.
        data: Photos: a folder, a parquet file or a data set.
        output: The model folder to make.
        plan: How.
        image_column: The image column of a table.
        force: Rotate once more what has a projection already.
        device: Where to embed; None is the CPU.
        progress: Called with what is done, how much of it, and how much there is.

    Returns:
        The rotation and what it is worth, which is in the config's provenance too.

    Raises:
        ConfigError: When the model has a projection, its network has no place for one, or the
            folder exists.
        DataError: When a photo cannot be read, or there are too few.
        ModelNotFoundError: When there is no such model.

    Example:
        >>> split_model("timm:tf_efficientnet_lite0", "photos/", "split")  # doctest: +SKIP
    """
    plan, target = plan or SplitPlan(), Path(output)
    if os.path.lexists(target):
        raise ConfigError(f"--output: {target} is there already. Remove it, or name another folder")
    loaded = load_pretrained(str(model), device)
    config = loaded.config
    if config.projection and not force:
        raise ConfigError(
            f"{model}: has a projection already; its parts are {config.invariant_dim} + "
            f"{config.equivariant_dim}. Split the model that it was made of, or rotate this one "
            "once more with --force"
        )
    cut = invariant_length(config.num_features, plan.ratio)
    if not 0 < cut < config.num_features:
        raise ConfigError(
            f"--ratio: {plan.ratio} of {config.num_features} dimensions leaves a part empty"
        )
    wanted = replace(_bare(config), projection=True, invariant_dim=cut, name=target.name)
    place = _place(wanted)
    photos = load_photos(data, image_column)
    fit, choose, ask = _embed(loaded, photos, plan, progress)
    found = find_split(fit, choose, ask, cut, progress)
    progress("writing", 0, 0)
    half = _stored_half(loaded)
    state = _projected_state(loaded, found, place, half)
    wanted = replace(wanted, provenance=_provenance(loaded, str(model), data, plan, found))
    _check(loaded, wanted, state, found, half)
    write_model_folder(target, wanted, state, half_matrices=half)
    return found


def _bare(config: ModelConfig) -> ModelConfig:
    """The config without what belongs to the embedding as it was."""
    extra = {k: v for k, v in config.extra.items() if k not in (HEADS_KEY, "auto_map")}
    if "pretrained_cfg" in extra:
        kept = {k: v for k, v in extra["pretrained_cfg"].items() if k != "classifier"}
        extra["pretrained_cfg"] = kept
    return replace(config, extra=extra)


def _place(config: ModelConfig) -> str:
    """Name of the linear layer that becomes the projection."""
    try:
        with torch.device("meta"):
            name = classifier_name(CleverModel(config).backbone)
    except ModelFormatError as error:
        raise ConfigError(f"{config.architecture} cannot be split: {error}") from error
    assert name is not None
    return name


def _embed(
    model: CleverModel, photos: Photos, plan: SplitPlan, progress: Progress
) -> tuple[Views, Views, Views]:
    """Views of photos to fit to, to choose c on and to measure, all different ones."""
    order = np.random.default_rng(plan.seed).permutation(len(photos))[: plan.photos]
    fit, choose = (round(share * len(order)) for share in _SHARES[:2])
    sets = np.split(order, [fit, fit + choose])
    if min(len(rows) for rows in sets) < MIN_PHOTOS:
        raise DataError(
            f"{photos.name}: expected at least {5 * MIN_PHOTOS} photos, got {len(order)}. "
            f"{enough_photos(model.config.num_features):,} are enough for the "
            f"{model.config.num_features} dimensions of {model.config.name}; with fewer, "
            "covariances are shrunk"
        )
    size = model.config.preprocessing.crop_size
    rows = np.concatenate(sets).tolist()
    views = embed_views(
        model,
        photos,
        rows,
        views_recipe(plan.views, size),
        plan.count,
        seed=plan.seed,
        progress=lambda done, total: progress("photos", done, total),
    )
    bounds = [0, fit, fit + choose, len(order)]
    first, second, third = (
        Views(views.embeddings[a:b], views.parameters[a:b]) for a, b in pairwise(bounds)
    )
    return first, second, third


def enough_photos(dim: int) -> int:
    """How many photos in all make shrinking unnecessary.

    Args:
        dim: Length of the embedding.

    Example:
        >>> enough_photos(1280)
        2135
    """
    return int(np.ceil((dim + 1) / _SHARES[0]))


def _stored_half(model: CleverModel) -> bool:
    """Whether the model's own matrices are stored as float16, so that it stays as small."""
    if model.source is None:
        return False
    with Weights(model.source.path / WEIGHTS_NAME) as weights:
        return any(entry.dtype == "F16" for entry in weights.entries.values())


def _projected_state(
    model: CleverModel, found: Split, place: str, half: bool
) -> dict[str, torch.Tensor]:
    """The network's tensors and the projection's; what was projected before is rotated further."""
    state = {name: tensor.cpu() for name, tensor in model.backbone.state_dict().items()}
    mean, matrix = found.mean, found.basis.T
    if model.config.projection:
        weight, bias = (state[f"{place}.{kind}"].double().numpy() for kind in ("weight", "bias"))
        # An orthogonal map's inverse is its transpose, so this is the mean of what it is given.
        mean, matrix = weight.T @ (mean - bias), matrix @ weight
    stored = torch.from_numpy(matrix).to(torch.float16 if half else torch.float32)
    # From the rounded matrix, so that the mean is taken to 0.
    bias = -(stored.double().numpy() @ mean)
    state[f"{place}.weight"] = stored.float()
    state[f"{place}.bias"] = torch.from_numpy(bias).float()
    return state


def _check(
    plain: CleverModel,
    config: ModelConfig,
    state: dict[str, torch.Tensor],
    found: Split,
    half: bool,
) -> None:
    """The network with the projection must be the projection of the network without it."""
    model = CleverModel(config).eval()
    model.backbone.load_state_dict(state, strict=True)
    size = config.preprocessing.crop_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    device = next(plain.parameters()).device
    with torch.inference_mode():
        got = model(images).full.double().numpy()
        raw = plain(images.to(device)).full.double().cpu().numpy()
    expected = (raw - found.mean) @ found.basis
    tolerance = (1e-2 if half else 1e-4) * max(1.0, float(np.abs(raw - found.mean).max()))
    if not np.abs(got - expected).max() <= tolerance:
        raise ConfigError(
            f"{config.architecture} cannot be split: its classifier is not applied to the pooled "
            "embedding alone. Take another network"
        )


def _provenance(
    model: CleverModel, specification: str, data: str, plan: SplitPlan, found: Split
) -> dict[str, Any]:
    # It is published, so it holds names and no folder's path.
    local = Path(specification).expanduser().is_dir()
    name = model.config.name if local else specification
    source = model.source
    start = {"init": name, "name": model.config.name}
    if source is not None and source.weights_sha256:
        start["weights_sha256"] = source.weights_sha256
    before = {k: v for k, v in model.config.provenance.items() if k not in ("recipe", "split")}
    return {
        "method": "split",
        "data": public_name(data),
        "photos": sum(found.photos),
        "start": {**start, **({"provenance": before} if before else {})},
        "split": {
            "ratio": plan.ratio,
            "views": plan.views,
            "count": plan.count,
            "seed": plan.seed,
            **found.describe(),
        },
        "clever_hub": __version__,
    }
