"""A real server process: crossed answers, overload, clients that leave, and the end."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from clever_hub.cli.app import app
from clever_hub.errors import ConfigError
from tests.hub.serve.conftest import NAME, ServerProcess

if TYPE_CHECKING:
    from clever_hub.backends.onnx import OnnxModel

Start = Callable[..., ServerProcess]
CLEAN = (0, -15)  # uvicorn ends itself by the signal that it was ended with


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def vectors(self) -> NDArray[np.float32]:
        rows = json.loads(self.body)["data"]
        return np.array([row["embedding"] for row in rows], np.float32)


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(self, images: Sequence[bytes]) -> Answer:
        boundary = b"--b0undary"
        parts = [
            boundary
            + b'\r\nContent-Disposition: form-data; name="input"; filename="a"\r\n\r\n'
            + image
            + b"\r\n"
            for image in images
        ]
        kind = "multipart/form-data; boundary=b0undary"
        body = b"".join([*parts, boundary, b"--\r\n"])
        self._connection.request("POST", "/v1/embeddings", body, {"Content-Type": kind})
        return self._answer()

    def get(self, path: str) -> Answer:
        self._connection.request("GET", path)
        return self._answer()

    def _answer(self) -> Answer:
        response = self._connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def leave(self) -> None:
        """Go away in the middle."""
        assert self._connection.sock is not None
        self._connection.sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def get(port: int, path: str) -> Answer:
    with Client(port) as client:
        return client.get(path)


def post(port: int, images: Sequence[bytes]) -> Answer:
    with Client(port) as client:
        return client.post(images)


@pytest.fixture(scope="module")
def pieces(photos: dict[str, Path]) -> list[bytes]:
    """Thirty-two pieces of real photos, all different."""
    found = []
    for path in photos.values():
        photo = Image.open(path).convert("RGB")
        width, height = photo.width // 3, photo.height // 3
        for index in range(8):
            left, top = index % 3 * width, index // 3 * height
            file = io.BytesIO()
            photo.crop((left, top, left + width, top + height)).save(file, "JPEG")
            found.append(file.getvalue())
    return found


@pytest.fixture(scope="module")
def expected(onnx_model: OnnxModel, pieces: list[bytes]) -> NDArray[np.float32]:
    """Their embeddings."""
    return onnx_model.encode(pieces).full


def resident(pid: int) -> int:
    """Bytes of memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def waiting(port: int) -> float:
    """How many images are in the server."""
    text = get(port, "/metrics").body.decode()
    return float(text.partition("\nclever_waiting_images ")[2].partition("\n")[0])


def is_its_own(answer: Answer, rows: NDArray[np.float32]) -> bool:
    """Whether the vectors are those of the photos; any other photo's differ by 0.1 and more."""
    return np.allclose(answer.vectors(), rows, atol=1e-3, rtol=1e-3)


def test_the_photos_can_be_told_apart(expected: NDArray[np.float32]) -> None:
    for index, row in enumerate(expected):
        others = np.delete(expected, index, axis=0)
        assert np.abs(others - row).max(axis=1).min() > 0.1


def test_no_answer_is_crossed_and_a_bad_image_fails_alone(
    served: Start, pieces: list[bytes], expected: NDArray[np.float32]
) -> None:
    server = served("--max-wait-ms", "20")
    rng = np.random.default_rng(0)
    plans = [rng.permutation(len(pieces)).tolist() for _ in range(16)]

    def client(plan: list[int]) -> Counter[str]:
        found: Counter[str] = Counter()
        with Client(server.port) as connection:
            for step in range(0, len(plan), 2):
                chosen = plan[step : step + 1 + step % 3]
                answer = connection.post([pieces[index] for index in chosen])
                found["own" if is_its_own(answer, expected[chosen]) else "crossed"] += 1
                bad = connection.post([pieces[plan[0]], b"no image"])
                found[json.loads(bad.body)["error"]["param"]] += 1
        return found

    with ThreadPoolExecutor(len(plans)) as pool:
        total = sum(pool.map(client, plans), Counter[str]())
    assert total == {"own": 256, "input[1]": 256}
    text = get(server.port, "/metrics").body.decode()
    batches = float(text.partition(f'clever_batch_images_count{{model="{NAME}"}} ')[2].split()[0])
    images = float(text.partition(f'clever_images_total{{model="{NAME}"}} ')[2].split()[0])
    assert images / batches > 1.5  # they did go together
    assert server.end() in CLEAN


def test_overload_loses_crosses_and_keeps_nothing(
    served: Start, pieces: list[bytes], expected: NDArray[np.float32]
) -> None:
    server = served("--max-queue", "6", "--max-batch", "4")
    sent, found, crossed = [0] * 60, Counter[int](), []
    lock, stop = threading.Lock(), threading.Event()

    def client(number: int) -> None:
        with Client(server.port) as connection:
            while not stop.is_set():
                chosen = (number + sent[number]) % len(pieces)
                sent[number] += 1
                answer = connection.post([pieces[chosen]])
                with lock:
                    found[answer.status] += 1
                    if answer.status == 200 and not is_its_own(answer, expected[[chosen]]):
                        crossed.append(chosen)
                    if answer.status == 503 and int(answer.headers["retry-after"]) < 1:
                        crossed.append(-1)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(sent))]
    for thread in threads:
        thread.start()
    time.sleep(2)
    warm = resident(server.process.pid)
    time.sleep(3)
    grown = resident(server.process.pid) - warm
    stop.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert post(server.port, [pieces[0]]).status == 200
    assert not crossed
    assert found.keys() == {200, 503}
    assert found.total() == sum(sent)  # every request has its answer
    assert found[503] > found[200] > 0
    assert grown < 30e6
    assert waiting(server.port) == 0
    assert server.end() in CLEAN


@pytest.mark.skipif(sys.platform != "linux", reason="threads have an order of their own on Linux")
def test_whoever_reads_requests_comes_first(served: Start, pieces: list[bytes]) -> None:
    """Else a load above what can be computed keeps refusals waiting, and the queue is anywhere."""
    server = served()
    assert post(server.port, pieces[:4]).status == 200
    pid = server.process.pid
    nice = {
        task.name: int((task / "stat").read_text().rpartition(")")[2].split()[16])
        for task in Path(f"/proc/{pid}/task").iterdir()
    }
    reads = nice.pop(str(pid))
    works = [value for value in nice.values() if value == min(19, reads + 5)]
    assert len(works) >= 2  # one that computes, one that decodes
    assert max(nice.values()) == works[0]  # not twice: the loader's are the network's
    assert server.end() in CLEAN


def test_sigterm_answers_what_was_let_in(
    served: Start, pieces: list[bytes], expected: NDArray[np.float32]
) -> None:
    server = served("--max-batch", "2")
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(post, server.port, pieces * 2) for _ in range(3)]
        until = time.monotonic() + 60
        while waiting(server.port) < 3 * 2 * len(pieces):
            assert time.monotonic() < until
        assert server.end() in CLEAN
        for answer in answers:
            assert is_its_own(answer.result(60), np.concatenate([expected, expected]))
    assert [entry["message"] for entry in server.log()][-1] == "stopped"
    with pytest.raises(ConnectionRefusedError):
        get(server.port, "/healthz")


def test_a_client_that_leaves_takes_its_images_with_it(served: Start, pieces: list[bytes]) -> None:
    server = served("--max-batch", "1")
    with ThreadPoolExecutor(1) as pool, Client(server.port) as client:
        leaving = pool.submit(client.post, pieces * 2)
        until = time.monotonic() + 20
        while waiting(server.port) < 2 * len(pieces):
            assert time.monotonic() < until
        client.leave()
        with pytest.raises((http.client.HTTPException, OSError)):
            leaving.result(20)
    while waiting(server.port):
        assert time.monotonic() < until
    statuses = [entry.get("status") for entry in server.log() if entry["message"] == "request"]
    assert statuses == [499]
    assert server.end() in CLEAN


def test_a_body_that_does_not_arrive_is_given_up(served: Start) -> None:
    server = served("--timeout", "0.5")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 408
        assert json.loads(response.read())["error"]["code"] == "body_timeout"
        response.close()
    assert waiting(server.port) == 0
    assert server.end() in CLEAN


def test_a_log_line_cannot_be_forged(served: Start) -> None:
    server = served("--log-format", "text")
    path = "/x%0a2026-01-01T00:00:00+00:00 info request status=200".replace(" ", "%20")
    assert get(server.port, path).status == 404
    server.end()
    lines = server.log_path.read_text().splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert [line for line in lines if r"path='/x\n2026" in line]


def test_the_documentation_is_true(
    served: Start,
    repository: Path,
    photos: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    onnx_model: OnnxModel,
) -> None:
    text = (repository / "docs" / "serve.md").read_text(encoding="utf-8")
    code = text.partition("```py\n")[2].partition("```")[0]
    code = code.replace("clever-efficientnet-lite0", onnx_model.config.name)
    server = served()
    (tmp_path / "a.jpg").write_bytes(photos["rocket"].read_bytes())
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a short example leaves its file open
        exec(code.replace("localhost:8000", f"localhost:{server.port}"), found)
    whole = onnx_model.encode(photos["rocket"]).full[0]
    np.testing.assert_allclose(np.array(found["vector"]), whole, atol=1e-5)
    options = set(re.findall(r"`(--[a-z-]+)", text.partition("## Triton")[0]))
    known = set(re.findall(r"--[a-z-]+", CliRunner().invoke(app, ["serve", "--help"]).output))
    assert len(options) > 12
    assert options <= known


def test_a_taken_port_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "no-such-model", "--port", str(port)])
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}: Address already in use" in result.output


def test_an_address_of_ipv6_is_told_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clever_hub.cli.serve._load", lambda *_: {"a": None})
    monkeypatch.setattr("clever_hub.serve.app.create_app", lambda *_: None)
    monkeypatch.setattr("clever_hub.serve.logs.set_up", lambda *_, **__: None)
    monkeypatch.setattr("clever_hub.serve.server.run", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("clever_hub.serve.server.bind", lambda *_: taken)
        result = CliRunner().invoke(app, ["serve", "a", "--host", "::1"])
    assert f"on: http://[::1]:{port}/" in result.output


def test_models_are_loaded_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, dict[str, object]]] = []

    def load(name: object, **options: object) -> object:
        asked.append((name, options))
        raise ConfigError("enough")

    monkeypatch.setattr("clever_hub.pretrained.from_pretrained", load)
    options = ["--precision", "int8", "--threads", "3", "--device", "cuda:1", "--revision", "v1"]
    result = CliRunner().invoke(app, ["serve", "small=a/b", "--port", "0", *options])
    assert (result.exit_code, "enough" in result.output) == (1, True)
    (found,) = asked
    assert found == (
        "a/b",
        {
            "backend": "onnx",
            "device": "cuda:1",
            "revision": "v1",
            "threads": 3,
            "precision": "int8",
        },
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-model"], "neither a folder nor a model that ships"),
        ([NAME, NAME], f"two models called '{NAME}'. Name one: OTHER={NAME}"),
        ([f"a:b={NAME}"], "expected no colon"),
        ([f"={NAME}"], "expected no colon"),
        ([NAME, "clever-resnet50", "--revision", "v1"], "--revision: is of one model"),
        ([NAME, "--host", "no.such.host.invalid"], "--host: no.such.host.invalid"),
        ([NAME, "--max-body-mb", "1000000", "--api-key", ""], "api_key: expected ASCII"),
    ],
)
def test_what_cannot_be_served_is_told(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "0", *arguments])
    assert result.exit_code == 1
    assert message in result.output
