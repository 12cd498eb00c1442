"""The guard of all tests: nothing leaves this machine, whichever call would send it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AWAY = ("192.0.2.1", 9)  # kept for documentation by RFC 5737: nobody is there
CALLS: dict[str, Callable[[socket.socket, Any], object]] = {
    "connect": lambda one, address: one.connect(address),
    "connect_ex": lambda one, address: one.connect_ex(address),
    "sendto": lambda one, address: one.sendto(b"x", address),
    "sendto with flags": lambda one, address: one.sendto(b"x", 0, address),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_another_machine_is_not_reached(call: Callable[[socket.socket, Any], object]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        with pytest.raises(RuntimeError, match=r"tried to reach .*192\.0\.2\.1.*without a network"):
            call(one, AWAY)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("unix", [False, True])
def test_this_machine_is(
    call: Callable[[socket.socket, Any], object],
    unix: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if unix and not hasattr(socket, "AF_UNIX"):
        pytest.skip("no UNIX sockets here")
    monkeypatch.chdir(tmp_path)  # the address of such a socket is short
    family = socket.AF_UNIX if unix else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as here,
        socket.socket(family, socket.SOCK_DGRAM) as one,
    ):
        here.bind("s" if unix else ("127.0.0.1", 0))
        here.settimeout(10)
        if (code := call(one, here.getsockname())) != 1:  # connected, and nothing was sent yet
            assert not code
            one.send(b"x")
        assert here.recv(10) == b"x"
