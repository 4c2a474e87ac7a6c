"""Where connections of imported tools may go.

Names are looked up here, every address that comes back is judged, and the connection is made to the address that was
judged: a name that answers differently the second time gains nothing. Private, link-local, loopback and metadata
addresses are refused unless they were allowed. Proxies of the environment are not used: they look names up themselves.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from escalade.errors import BadInput, ToolError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Host and port -> addresses."""

_UNFIT = tuple(
    map(
        ipaddress.ip_network,
        ("168.63.129.16", "192.0.0.0/24", "192.88.99.0/24", "fd00:ec2::254", "fec0::/10", "3fff::/20", "5f00::/16"),
    )
)
"""Addresses that look public, at least to some versions of Python, and aren't: at which clouds hand out credentials, of
sites, relays, documents and segments.
"""

_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))
"""Networks whose addresses end in an IPv4 address: translated by NAT64 (RFC 6052, 8215) and SIIT (2765), compatible."""

_ISATAP = (0x00005EFE, 0x02005EFE)
"""What stands before the IPv4 address in an address of ISATAP (RFC 5214)."""


class AddressRefused(ToolError):
    """A connection to an address that imported tools may not reach."""


class Net:
    """Judges addresses. `allow`: networks and addresses that are allowed although they aren't public, such as
    "127.0.0.1" or "10.1.0.0/16". `lookup`: instead of the system's own.

    Raises BadInput for what is no network.
    """

    def __init__(self, allow: Iterable[str] = (), lookup: Lookup | None = None) -> None:
        self._lookup = _system if lookup is None else lookup
        try:
            self._allowed = [ipaddress.ip_network(one, strict=False) for one in allow]
        except ValueError as error:
            raise BadInput(
                f"not an address or a network: {error}; write it like '127.0.0.1' or '10.1.0.0/16'"
            ) from None

    def allows(self, address: str) -> bool:
        """May it be connected to?"""
        found = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(found, "ipv4_mapped", None)
        every = [found, *_embedded(found)] if mapped is None else [mapped]
        return all(self._named(one) or _public(one) for one in every)

    def _named(self, address: Address) -> bool:
        return any(address in network for network in self._allowed if network.version == address.version)

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, each of which was judged. Raises AddressRefused, ToolError when there is none."""
        try:
            found = list(dict.fromkeys(await self._lookup(host, port)))
        except OSError:
            found = []
        if not found:
            raise ToolError("the server's name leads nowhere")
        if not all(map(self.allows, found)):  # one of them is enough: a name that leads inside and outside is a trick
            raise AddressRefused(
                "the server's address is not a public one; imported tools reach such only where allow=[...] names it"
            )
        return found


def _public(address: Address) -> bool:
    if any(address in network for network in _UNFIT if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast


def _embedded(address: Address) -> list[Address]:
    """IPv4 addresses that an IPv6 address stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    inner: list[Address] = [] if address.sixtofour is None else [address.sixtofour]
    if address.teredo is not None:
        inner += address.teredo
    isatap = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    if isatap or (any(address in network for network in _EMBEDDING) and int(address) > 1):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return inner


async def _system(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def origin(url: Any) -> tuple[str, str, int]:
    """Scheme, host and port of a URL of httpx. Raises BadInput for anything but http and https."""
    if url.scheme not in {"http", "https"} or not url.host:
        raise BadInput("expected an address that begins with http:// or https://")
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]
