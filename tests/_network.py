"""Blocks the network for all but loopback, and remembers who tried: libraries swallow the exception."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

attempts: list[str] = []
"""Every blocked attempt since somebody last looked."""

_NAMES = {None, "", "localhost", "ip6-localhost", b"", b"localhost"}


class NetworkBlockedError(RuntimeError):
    """A test tried to leave this machine."""


def is_loopback(host: Any) -> bool:
    """Is it a loopback address, or a name for one? `0.0.0.0` and `::` count: they can be bound, and lead back here."""
    if host in _NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def block() -> None:
    """Refuse to look up or to connect to anything but loopback, in this process, from now on."""
    sock: Any = socket.socket
    if getattr(sock.connect, "guards", False):
        return
    for name in ("connect", "connect_ex"):
        setattr(sock, name, _guarded_connect(getattr(sock, name)))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, _guarded_lookup(getattr(socket, name)))


def _refuse(what: str) -> None:
    attempts.append(what)
    raise NetworkBlockedError(f"{what}: tests reach loopback only (tests/_network.py)")


def _guarded_connect(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(address[0]):
            _refuse(f"connect to {address[0]}:{address[1]}")
        return connect(self, address)

    guarded.guards = True  # type: ignore[attr-defined]
    return guarded


def _guarded_lookup(look_up: Any) -> Any:
    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_loopback(host):
            _refuse(f"look-up of {host}")
        return look_up(host, *args, **kwargs)

    return guarded
