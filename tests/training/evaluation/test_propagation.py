"""Labels carried by tiles are those of the published formulas, written out for all pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clever_training.evaluation import propagation
from clever_training.evaluation.propagation import Propagation, find_links, propagate


def literal(frames: list[Tensor], labels: Tensor, settings: Propagation) -> list[Tensor]:
    """Every patch with every other, frame by frame, as DINO's evaluation writes it."""
    rows, columns, dim = frames[0].shape
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    apart = (place[:, None] - place).abs().amax(dim=-1)
    near = torch.ones_like(apart) if settings.radius is None else apart <= settings.radius
    unit = [F.normalize(frame.reshape(-1, dim), dim=1) for frame in frames]
    found, queue = [labels], list[tuple[Tensor, Tensor]]()
    for frame in unit[1:]:
        sources = [(unit[0], labels), *queue[-settings.last_frames :]]
        affinity = torch.cat(
            [torch.exp(frame @ source.T / settings.temperature) * near for source, _ in sources],
            dim=1,
        )
        least = affinity.topk(settings.neighbours, dim=1).values[:, -1:]
        affinity = torch.where(affinity < least, torch.zeros(()), affinity)
        affinity = affinity / affinity.sum(dim=1, keepdim=True)
        known = torch.cat([label.flatten(0, 1) for _, label in sources])
        result = (affinity @ known).view(rows, columns, -1)
        found.append(result)
        queue.append((frame, result))
    return found


def clip(rows: int, columns: int, count: int) -> tuple[list[Tensor], Tensor]:
    """Features that resemble each other from frame to frame, and labels of three classes."""
    random = torch.Generator().manual_seed(0)
    base = torch.randn(rows, columns, 24, generator=random)
    frames = [base + 0.5 * torch.randn(rows, columns, 24, generator=random) for _ in range(count)]
    numbers = torch.randint(0, 3, (rows, columns), generator=random)
    return frames, F.one_hot(numbers, 3).float()


@pytest.mark.parametrize(
    ("rows", "columns", "radius"),
    [(5, 7, 2), (20, 33, 6), (13, 12, 12), (9, 9, None), (26, 3, 1)],
)
def test_labels_are_those_of_the_formulas(rows: int, columns: int, radius: int | None) -> None:
    frames, labels = clip(rows, columns, 6)
    settings = Propagation(last_frames=3, neighbours=4, radius=radius)
    found = list(propagate(frames, labels, settings))
    expected = literal(frames, labels, settings)
    assert len(found) == 6
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.sum(dim=-1), torch.ones(rows, columns))
    assert not torch.equal(found[-1], labels)


def test_links_stay_within_the_radius_whatever_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, _ = clip(17, 30, 3)
    unit = [F.normalize(frame, dim=-1) for frame in frames]
    settings = Propagation(radius=2)
    whole = find_links(unit[0], torch.stack(unit[1:]), settings)
    place = whole.patches % (17 * 30)
    own = torch.arange(17 * 30)[:, None]
    assert (place // 30 - own // 30).abs().max() == 2
    assert (place % 30 - own % 30).abs().max() == 2
    monkeypatch.setattr(propagation, "TILE", 1)
    one_by_one = find_links(unit[0], torch.stack(unit[1:]), settings)
    assert torch.equal(whole.patches, one_by_one.patches)


def test_fewer_neighbours_than_wanted() -> None:
    frames, labels = clip(2, 2, 3)
    found = list(propagate(frames, labels, Propagation(neighbours=9, radius=0)))
    # Each patch may only look at its own place, so it keeps its label.
    torch.testing.assert_close(found[-1], labels)


def test_the_first_frame_is_never_forgotten() -> None:
    frames, labels = clip(6, 6, 8)
    frames[3] = torch.randn(6, 6, 24, generator=torch.Generator().manual_seed(9))
    settings = Propagation(last_frames=1, neighbours=1, radius=0)
    # With one frame of memory, a frame of noise would be all that the next one sees.
    found = list(propagate([frames[0], frames[3], frames[0]], labels, settings))
    torch.testing.assert_close(found[-1], labels)
