"""Damaged copies of a file: bytes changed, cut, doubled, mixed with those of another file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Rng = np.random.Generator
# Values at which parsers go wrong.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    *(b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"99999999999999999999"),
    *(b'""', b"[]", b"{}", b'"\\ud800"', b'"\\u0000"', b"[[[[[[[[", b"\xff\xfe", b"../../x"),
)


def flip(data: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Change up to eight bytes."""
    out = bytearray(data)
    for place in rng.integers(len(out), size=rng.integers(1, 9)):
        out[place] = rng.integers(256)
    return bytes(out)


def cut(data: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Keep the beginning."""
    return data[: rng.integers(len(data))]


def drop(data: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Leave a piece out."""
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 65)) :]


def double(data: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Repeat a piece."""
    start = int(rng.integers(len(data)))
    piece = data[start : start + int(rng.integers(1, 257))]
    return data[:start] + piece * int(rng.integers(2, 9)) + data[start:]


def edge(data: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Write a number at which parsers go wrong."""
    size = int(rng.choice([1, 2, 4]))
    value = int(rng.choice(_EDGES)) % (1 << 8 * size)
    start = int(rng.integers(max(1, len(data) - size)))
    order = "little" if rng.integers(2) else "big"
    return data[:start] + value.to_bytes(size, order) + data[start + size :]  # type: ignore[arg-type]


def word(data: bytes, rng: Rng, _: Sequence[bytes]) -> bytes:
    """Write a word at which readers of text go wrong."""
    start = int(rng.integers(len(data)))
    return (
        data[:start] + _WORDS[int(rng.integers(len(_WORDS)))] + data[start + rng.integers(0, 9) :]
    )


def splice(data: bytes, rng: Rng, seeds: Sequence[bytes]) -> bytes:
    """Go on with another seed's end."""
    other = seeds[int(rng.integers(len(seeds)))]
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


MUTATORS: tuple[Callable[[bytes, Rng, Sequence[bytes]], bytes], ...] = (
    *(flip, cut, drop, double, edge, word, splice),
)


def mutated(seeds: Sequence[bytes], rng: Rng) -> bytes:
    """A damaged copy of one of the seeds.

    Args:
        seeds: Whole files.
        rng: Everything random.

    Returns:
        One to three mutations one after another; never empty input to a mutator.
    """
    data = seeds[int(rng.integers(len(seeds)))]
    for _ in range(rng.integers(1, 4)):
        if data:
            data = MUTATORS[int(rng.integers(len(MUTATORS)))](data, rng, seeds)
    return data
