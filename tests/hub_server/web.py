"""HTTP without the Hub: requests, answers, refusals, the routing table, the request log."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_server.faults import Fault, Faults
from tests.hub_server.state import Hub, User

MAX_BODY = 200_000_000


@dataclass(frozen=True)
class Request:
    """What came.

    Attributes:
        hub: The server's state.
        method: GET, HEAD, POST, PUT or DELETE.
        path: The path, still quoted, without the query.
        query: The query.
        headers: The headers.
        body: The body.
        base: The server's own address, as the client knows it.
    """

    hub: Hub
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str

    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        content = json.loads(self.body or b"{}")
        assert isinstance(content, dict)
        return content

    @property
    def user(self) -> User | None:
        """Who asks; None without a token.

        Raises:
            RefusalError: When nobody has this token.
        """
        token = self.headers.get("Authorization")
        if token is None:
            return None
        user = self.hub.users.get(token.removeprefix("Bearer "))
        if user is None:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return user


@dataclass
class Answer:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: object, status: int = 200, **headers: str) -> Answer:
        """An answer in JSON; underscores in a header's name stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps(content).encode()
        return cls(status, body, {"Content-Type": "application/json", **named})


class RefusalError(Exception):
    """An answer that is an error, with the headers by which the client tells them apart."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = Answer.of({"error": message}, status)
        self.answer.headers |= {"X-Error-Message": message, **named}
        if code:
            self.answer.headers["X-Error-Code"] = code


class Logged(NamedTuple):
    """A request that was answered."""

    method: str
    path: str
    status: int
    authorised: bool


Endpoint = Callable[..., Answer]
ROUTES: list[tuple[tuple[str, ...], re.Pattern[str], Endpoint]] = []


def route(methods: str, pattern: str) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint: called with the request and the pattern's named groups.

    In the pattern, ``{repo}`` stands for owner/name and ``{name}`` for anything else.
    """
    repo = r"(?P<repo>[^/]+/[^/]+)"
    expression = re.sub(r"\{([a-z]+)\}", r"(?P<\1>.+)", pattern.replace("{repo}", repo))

    def register(endpoint: Endpoint) -> Endpoint:
        ROUTES.append((tuple(methods.split()), re.compile(expression), endpoint))
        return endpoint

    return register


class Handler(BaseHTTPRequestHandler):
    """Answers requests by the routing table, with the faults that were set.

    Attributes:
        hub: The server's state.
        faults: What is to go wrong.
        log: Every request that was answered, in order.
        timeout: Seconds until a silent client is given up.
    """

    hub: ClassVar[Hub]
    faults: ClassVar[Faults]
    log: ClassVar[list[Logged]]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 30

    def do_GET(self) -> None:
        """Answer a request of any method."""
        url = urlsplit(self.path)
        fault = self.faults.take(self.command, url.path)
        try:
            body = self._body()
            if fault and fault.meanwhile:
                fault.meanwhile()
            answer = self._answer(body) if fault is None else self._disturbed(body, fault)
        except RefusalError as refusal:
            answer = refusal.answer
        authorised = self.headers.get("Authorization") is not None
        self.log.append(Logged(self.command, self.path, answer.status, authorised))
        self._send(answer, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 -- names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Nothing on stderr; the log has it."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            raise RefusalError(413, f"at most {MAX_BODY} bytes")
        return self.rfile.read(length)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            if len(body) + size > MAX_BODY:
                raise RefusalError(413, f"at most {MAX_BODY} bytes")
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> Answer:
        url = urlsplit(self.path)
        request = Request(
            self.hub,
            self.command,
            url.path,
            {name: values[0] for name, values in parse_qs(url.query).items()},
            {name.title(): value for name, value in self.headers.items()},
            body,
            f"http://{self.headers['Host']}",
        )
        for methods, pattern, endpoint in ROUTES:
            found = pattern.fullmatch(url.path)
            if found and self.command in methods:
                groups = {name: unquote(text) for name, text in found.groupdict().items()}
                return endpoint(request, **groups)
        raise RefusalError(404, "Sorry, we can't find the page you are looking for.")

    def _disturbed(self, body: bytes, fault: Fault) -> Answer:
        if fault.status is not None:
            refusal = RefusalError(fault.status, "injected failure")
            refusal.answer.headers |= fault.headers
            raise refusal
        answer = self._answer(body)
        if fault.lost:
            raise RefusalError(500, "injected failure, after the work was done")
        if fault.flip:
            middle = len(answer.body) // 2
            flipped = bytes([answer.body[middle] ^ 1])
            answer.body = answer.body[:middle] + flipped + answer.body[middle + 1 :]
        return answer

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = b"" if self.command == "HEAD" else answer.body
        length = len(answer.body) + (fault.length_error if fault else 0)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.send_header("X-Request-Id", f"Root=1-{secrets.token_hex(8)}")
        self.end_headers()
        if fault and fault.hold:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            fault.hold.wait(20)
            body = body[len(body) // 2 :]
        if fault and (fault.cut_after is not None or fault.length_error):
            cut = length if fault.cut_after is None else fault.cut_after
            body = body[:cut]
            self.close_connection = True
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except ConnectionError:  # the client has gone, as some tests want it to
            self.close_connection = True
