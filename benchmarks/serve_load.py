"""Load for the benchmark of the server: many connections, prepared requests, checked answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Another batch size sums in another order; other photos differ by far more.
_TOLERANCE = 1e-3


@dataclass
class Load:
    """What came of a load.

    Attributes:
        seconds: How long it lasted.
        latencies: Seconds of each answer with an embedding.
        refusals: Seconds of each 503.
        statuses: How many answers of each status.
        crossed: Answers with an embedding that is not the photo's.
        lost: Requests without an answer.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    crossed: int = 0
    lost: int = 0

    @property
    def rate(self) -> float:
        """Embeddings a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Of the seconds of the answers with an embedding."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")


@dataclass(frozen=True)
class Shot:
    """A prepared request.

    Attributes:
        request: The bytes to send, headers and body.
        expected: The photo's embedding.
    """

    request: bytes
    expected: NDArray[np.float32]


def shots(photos: Sequence[bytes], vectors: NDArray[np.float32], model: str) -> list[Shot]:
    """Prepare a request for each photo: JSON with base64 both ways, as clients send it."""
    prepared = []
    for photo, vector in zip(photos, vectors, strict=True):
        encoded = base64.b64encode(photo).decode()
        body = f'{{"model":"{model}","input":"{encoded}","encoding_format":"base64"}}'.encode()
        head = (
            "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        prepared.append(Shot(head.encode() + body, vector))
    return prepared


class Connection:
    """A kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; status and body of its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await reader.readexactly(length)

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def fire(connection: Connection, shot: Shot, load: Load) -> int:
    """Send one request and note what came."""
    start = time.perf_counter()
    try:
        status, body = await connection.send(shot.request)
    except (OSError, EOFError, asyncio.IncompleteReadError):
        load.lost += 1
        connection.close()
        return 0
    passed = time.perf_counter() - start
    load.statuses[status] += 1
    if status == 200:
        load.latencies.append(passed)
        encoded = body.partition(b'"embedding":"')[2].partition(b'"')[0]
        found = np.frombuffer(base64.b64decode(encoded), "<f4")
        load.crossed += not np.allclose(found, shot.expected, atol=_TOLERANCE, rtol=_TOLERANCE)
    elif status == 503:
        load.refusals.append(passed)
    return status


async def closed_loop(port: int, shots: Sequence[Shot], clients: int, seconds: float) -> Load:
    """So many clients, each of which sends its next request when it has its answer."""
    load, until = Load(), time.perf_counter() + seconds
    start = time.perf_counter()

    async def client(place: int) -> None:
        connection = Connection(port)
        while time.perf_counter() < until:
            await fire(connection, shots[place % len(shots)], load)
            place += clients
        connection.close()

    await asyncio.gather(*(client(place) for place in range(clients)))
    load.seconds = time.perf_counter() - start
    return load


async def open_loop(
    port: int, shots: Sequence[Shot], rate: float, seconds: float, seed: int = 0
) -> Load:
    """Requests that come at random (Poisson) at a rate, whether the server answers or not."""
    load, pool, running = Load(), list[Connection](), set[asyncio.Task[None]]()
    rng = random.Random(seed)
    start = time.perf_counter()
    due, place = start, 0

    async def one(shot: Shot) -> None:
        connection = pool.pop() if pool else Connection(port)
        await fire(connection, shot, load)
        pool.append(connection)

    while due < start + seconds:
        due += rng.expovariate(rate)
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(shots[place % len(shots)]))
        running.add(task)
        task.add_done_callback(running.discard)
        place += 1
        if place % 50 == 0:
            await asyncio.sleep(0)  # one that is late must not keep the answers waiting
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            await asyncio.gather(*running)
    load.lost += len(running)
    load.seconds = time.perf_counter() - start
    for connection in pool:
        connection.close()
    return load
