"""Batches: who waits for whom, who fails with whom, and that no answer is somebody else's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from clever_hub.serve.batching import Batcher

Array = NDArray[np.float32]


class Network:
    """Gives each image its mean; can be held, and notes its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()

    def __call__(self, pixels: Array) -> Array:
        self.entered.set()
        assert self.go.wait(20)
        self.batches.append(len(pixels))
        if (pixels < 0).any():
            raise FloatingPointError("negative")
        means: Array = pixels.mean(axis=(1, 2, 3))[:, None]
        return means


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def image(value: float) -> Array:
    return np.full((3, 2, 2), value, np.float32)


def values(futures: list[Future[Array]]) -> list[float]:
    return [float(future.result(20)[0]) for future in futures]


def hold(network: Network, batcher: Batcher) -> Future[Array]:
    """Let a first image into the network and keep it there."""
    network.go.clear()
    first = batcher.submit(lambda: image(0.0))
    assert network.entered.wait(20)
    return first


def wait_for_queue(batcher: Batcher, length: int) -> None:
    until = time.monotonic() + 20
    while len(batcher._queue) < length:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_every_caller_gets_its_own_answer(pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(Network(), pool, max_batch=7)
    found: dict[int, float] = {}

    def caller(number: int) -> None:
        for step in range(50):
            key = 1_000 * number + step
            found[key] = values([batcher.submit(partial(image, key))])[0]

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batcher.close()
    assert len(found) == 800
    assert all(value == key for key, value in found.items())


def test_what_waits_goes_together_up_to_the_limit(pool: ThreadPoolExecutor) -> None:
    network = Network()
    batcher = Batcher(network, pool, max_batch=4)
    first = hold(network, batcher)
    futures = [batcher.submit(partial(image, value)) for value in range(1, 7)]
    wait_for_queue(batcher, 6)
    network.go.set()
    assert values([first, *futures]) == [0, *range(1, 7)]
    batcher.close()
    assert network.batches == [1, 4, 2]


def test_a_lone_image_waits_for_nobody(pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(Network(), pool, max_wait=60)
    start = time.monotonic()
    assert values([batcher.submit(lambda: image(3))]) == [3]
    assert time.monotonic() - start < 20
    batcher.close()


def test_an_image_waits_for_one_that_is_being_decoded(pool: ThreadPoolExecutor) -> None:
    network, decoded = Network(), threading.Event()
    batcher = Batcher(network, pool, max_wait=60)

    def slow() -> Array:
        assert decoded.wait(20)
        return image(2)

    futures = [batcher.submit(slow), batcher.submit(lambda: image(1))]
    wait_for_queue(batcher, 1)
    assert not network.batches
    decoded.set()
    assert values(futures) == [2, 1]
    batcher.close()
    assert network.batches == [2]


def test_it_waits_only_while_images_queue_to_be_decoded(pool: ThreadPoolExecutor) -> None:
    network, decoded = Network(), threading.Event()
    batcher = Batcher(network, pool, max_wait=60, wait_above=2)

    def slow() -> Array:
        assert decoded.wait(20)
        return image(2)

    late = [batcher.submit(slow), batcher.submit(slow)]
    assert values([batcher.submit(lambda: image(1))]) == [1]  # two are decoded, no more
    late += [batcher.submit(slow)]
    waiting = batcher.submit(lambda: image(3))
    wait_for_queue(batcher, 1)
    assert network.batches == [1]
    decoded.set()
    assert values([waiting, *late]) == [3, 2, 2, 2]
    batcher.close()


def test_it_does_not_wait_longer_than_it_may(pool: ThreadPoolExecutor) -> None:
    network, decoded = Network(), threading.Event()
    batcher = Batcher(network, pool, max_wait=0.01)

    def slow() -> Array:
        assert decoded.wait(20)
        return image(2)

    late = batcher.submit(slow)
    assert values([batcher.submit(lambda: image(1))]) == [1]
    decoded.set()
    assert values([late]) == [2]
    batcher.close()
    assert network.batches == [1, 1]


def test_an_image_that_cannot_be_read_fails_alone(pool: ThreadPoolExecutor) -> None:
    network = Network()
    batcher = Batcher(network, pool)
    first = hold(network, batcher)

    def broken() -> Array:
        raise OSError("no image")

    good = [batcher.submit(lambda: image(1)), batcher.submit(lambda: image(2))]
    bad = batcher.submit(broken)
    wait_for_queue(batcher, 2)
    network.go.set()
    assert values([first, *good]) == [0, 1, 2]
    with pytest.raises(OSError, match="no image"):
        bad.result(20)
    batcher.close()


def test_a_failing_network_is_told_to_its_batch_and_the_next_one_is_served(
    pool: ThreadPoolExecutor,
) -> None:
    network = Network()
    batcher = Batcher(network, pool)
    first = hold(network, batcher)
    batch = [batcher.submit(lambda: image(1)), batcher.submit(lambda: image(-1))]
    wait_for_queue(batcher, 2)
    network.go.set()
    assert values([first]) == [0]
    for future in batch:
        with pytest.raises(FloatingPointError, match="negative"):
            future.result(20)
    assert values([batcher.submit(lambda: image(5))]) == [5]
    batcher.close()


def test_a_network_that_loses_rows_is_an_error(pool: ThreadPoolExecutor) -> None:
    batcher = Batcher(lambda pixels: np.zeros((len(pixels) + 1, 2), np.float32), pool)
    with pytest.raises(RuntimeError, match="expected 1 embeddings, got 2"):
        batcher.submit(lambda: image(1)).result(20)
    batcher.close()


def test_a_cancelled_image_is_not_computed(pool: ThreadPoolExecutor) -> None:
    network = Network()
    batcher = Batcher(network, pool)
    first = hold(network, batcher)
    futures = [batcher.submit(lambda: image(1)), batcher.submit(lambda: image(2))]
    wait_for_queue(batcher, 2)
    assert futures[0].cancel()
    network.go.set()
    assert values([first, futures[1]]) == [0, 2]
    batcher.close()
    assert network.batches == [1, 1]


def test_closing_answers_what_is_waiting_and_refuses_more(pool: ThreadPoolExecutor) -> None:
    network = Network()
    batcher = Batcher(network, pool)
    first = hold(network, batcher)
    waiting = batcher.submit(lambda: image(4))
    closing = threading.Thread(target=batcher.close)
    closing.start()
    network.go.set()
    assert values([first, waiting]) == [0, 4]
    closing.join(20)
    assert not closing.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(lambda: image(1))
