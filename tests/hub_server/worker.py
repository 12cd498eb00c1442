"""The other end of ``Client``: reads calls as lines of JSON, writes what they return."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Answer until stdin ends."""
    if os.environ.pop("CLIENT_UNPRIVILEGED", "0") == "1":
        _drop_privileges()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints, prints into the output file
    if os.environ["CLIENT_PATIENT"] == "0":
        sleep = time.sleep
        time.sleep = lambda seconds: sleep(min(float(seconds), 0.01))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = _call(request["function"], request["arguments"], request["options"])
            answer: dict[str, Any] = {"result": result}
        except Exception as error:  # noqa: BLE001 -- told to the test, which knows what it expects
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


def _drop_privileges() -> None:
    """Start again without root's right to write where permissions say no; others never had it."""
    drop_from_bounding_set, override, read_and_search = 24, 1, 2
    for capability in (override, read_and_search):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-m", "tests.hub_server.worker"])


def _call(function: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(*arguments, **options)


if __name__ == "__main__":
    main()
