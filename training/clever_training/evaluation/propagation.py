"""A mask of a video's first frame, carried on to the others by the similarity of features.

Nothing is trained: a patch takes the labels of the patches that are most like it, in the first
frame and in the last few (Jabri et al., NeurIPS 2020, https://arxiv.org/abs/2006.14613; with these
settings Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294, appendix). Which patches those
are does not depend on the masks, so it is found for a whole frame at once, in tiles: a patch only
looks around its own place, and a product with all others would be thrown away for the most part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# Patches a side of a tile. A smaller one meets fewer patches that are too far away, but makes
# products that are too small to be fast.
TILE = 12
# Similarities in memory at a time: 16 MiB in float32.
MAX_SIMILARITIES = 4 * 2**20


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
    tall, wide = min(TILE, rows), min(TILE, columns)
    reach = (min(radius, rows - 1), min(radius, columns - 1))
    tiles = _Tiles.of(sources, (tall, wide), reach, radius)
    queries = F.pad(target, (0, 0, 0, -columns % wide, 0, -rows % tall))
    queries = queries.unfold(0, tall, tall).unfold(1, wide, wide)  # (down, across, dim, tall, wide)
    queries = queries.permute(0, 1, 3, 4, 2).flatten(2, 3)  # (down, across, places, dim)
    step = max(1, MAX_SIMILARITIES // (tall * wide * tiles.keys_per_tile))
    count = min(settings.neighbours, tiles.keys_per_tile)
    best = [
        tiles.best(some, row, start, count)
        for row, line in enumerate(queries)
        for start, some in zip(range(0, len(line), step), line.split(step), strict=True)
    ]
    values, patches = (
        _untiled(torch.cat(part), (rows, columns), (tall, wide)) for part in zip(*best, strict=True)
    )
    return Links(patches, torch.softmax(values / settings.temperature, dim=-1))


class _Tiles(NamedTuple):
    """Source frames, cut so that each tile of the target meets the square that it may look at.

    Attributes:
        windows: (frames, down, across, dim, high, broad), views into the padded sources.
        numbers: int (frames, down, across, high, broad), of the patches; -1 beyond the edge.
        beyond: bool (places, high · broad), true where a patch of the tile may not look.
    """

    windows: Tensor
    numbers: Tensor
    beyond: Tensor

    @classmethod
    def of(
        cls, sources: Tensor, tile: tuple[int, int], reach: tuple[int, int], radius: int
    ) -> _Tiles:
        frames, rows, columns, _ = sources.shape
        (tall, wide), (down, right) = tile, reach
        edges = (right, right + -columns % wide, down, down + -rows % tall)
        numbers = torch.arange(frames * rows * columns).view(frames, rows, columns)
        numbers = F.pad(numbers, edges, value=-1)
        padded = F.pad(sources, (0, 0, *edges))

        def cut(frame: Tensor) -> Tensor:
            return frame.unfold(1, tall + 2 * down, tall).unfold(2, wide + 2 * right, wide)

        place = torch.cartesian_prod(torch.arange(tall), torch.arange(wide))
        key = torch.cartesian_prod(
            torch.arange(tall + 2 * down) - down, torch.arange(wide + 2 * right) - right
        )
        beyond = (place[:, None] - key).abs().amax(dim=-1) > radius
        return cls(cut(padded), cut(numbers), beyond)

    @property
    def keys_per_tile(self) -> int:
        return len(self.windows) * self.beyond.shape[1]

    def best(
        self, queries: Float[Tensor, "tiles places dim"], row: int, start: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Cosine and number of the most alike patches of neighbouring tiles of one row.

        Args:
            queries: Features of the tiles' patches.
            row: Row of the tiles.
            start: Column of the first of them.
            count: How many are wanted.

        Returns:
            Twice (tiles, places, count).
        """
        across = slice(start, start + len(queries))
        keys = self.windows[:, row, across].permute(1, 0, 3, 4, 2).flatten(1, 3)
        numbers = self.numbers[:, row, across].transpose(0, 1).flatten(1)  # (tiles, keys)
        similar = queries @ keys.transpose(1, 2)  # (tiles, places, keys)
        by_frame = similar.view(*similar.shape[:2], len(self.windows), -1)
        by_frame.masked_fill_(self.beyond[:, None], -torch.inf)
        similar.masked_fill_((numbers < 0)[:, None], -torch.inf)
        values, places = similar.topk(count, dim=-1)
        found = numbers[:, None].expand(similar.shape).gather(-1, places)
        # Where a small map has fewer neighbours than are wanted, the rest weigh nothing.
        return values, found.clamp_min(0)


def _untiled(tiled: Tensor, size: tuple[int, int], tile: tuple[int, int]) -> Tensor:
    """(tiles, places, k) back to (rows · columns, k)."""
    (rows, columns), (tall, wide) = size, tile
    across = -(-columns // wide)
    grid = tiled.view(-1, across, tall, wide, tiled.shape[-1]).transpose(1, 2)
    return grid.flatten(2, 3).flatten(0, 1)[:rows, :columns].flatten(0, 1)
