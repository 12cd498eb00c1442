"""Around every request: its id, its line in the log, its figures, and the key."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clever_hub.serve.answers import error_answer
from clever_hub.serve.errors import ApiError
from clever_hub.serve.logs import event
from clever_hub.serve.service import Service
from clever_hub.serve.settings import Settings

# What machines ask every few seconds is logged at debug level.
_QUIET = ("/healthz", "/readyz", "/metrics")
# Open to everybody: probes carry no key, and the page asks for it.
_OPEN = ("/healthz", "/readyz", "/")
_API = ("/v1/embeddings", "/v1/relate", "/v1/orient", "/v1/models", "/openapi.json")
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PAGE_HEADERS = {
    # The page loads nothing from anywhere else, and no other page may put it into a frame.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Observed:
    """Gives each request an id, logs it, and counts it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._metrics = app, service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        log: dict[str, Any] = {}
        scope.setdefault("state", {}).update(id=name, log=log)
        start, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = name
                headers.update(_PAGE_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - start
            path = scope["path"]
            self._metrics.answered(_route(path), status, seconds)
            level = logging.DEBUG if path in _QUIET else logging.INFO
            event(
                level,
                "request",
                id=name,
                method=scope["method"],
                path=path[:200],
                status=status,
                ms=round(1_000 * seconds, 1),
                **log,
            )


class ApiKey:
    """Refuses requests without the key, where one is set."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._wanted = None if settings.api_key is None else settings.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        path = scope.get("path", "")
        is_open = path in _OPEN or path.startswith("/page/")
        if scope["type"] == "http" and self._wanted is not None and not is_open:
            # RFC 9110, 11.1: the scheme may be written in any case.
            scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.encode("latin-1"), self._wanted)
            if scheme.lower() != "bearer" or not is_right:
                message = "expected the header Authorization: Bearer KEY with this server's key"
                await error_answer(ApiError(401, "invalid_api_key", message))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _route(path: str) -> str:
    """The path as a label: few values, whatever clients ask for."""
    if path in (*_QUIET, *_API, "/"):
        return path
    return "/page" if path.startswith("/page/") else "other"
