"""Images from addresses: public hosts only, whatever a name or a redirect leads to.

A server that fetches what strangers name can be made to read what only it can reach: its own
machine, the network behind it, a cloud's metadata service. So the name is resolved once, every
address that it has must be public, and the connection goes to the address that was checked: a
second look-up could give another (DNS rebinding). Each redirect is checked anew.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from clever_hub.serve.errors import ApiError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
# RFC 6052: behind a translator, these stand for IPv4 addresses.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What Python's table lets through: a network's own translators (RFC 8215, 2765), IPv4 written as
# IPv6 in the old way (RFC 4291), site-local addresses (RFC 3879), Azure's service for its hosts.
_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "64:ff9b:1::/48",
        "::ffff:0:0:0/96",
        "::/96",
        "fec0::/10",
        "168.63.129.16/32",
    )
]


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, in every notation that it has.

    Args:
        address: The address.

    Returns:
        False for private, local, shared and reserved ones, and for IPv6 addresses that stand for
        such an IPv4 address.

    Example:
        >>> is_public(ipaddress.ip_address("8.8.8.8")), is_public(ipaddress.ip_address("10.0.0.1"))
        (True, False)
        >>> is_public(ipaddress.ip_address("::ffff:127.0.0.1"))
        False
    """
    if any(address in network for network in _NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if not all(is_public(one) for one in inner if one is not None):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


class UrlFetcher:
    """Gets images from public http and https addresses.

    Args:
        timeout: Longest time for all of a fetch, in seconds.
        allowed: Whether an address may be asked; for tests.
    """

    def __init__(
        self, timeout: float = 10.0, allowed: Callable[[Address], bool] = is_public
    ) -> None:
        self._timeout, self._allowed = timeout, allowed
        self._tls = ssl.create_default_context()

    def __call__(self, url: str, max_bytes: int) -> bytes:
        """Get an address.

        Args:
            url: http or https.
            max_bytes: Most bytes to read.

        Returns:
            The body.

        Raises:
            ApiError: 400 when the address is not public, gives no 200 or takes too long, 413 when
                there are more bytes.
        """
        until = time.monotonic() + self._timeout
        for _ in range(_MAX_REDIRECTS + 1):
            split = _split(url)
            try:
                answer = self._get(split, until, max_bytes)
            except (OSError, UnicodeError, http.client.HTTPException) as error:
                late = time.monotonic() >= until
                reason = "it took too long" if late else str(error) or type(error).__name__
                raise _failed(split, reason) from error
            if isinstance(answer, bytes):
                return answer
            try:
                url = urljoin(url, answer)
            except ValueError as error:
                raise _failed(split, "its redirect leads to no address") from error
        raise _failed(split, f"more than {_MAX_REDIRECTS} redirects")

    def _get(self, url: SplitResult, until: float, max_bytes: int) -> bytes | str:
        """The body, or where a redirect leads to."""
        raw, port = self._connect(url, until)
        in_use = [raw]
        # A time-out of the socket is for one read: a host that gives a byte a second meets none.
        alarm = threading.Timer(until - time.monotonic(), _end, [in_use])
        alarm.start()
        try:
            if url.scheme == "https":
                # From here on the connection is the new socket's. So the alarm must know it before
                # the handshake, which can be slow, too; if it went off meanwhile, time is up.
                secure = self._tls.wrap_socket(
                    raw, server_hostname=url.hostname, do_handshake_on_connect=False
                )
                in_use[0] = secure
                _left(until)
                secure.do_handshake()
            connection = http.client.HTTPConnection(str(url.hostname), port)
            connection.sock = in_use[0]
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", path, headers={"User-Agent": "clever-hub", "Accept": "*/*"})
            with connection.getresponse() as response:
                if response.status in _REDIRECTS:
                    return response.headers.get("Location", "")
                if response.status != 200:
                    raise _failed(url, f"status {response.status}")
                content = response.read(max_bytes + 1)
                # One that ends early is no error to http.client when a length was asked for.
                if time.monotonic() >= until:
                    raise TimeoutError
        finally:
            alarm.cancel()
            raw.close()
            in_use[0].close()
        if len(content) > max_bytes:
            raise ApiError(
                413, "image_too_large", f"{url.hostname}: expected at most {max_bytes:,} bytes"
            )
        return content

    def _connect(self, url: SplitResult, until: float) -> tuple[socket.socket, int]:
        """A connection to an address that was checked; the name is not looked up again."""
        port = url.port or _PORTS[url.scheme]
        found = socket.getaddrinfo(url.hostname, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        if not all(self._allowed(address) for address in addresses):
            raise ApiError(
                400, "url_not_public", f"{url.hostname}: expected a host on the public internet"
            )
        for address in addresses[:-1]:
            try:
                return socket.create_connection((str(address), port), _left(until)), port
            except OSError:
                continue  # such as IPv6 where the machine has none
        return socket.create_connection((str(addresses[-1]), port), _left(until)), port


def _end(in_use: list[socket.socket]) -> None:
    """Wake whoever reads from it."""
    with suppress(OSError):
        # Not by a TLS socket's own method, which forgets the key under its reader.
        socket.socket.shutdown(in_use[0], socket.SHUT_RDWR)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _split(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
        usable = split.scheme in _PORTS and split.hostname and (split.port or 1) > 0
    except ValueError:
        usable = False
    # A line break or a space would end the request line early.
    if not usable or not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise ApiError(400, "invalid_url", "expected an http or https address, percent-encoded")
    return split


def _failed(url: SplitResult, reason: str) -> ApiError:
    return ApiError(400, "url_failed", f"{url.hostname}: cannot be fetched: {reason}")
