"""A real model behind the application, and a real server process."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

import clever_hub
from clever_hub.hub import shipped
from clever_hub.serve.app import create_app
from clever_hub.serve.settings import Settings
from tests.hub.jobs.conftest import CALIBRATION, write_heads

if TYPE_CHECKING:
    from clever_hub.backends.onnx import OnnxModel

NAME = "clever-resnet18"
Open = Callable[..., TestClient]


@pytest.fixture(scope="session")
def onnx_model() -> OnnxModel:
    """The shipped ResNet-18, run by ONNX Runtime in one thread."""
    return clever_hub.from_pretrained(NAME, backend="onnx", threads=1)


@pytest.fixture(scope="session")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped ResNet-18 with random heads: what they say is nonsense, always the same."""
    folder = tmp_path_factory.mktemp("heads") / NAME
    shutil.copytree(shipped.ZOO / NAME, folder)
    return write_heads(folder, CALIBRATION)


@pytest.fixture
def opened(onnx_model: OnnxModel) -> Iterator[Open]:
    """Opens the application with settings; closes it at the end of the test."""
    with ExitStack() as stack:

        def open_client(
            models: dict[str, OnnxModel] | None = None, **options: object
        ) -> TestClient:
            settings = Settings(**options)  # type: ignore[arg-type]
            app = create_app(models or {NAME: onnx_model}, settings)
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield open_client


class ServerProcess:
    """``clever-hub serve`` in a process of its own.

    Attributes:
        port: Where it listens.
        process: The process.
        log_path: Its log, JSON lines.
    """

    def __init__(self, log_path: Path, *options: str, model: str = NAME) -> None:
        self.log_path = log_path
        verb = "from clever_hub.cli.app import main; main()"
        command = [sys.executable, "-c", verb, "serve", model, "--port", "0", "--threads", "1"]
        with log_path.open("wb") as log:
            self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        self.port = self._port()

    def log(self) -> list[dict[str, object]]:
        """What it logged so far."""
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def _port(self) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if found := re.search(r"serving.*http://127.0.0.1:(\d+)", self.log_path.read_text()):
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server did not start: {self.log_path.read_text()}")

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers; those that still run at the end of the test are killed."""
    started: list[ServerProcess] = []

    def start(*options: str) -> ServerProcess:
        started.append(ServerProcess(tmp_path / f"server-{len(started)}.log", *options))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
