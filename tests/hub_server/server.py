"""The Hub behind a port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

# Imported for their routes.
from tests.hub_server import accounts, downloads, repositories, uploads  # noqa: F401
from tests.hub_server.faults import Fault, Faults
from tests.hub_server.state import Hub, User
from tests.hub_server.web import Handler, Logged


class HubServer:
    """A Hub that answers while the ``with`` block runs.

    Attributes:
        hub: Its state, to look at or to change behind the protocol's back.
        log: Every request that was answered.
        url: What HF_ENDPOINT must be.

    Example:
        >>> import tempfile, urllib.request
        >>> with tempfile.TemporaryDirectory() as folder, HubServer(Path(folder), {}) as server:
        ...     urllib.request.urlopen(f"{server.url}/api/models").read()
        b'[]'
    """

    def __init__(self, root: Path, users: Mapping[str, User], xet: bool = True) -> None:
        """Listen on a free port of 127.0.0.1.

        Args:
            root: An empty folder for what is uploaded.
            users: Who there is, by access token.
            xet: Whether large files that came through Xet are offered through it.
        """
        self.hub = Hub(root, users, xet)
        self.faults = Faults()
        self.log: list[Logged] = []
        state = {"hub": self.hub, "faults": self.faults, "log": self.log}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), state))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, path: str, **what: Any) -> None:
        """Make requests go wrong; see ``Fault`` for what can be said."""
        self.faults.add(Fault(method, path, **what))

    def paths(self, method: str) -> list[str]:
        """The paths that were asked for with a method, in order."""
        return [entry.path for entry in self.log if entry.method == method]
