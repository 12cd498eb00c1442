"""A mask of a video's first frame, carried on to the others by the similarity of features.

Nothing is trained: a patch takes the labels of the patches that are most like it, in the first
frame and in the last few (Jabri et al., NeurIPS 2020, https://arxiv.org/abs/2006.14613; with these
settings Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294, appendix). Which patches those
are does not depend on the masks, so it is found for a whole frame at once, in tiles: a patch only
looks around its own place, and a product with all others would be thrown away for the most part.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# Patches a side of a tile, at most. A smaller one meets fewer patches that are too far away, but
# makes products that are too small to be fast; of this size, all similarities are 4 MB at a time.
TILE = 10


@dataclass(frozen=True)
class Propagation:
    """How labels are carried on; as published for DAVIS-2017.

    Attributes:
        last_frames: How many frames before this one are looked at, besides the first.
        neighbours: How many patches of all those frames together give a patch its labels.
        radius: How many patches up, down, left and right of its own place it looks; None for all.
        temperature: Temperature of the softmax of the cosines.
    """

    last_frames: int = 7
    neighbours: int = 5
    radius: int | None = 12
    temperature: float = 0.1


class Links(NamedTuple):
    """From which patches of earlier frames each patch takes its labels.

    Attributes:
        patches: int (patches, k), counted over all source frames, one after the other.
        weights: float (patches, k), each row sums to 1.
    """

    patches: Int[Tensor, "patches k"]
    weights: Float[Tensor, "patches k"]


def propagate(
    features: Iterable[Float[Tensor, "rows columns dim"]],
    labels: Float[Tensor, "rows columns classes"],
    settings: Propagation | None = None,
) -> Iterator[Float[Tensor, "rows columns classes"]]:
    """The labels of every frame, from those of the first.

    Args:
        features: Features of each frame in turn; only ``settings.last_frames`` + 1 are kept.
        labels: Labels of the first frame, a share of each class per patch.
        settings: As published when None.

    Yields:
        The labels of each frame, the first one's as they are. Each patch's labels are a mean of
        others', so they keep their sum.

    Example:
        >>> frames = torch.eye(4).view(2, 2, 4).expand(3, 2, 2, 4)
        >>> labels = torch.eye(2)[torch.tensor([[0, 1], [1, 0]])]
        >>> *_, last = propagate(frames, labels, Propagation(neighbours=1))
        >>> last.argmax(dim=-1).tolist()
        [[0, 1], [1, 0]]
    """
    settings = settings or Propagation()
    known: deque[tuple[Tensor, Tensor]] = deque(maxlen=settings.last_frames)
    first: tuple[Tensor, Tensor] | None = None
    for frame in features:
        unit = F.normalize(frame, dim=-1)
        if first is None:
            first = (unit, labels)
            yield labels
            continue
        sources = [first, *known]
        found = find_links(unit, torch.stack([source for source, _ in sources]), settings)
        carried = torch.stack([label for _, label in sources]).flatten(0, 2)
        taken = carried[found.patches]  # (patches, k, classes)
        result = (taken * found.weights[..., None]).sum(dim=1).view(labels.shape)
        known.append((unit, result))
        yield result


def find_links(
    target: Float[Tensor, "rows columns dim"],
    sources: Float[Tensor, "frames rows columns dim"],
    settings: Propagation,
) -> Links:
    """The patches of the source frames that each patch of a frame is most like.

    Args:
        target: Features of the frame, of length 1.
        sources: Features of the frames to take labels from, of length 1.
        settings: How many patches, and how far away.

    Returns:
        The most alike first.
    """
    rows, columns = target.shape[:2]
    radius = max(rows, columns) if settings.radius is None else settings.radius
    count = settings.neighbours
    values = target.new_full((rows, columns, count), -torch.inf)
    patches = torch.zeros(rows, columns, count, dtype=torch.int64)
    for tall in _spans(rows):
        for wide in _spans(columns):
            high, broad = _around(tall, radius, rows), _around(wide, radius, columns)
            keys = sources[:, high, broad].flatten(0, 2)  # (frames · keys of a frame, dim)
            similar = target[tall, wide].flatten(0, 1) @ keys.T  # (places, frames · keys)
            beyond = _beyond(tall, wide, high, broad, radius)
            by_frame = similar.view(len(beyond), len(sources), -1)
            by_frame.masked_fill_(beyond[:, None], -torch.inf)
            best = similar.topk(min(count, similar.shape[1]), dim=1)
            frame, place = best.indices // beyond.shape[1], best.indices % beyond.shape[1]
            across = broad.stop - broad.start
            row, column = high.start + place // across, broad.start + place % across
            size, found = values[tall, wide].shape[:2], best.values.shape[1]
            values[tall, wide, :found] = best.values.view(*size, found)
            patches[tall, wide, :found] = ((frame * rows + row) * columns + column).view(
                *size, found
            )
    # Where a small map has fewer neighbours than are wanted, the rest weigh nothing.
    weights = torch.softmax(values / settings.temperature, dim=-1)
    return Links(patches.flatten(0, 1), weights.flatten(0, 1))


def _spans(size: int) -> list[slice]:
    """A side cut into tiles that are as even as can be."""
    count = -(-size // TILE)
    edges = [size * number // count for number in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _around(span: slice, radius: int, size: int) -> slice:
    """What the patches of a span may look at along one side."""
    return slice(max(0, span.start - radius), min(size, span.stop + radius))


def _beyond(tall: slice, wide: slice, high: slice, broad: slice, radius: int) -> Tensor:
    """Which keys are too far from which places, bool (places, keys)."""

    def places(down: slice, across: slice) -> Tensor:
        rows, columns = (torch.arange(span.start, span.stop) for span in (down, across))
        return torch.cartesian_prod(rows, columns)

    apart = (places(tall, wide)[:, None] - places(high, broad)).abs()
    return apart.amax(dim=-1) > radius
