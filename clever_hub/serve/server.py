"""Running the application: a socket, uvicorn, and a graceful end."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from clever_hub.errors import ConfigError
from clever_hub.serve.logs import event
from clever_hub.serve.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

# Linux caps it at net.core.somaxconn, 4,096 by default. A connection that finds the backlog full is
# tried again by the kernel after 1, 3, 7, 15 … seconds, which looks like a lost answer.
_BACKLOG = 4_096
# Longer than load balancers keep an idle connection (60 s is usual): whoever closes first should be
# the one that sends, or a request may meet a connection that is being closed.
_KEEP_ALIVE = 75


def bind(host: str, port: int) -> socket.socket:
    """Take an address before models are loaded, so that a taken one is told at once.

    Args:
        host: A name or an address.
        port: The port; 0 is any free one.

    Returns:
        A socket that does not listen yet.

    Raises:
        ConfigError: When it cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        taken = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(f"--host: {host}: {error.strerror or error}") from error
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError as error:
        taken.close()
        raise ConfigError(
            f"{in_url(host)}:{port}: {error.strerror}. Choose another with --host and --port"
        ) from error
    return taken


def run(app: Starlette, taken: socket.socket, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that were let in are answered first.

    Args:
        app: The application.
        taken: From ``bind``.
        settings: The limits.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # the application logs its requests itself, with more in them
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        server_header=False,
        timeout_graceful_shutdown=round(settings.timeout) + 1,
    )
    _Server(config).run(sockets=[taken])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where it listens once it does."""
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            event(logging.INFO, "serving", url=f"http://{in_url(host)}:{port}")


def in_url(host: str) -> str:
    """A host as addresses have it: those of IPv6 in brackets.

    Example:
        >>> in_url("::1"), in_url("localhost")
        ('[::1]', 'localhost')
    """
    return f"[{host}]" if ":" in host else host
