"""A process of its own with the real client, which reads its settings once, when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]


class CallFailed(Exception):  # noqa: N818 -- it tells what happened elsewhere
    """What a call raised in the other process.

    Attributes:
        kind: The name of the exception's class.
        message: Its message.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


class Client:
    """A Python process with a Hub, a cache and a token of its own.

    Attributes:
        home: Its HF_HOME.
        output: The file with everything it has printed.

    Example:
        >>> with Client(Path("home"), "http://127.0.0.1:1") as client:  # doctest: +SKIP
        ...     client.call("clever_hub.hub.client:download", "user/name", ["config.json"])
    """

    def __init__(
        self,
        home: Path,
        url: str,
        token: str | None = None,
        *,
        xet: bool = True,
        patient: bool = False,
        python: str | Path = sys.executable,
        **environment: str,
    ) -> None:
        """Start the process.

        Args:
            home: Its HF_HOME, made when missing.
            url: The Hub.
            token: Its HF_TOKEN.
            xet: Whether it may use Xet.
            patient: Wait as long as the client wants to between attempts, not a moment.
            python: Its interpreter, of another environment.
            **environment: More variables.
        """
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.output = home / "output.txt"
        variables = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_OFFLINE": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            "CLIENT_PATIENT": "1" if patient else "0",
        }
        if token is not None:
            variables["HF_TOKEN"] = token
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [str(python), "-m", "tests.hub_server.worker"],
                env={**inherited, **variables, **environment},
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def call(self, function: str, *arguments: Any, **options: Any) -> Any:
        """Call a function there.

        Args:
            function: ``module:name``.
            *arguments: Its arguments, such as JSON can say.
            **options: Its keyword arguments.

        Returns:
            What it returned, as JSON says it: tuples are lists, paths are texts.

        Raises:
            CallFailed: When it raised.
        """
        self.begin(function, *arguments, **options)
        return self.end()

    def begin(self, function: str, *arguments: Any, **options: Any) -> None:
        """Call a function there, without waiting."""
        assert self.process.stdin is not None
        request = {"function": function, "arguments": arguments, "options": options}
        self.process.stdin.write(json.dumps(request, default=str) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        """Wait for what ``begin`` has begun."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise CallFailed("Ended", self.output.read_text()[-2000:])
        answer = json.loads(line)
        if "error" in answer:
            raise CallFailed(answer["error"], answer["message"])
        return answer["result"]
