"""Addresses of images: the public internet and nothing behind the server."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clever_hub.serve.errors import ApiError
from clever_hub.serve.urls import UrlFetcher, is_public


class _Handler(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/redirect":
            self._answer(302, {"Location": "/image"})
        elif self.path == "/away":
            self._answer(302, {"Location": "http://private.test/image"})
        elif self.path == "/round":
            self._answer(302, {"Location": "/round"})
        elif self.path == "/missing":
            self._answer(404, {})
        elif self.path == "/slow":
            self._drip()
        elif self.path == "/nowhere":
            self._answer(301, {})
        elif self.path == "/odd":
            self._answer(302, {"Location": "http://[bad/x"})
        else:
            self._answer(200, {}, b"image " * 100)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        """A byte now and then, for longer than anybody should wait."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            for _ in range(200):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass  # the reader has gone

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[int]:
    """A web server on this machine; its port."""
    _Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names as a resolver might give them; every public one leads to this machine."""
    table = {
        "private.test": ["10.0.0.1"],
        "both.test": ["8.8.8.8", "127.0.0.1"],
        "mapped.test": ["::ffff:169.254.169.254"],
    }

    def resolve(name: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in table.get(name, [name])
        ]

    monkeypatch.setattr("clever_hub.serve.urls.socket.getaddrinfo", resolve)


def everybody(_: object) -> bool:
    return True


def local(address: object) -> bool:
    return str(address) == "127.0.0.1"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("2002:7f00:1::", "64:ff9b::a00:1", "2001:0:a00:1:0:0:f5ff:fffe"),
        *("64:ff9b:1::a00:1", "::10.0.0.1", "::127.0.0.1", "::ffff:0:10.0.0.1", "fec0::1"),
        "168.63.129.16",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/image",
        "http://localhost:{port}/image",
        "http://[::1]:{port}/image",
        "http://2130706433:{port}/image",  # 127.0.0.1 as one number
        "http://0x7f.1:{port}/image",
        "http://user:password@127.0.0.1:{port}/image",
    ],
)
def test_this_machine_is_never_asked(host: int, url: str) -> None:
    with pytest.raises(ApiError) as caught:
        UrlFetcher()(url.format(port=host), 10_000)
    assert caught.value.code in ("url_not_public", "url_failed")
    assert not _Handler.asked


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("name", ["private.test", "both.test", "mapped.test"])
def test_a_name_with_one_private_address_is_refused(name: str) -> None:
    with pytest.raises(ApiError, match=f"{name}: expected a host on the public internet"):
        UrlFetcher()(f"http://{name}/image", 10_000)


def test_a_second_look_up_of_a_name_is_never_made(
    host: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: a name that leads to a public address first, and then behind the server."""
    answers, asked = ["127.0.0.1", "10.0.0.1"], []

    def resolve(name: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        address = name
        if name == "rebinding.test":
            asked.append(name)
            address = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr("clever_hub.serve.urls.socket.getaddrinfo", resolve)
    url = f"http://rebinding.test:{host}/image"
    assert UrlFetcher(allowed=local)(url, 600) == b"image " * 100
    assert asked == ["rebinding.test"]


def test_an_image_is_fetched(host: int) -> None:
    fetch = UrlFetcher(allowed=everybody)
    assert fetch(f"http://127.0.0.1:{host}/image?a=b", 600) == b"image " * 100
    assert fetch(f"http://127.0.0.1:{host}/redirect", 10_000) == b"image " * 100
    assert _Handler.asked == ["/image?a=b", "/redirect", "/image"]


@pytest.mark.usefixtures("names")
def test_a_redirect_is_checked_anew(host: int) -> None:
    with pytest.raises(ApiError, match=r"private.test: expected a host on the public internet"):
        UrlFetcher(allowed=local)(f"http://127.0.0.1:{host}/away", 10_000)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/round", 400, "more than 3 redirects"),
        ("/missing", 400, "status 404"),
        ("/nowhere", 400, "more than 3 redirects"),
        ("/image", 413, "expected at most 100 bytes"),
    ],
)
def test_what_cannot_be_fetched_says_why(host: int, path: str, status: int, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        UrlFetcher(allowed=everybody)(f"http://127.0.0.1:{host}{path}", 100)
    assert caught.value.status == status


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".com"])
def test_a_name_that_can_be_none_is_refused(name: str) -> None:
    with pytest.raises(ApiError, match="cannot be fetched") as caught:
        UrlFetcher(allowed=everybody)(f"http://{name}/x.jpg", 100)
    assert caught.value.status == 400


def test_a_redirect_to_no_address_is_refused(host: int) -> None:
    with pytest.raises(ApiError, match="its redirect leads to no address"):
        UrlFetcher(allowed=everybody)(f"http://127.0.0.1:{host}/odd", 100)


def test_a_host_that_drips_is_left_after_the_time_limit(host: int) -> None:
    start = time.monotonic()
    with pytest.raises(ApiError, match="it took too long"):
        UrlFetcher(timeout=0.5, allowed=everybody)(f"http://127.0.0.1:{host}/slow", 10_000)
    assert time.monotonic() - start < 5


def test_a_handshake_that_drips_is_left_after_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # the reader has gone
                connection.sendall(b"\x16\x03\x03\x3f\xff")  # a long record begins
                for _ in range(200):
                    connection.sendall(b"x")
                    time.sleep(0.05)

        thread = threading.Thread(target=answer)
        thread.start()
        start = time.monotonic()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/a"
        with pytest.raises(ApiError, match="it took too long"):
            UrlFetcher(timeout=0.5, allowed=everybody)(url, 10_000)
        assert time.monotonic() - start < 5
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://a.test/x",
        "http://",
        "http://a b/",
        "http://a\r\nX: y/",
        "http://a:99999/",
    ],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(ApiError, match="expected an http or https address"):
        UrlFetcher()(url, 100)
