"""Run a function in two real processes, as ``accelerate launch`` starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_in_two(call: str, arguments: dict[str, Any], folder: Path) -> list[tuple[int, str]]:
    """Call ``module:function(**arguments)`` in two processes of one group.

    Args:
        call: What to call; a module of this package.
        arguments: Plain JSON.
        folder: Where the processes' output goes.

    Returns:
        Exit code and output of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module, function = call.split(":")
    code = (
        f"import json, sys; from {module} import {function}; {function}(**json.loads(sys.argv[1]))"
    )
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        output = (folder / f"process-{rank}.log").open("w")
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(arguments)],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )
        )
        output.close()
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(code, (folder / f"process-{n}.log").read_text()) for n, code in enumerate(codes)]
