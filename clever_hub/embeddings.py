"""The two parts of an embedding: where it is split, and what ``encode`` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray


class _Array(Protocol):
    """A numpy array or a torch tensor: this module needs no torch."""

    @property
    def ndim(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


_ArrayT = TypeVar("_ArrayT", bound=_Array)
_ItemT = TypeVar("_ItemT")


def invariant_length(num_features: int, split_ratio: float) -> int:
    """Length of the invariant part: ⌊ratio · d⌋, guarded against 0.57 · 100 = 56.99…9 and its kind.

    Args:
        num_features: d, the length of the embedding.
        split_ratio: The share of the invariant part, in (0, 1].

    Returns:
        Where the embedding is split.

    Example:
        >>> invariant_length(2048, 0.8), invariant_length(512, 0.8), invariant_length(192, 0.8)
        (1638, 409, 153)
        >>> invariant_length(100, 0.57)
        57
    """
    return math.floor(num_features * split_ratio + 1e-9)


def split(embedding: _ArrayT, invariant_dim: int) -> tuple[_ArrayT, _ArrayT]:
    """Split embeddings into their two parts.

    The invariant part comes first (Song et al., https://arxiv.org/abs/2406.00262, section 3.2).

    Args:
        embedding: numpy array or torch tensor (..., d).
        invariant_dim: Length of the invariant part.

    Returns:
        Views of the invariant part (..., invariant_dim) and the equivariant part
        (..., d − invariant_dim), which has no columns where ``invariant_dim`` is d.

    Example:
        >>> invariant, equivariant = split(np.ones((2, 5)), 4)
        >>> invariant.shape, equivariant.shape
        ((2, 4), (2, 1))
    """
    # Not `[..., :n]`: torch.export traces an ellipsis into other nodes, so that the exported graph
    # of the same model would have another hash.
    leading = (slice(None),) * (embedding.ndim - 1)
    invariant, equivariant = slice(invariant_dim), slice(invariant_dim, None)
    return embedding[(*leading, invariant)], embedding[(*leading, equivariant)]


def part_columns(invariant_dim: int, num_features: int) -> dict[str, slice]:
    """The columns of each part of an embedding.

    Args:
        invariant_dim: Length of the invariant part.
        num_features: Length of the embedding.

    Returns:
        ``full`` and, unless the equivariant part is empty, ``invariant`` and ``equivariant``.

    Example:
        >>> part_columns(4, 5)["equivariant"]
        slice(4, 5, None)
        >>> list(part_columns(5, 5))
        ['full']
    """
    columns = {"full": slice(0, num_features)}
    if invariant_dim < num_features:
        columns["invariant"] = slice(0, invariant_dim)
        columns["equivariant"] = slice(invariant_dim, num_features)
    return columns


class Skipped(NamedTuple):
    """An image that was left out.

    Attributes:
        position: Its index in the input.
        source: Its path, or a description of an image without one.
        reason: What is wrong with it.
    """

    position: int
    source: str
    reason: str


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of N images, in the order of the input.

    Attributes:
        invariant: float32 (N, d_i); z_IR in the paper. Trained to stay the same when a photo is
            rotated or distorted.
        equivariant: float32 (N, d_e); z_EF in the paper. Free to change with the photo.
        skipped: The images that have no row, with ``on_error="skip"``.
        tokens: float32 (N, rows, columns, d_i + d_e), the token of each patch, top left first; None
            unless asked for with ``tokens=True``.

    Example:
        >>> e = Embeddings(np.ones((2, 3), np.float32), np.ones((2, 1), np.float32))
        >>> len(e), e.full.shape, e[:1].invariant.shape
        (2, (2, 4), (1, 3))
    """

    invariant: NDArray[np.float32]
    equivariant: NDArray[np.float32]
    skipped: tuple[Skipped, ...] = ()
    tokens: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = self.invariant.shape, self.equivariant.shape
        if [len(shape) for shape in shapes] != [2, 2] or shapes[0][0] != shapes[1][0]:
            raise ValueError(f"expected shapes (N, d_i) and (N, d_e), got {shapes[0]}, {shapes[1]}")
        if self.tokens is not None and (self.tokens.ndim != 4 or len(self.tokens) != len(self)):
            raise ValueError(
                f"expected tokens of shape ({len(self)}, rows, columns, d), got {self.tokens.shape}"
            )

    @property
    def full(self) -> NDArray[np.float32]:
        """float32 (N, d_i + d_e): the whole embedding, the invariant part first."""
        return np.concatenate([self.invariant, self.equivariant], axis=1)

    def __len__(self) -> int:
        return len(self.invariant)

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """The whole embedding for ``np.asarray``: float32 (N, d_i + d_e)."""
        if copy is False:
            raise ValueError("the whole embedding is joined from two parts, which makes a copy")
        return self.full if dtype is None else self.full.astype(dtype)

    def __iter__(self) -> Iterator[Embeddings]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, index: int | slice | NDArray[np.generic]) -> Embeddings:
        """The chosen rows, always with two dimensions: ``e[0].invariant`` is (1, d_i)."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        tokens = None if self.tokens is None else self.tokens[rows]
        return Embeddings(self.invariant[rows], self.equivariant[rows], tokens=tokens)

    @classmethod
    def joined(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """The rows of several, one after the other, such as those of ``encode_batches``.

        Args:
            parts: One or more, of one model; all of them with tokens, or none.

        Returns:
            All rows. ``skipped`` has those of all parts, with the positions that they have there:
            those of ``encode_batches`` count through the whole input.

        Raises:
            ValueError: When there are none, or they do not go together.

        Example:
            >>> e = Embeddings(np.ones((2, 3), np.float32), np.ones((2, 1), np.float32))
            >>> len(Embeddings.joined([e, e[:1]]))
            3
        """
        if not parts:
            raise ValueError("expected embeddings to join, got none")
        tokens = [part.tokens for part in parts if part.tokens is not None]
        if len(tokens) not in (0, len(parts)):
            raise ValueError(f"expected tokens in all parts or in none, got {len(tokens)} of them")
        return cls(
            np.concatenate([part.invariant for part in parts]),
            np.concatenate([part.equivariant for part in parts]),
            tuple(skipped for part in parts for skipped in part.skipped),
            np.concatenate(tokens) if tokens else None,
        )

    def kept(self, images: Sequence[_ItemT]) -> list[_ItemT]:
        """The images that have a row: the input without those in ``skipped``.

        Args:
            images: What was embedded, or anything else of which there is one for each image, such
                as labels; in the order of the input.

        Returns:
            One for each row.

        Raises:
            ValueError: When there are not as many as rows and skipped images together, or
                ``skipped`` does not have their positions, as after joining several inputs.

        Example:
            >>> e = Embeddings(np.ones((1, 3)), np.ones((1, 1)), (Skipped(0, "a.jpg", "empty"),))
            >>> e.kept(["a.jpg", "b.jpg"])
            ['b.jpg']
        """
        if len(images) != len(self) + len(self.skipped):
            raise ValueError(
                f"expected one for each of {len(self)} rows and {len(self.skipped)} skipped "
                f"images, got {len(images)}"
            )
        gone = {one.position for one in self.skipped}
        if len(gone) < len(self.skipped) or not gone <= set(range(len(images))):
            positions = sorted(one.position for one in self.skipped)
            raise ValueError(
                f"expected skipped images with their positions in the input, got {positions}: call "
                "kept of each part, with its images"
            )
        return [image for place, image in enumerate(images) if place not in gone]

    def __repr__(self) -> str:
        tokens = "" if self.tokens is None else f", tokens={self.tokens.shape}"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"Embeddings(invariant={self.invariant.shape}, "
            f"equivariant={self.equivariant.shape}{tokens}{skipped})"
        )

    def normalized(self) -> Embeddings:
        """Unit vectors, each part by itself, so that a dot product is a cosine.

        Returns:
            New embeddings; a row of zeros stays zeros. ``full`` joins both unit vectors: its length
            is √2, and half of a dot product is the mean of both cosines. ``clever-hub compare``
            shows the cosine of the raw ``full``, in which the longer part counts for more. A token
            is normalised as a whole: only the embedding was trained to have two parts.
        """
        tokens = None if self.tokens is None else _unit(self.tokens)
        return Embeddings(_unit(self.invariant), _unit(self.equivariant), self.skipped, tokens)


@dataclass(frozen=True)
class EncodedBatch:
    """One batch of the output of ``encode_batches``.

    Attributes:
        indices: Index of each row's image in the input.
        sources: Name of each row's image.
        embeddings: One row for each image that could be read; the others are in ``.skipped``.
    """

    indices: list[int]
    sources: list[str]
    embeddings: Embeddings


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
