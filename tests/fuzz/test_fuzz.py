"""Damaged files of strangers: nothing but our errors, no second per file, no growth, no chatter.

The suite tries a hundred or more of each kind. ``make fuzz`` goes on for FUZZ_SECONDS a kind, from
FUZZ_SEED on, and keeps what failed in FUZZ_KEEP.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from clever_hub.errors import CleverError
from tests.fuzz.graphs import mutated_graph
from tests.fuzz.mutate import MUTATORS, mutated
from tests.fuzz.targets import TARGETS

COUNT = 250
SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
GROWTH = 200_000_000  # bytes, over all files of a kind


def resident() -> int:
    """Bytes in memory now; a photo of the largest size that is allowed takes 500 MB for a while."""
    gc.collect()
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0


@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_raise_nothing_but_our_errors(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = TARGETS[kind]()
    for seed in target.seeds:
        target.read(seed, tmp_path)
    begun, before, slowest, tried, refused = time.monotonic(), resident(), 0.0, 0, 0
    while tried < target.tries or time.monotonic() - begun < SECONDS:
        rng = np.random.default_rng((SEED, tried))
        data = target.mutate(target.seeds, rng)
        # Processor time: another process may hold the core meanwhile.
        start = time.thread_time()
        try:
            target.read(data, tmp_path)
        except CleverError:
            refused += 1
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it is a finding
            _keep(kind, tried, data)
            pytest.fail(f"{kind} {SEED}/{tried}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.thread_time() - start)
        tried += 1
    assert refused > tried / 10, "the damage is too small to try anything"
    assert slowest < 1, f"{slowest:.2f} s for one file"
    assert resident() - before < GROWTH
    noise = capfd.readouterr()
    assert noise.err == ""
    assert noise.out == ""


def _keep(kind: str, number: int, data: bytes) -> None:
    if folder := os.environ.get("FUZZ_KEEP"):
        (Path(folder) / f"{kind}-{SEED}-{number}.bin").write_bytes(data)


def test_the_harness_finds_what_is_wrong() -> None:
    """Some mutation fails a reader that trusts one byte, and every mutator changes something."""

    def trusting(data: bytes) -> None:
        if data[:1] != b"{":
            raise IndexError

    seeds = [b'{"a": 1, "b": [1, 2, 3]}' * 4]
    found = 0
    for number in range(COUNT):
        try:
            trusting(mutated(seeds, np.random.default_rng(number)))
        except IndexError:
            found += 1
    assert found > 0
    for mutator in MUTATORS:
        made = {mutator(seeds[0], np.random.default_rng(n), [b"other"]) for n in range(20)}
        assert made - {seeds[0]}, mutator.__name__


def test_damaged_graphs_are_graphs_and_differ() -> None:
    """Every change is one that only a reader of graphs can find: each of them parses."""
    whole = TARGETS["graphs"]().seeds[0]
    made = {mutated_graph(whole, np.random.default_rng(number)) for number in range(COUNT)}
    assert len(made - {whole}) > COUNT / 2
    for data in made:
        onnx.ModelProto().ParseFromString(data)
