"""Which addresses imported tools may reach, and the event loop that their connections live in."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput, ToolError
from escalade.registry.sources._background import Background
from escalade.registry.sources._net import AddressRefused, Net
from tests import _forks

PRIVATE = [
    "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",  # noqa: S104
    "192.0.0.192", "168.63.129.16", "100.100.100.200", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1",
    "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:0a00:0001::1",
    "2001:0:7f00:1::", "::127.0.0.1", "::10.0.0.1", "::ffff:0:127.0.0.1", "2a00::5efe:7f00:1", "2a00::200:5efe:a00:1",
    "192.88.99.1", "fec0::1", "3fff::1", "5f00::1",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
    "2a00::5efe:808:808",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Loopback, private, link-local, metadata, multicast, and IPv6 addresses that stand for them: refused."""
    assert not Net().allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Public ones are allowed, however they are written."""
    assert Net().allows(address)


def test_what_was_allowed() -> None:
    """Networks that were named, and no others; a name in IPv6 for an allowed address counts as that address."""
    net = Net(["10.1.0.0/16", "127.0.0.1", "fd00::/8"])
    for address in ("10.1.2.3", "127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "8.8.8.8"):
        assert net.allows(address)
    for address in ("10.2.0.1", "127.0.0.2", "169.254.169.254", "::1"):
        assert not net.allows(address)
    assert Net(["::1"]).allows("::1")
    with pytest.raises(BadInput, match="not an address or a network"):
        Net(["localhost"])


@given(st.ip_addresses(v=4))
def test_an_address_in_any_guise(address: ipaddress.IPv4Address) -> None:
    """What is refused as IPv4 is refused in each IPv6 form that leads there."""
    net = Net()
    number = int(address)
    guises = [
        f"::ffff:{address}",
        str(ipaddress.IPv6Address((0x64FF9B << 96) | number)),
        str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80))),
        f"::{address}",
        f"::ffff:0:{address}",
        str(ipaddress.IPv6Address((0x2A00 << 112) | (0x5EFE << 32) | number)),
    ]
    if not net.allows(str(address)):
        assert not any(map(net.allows, guises))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (["8.8.8.8", "10.0.0.1"], "not a public one"),
        (["10.0.0.1", "8.8.8.8"], "not a public one"),
        ([], "leads nowhere"),
    ],
)
async def test_names(found: list[str], reason: str) -> None:
    """A name is refused if any of its addresses is, and if it has none."""

    async def lookup(host: str, port: int) -> list[str]:
        return found

    with pytest.raises(ToolError, match=reason):
        await Net(lookup=lookup).addresses("x.example", 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_ways_to_write_loopback(host: str) -> None:
    """Whatever the system's look-up makes of it is judged."""
    with pytest.raises(AddressRefused):
        await Net().addresses(host, 80)


@pytest.fixture
def background() -> Any:
    made = Background()
    yield made
    made.close()


def test_it_outlives_its_callers(background: Background) -> None:
    """Callers of any thread and any loop share one loop."""

    async def where() -> tuple[int, int]:
        return threading.get_ident(), id(asyncio.get_running_loop())

    async def both() -> list[Any]:
        return [await background.run(where()), await background.run(where())]

    found = {background.wait(where()), *asyncio.run(both()), *asyncio.run(both())}
    assert len(found) == 1
    assert threading.get_ident() not in next(iter(found))


def test_cancelled_here_is_cancelled_there(background: Background) -> None:
    """Whoever stops waiting stops the work."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await background.run(work())

    asyncio.run(impatient())
    with pytest.raises(TimeoutError):
        background.wait(work(), 0.1)
    deadline = time.monotonic() + 30
    while len(ended) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == ["cancelled", "cancelled"]


def test_closing() -> None:
    """What asked for it is closed, also when another one fails; then it can be used again."""
    made, closed = Background(), []

    async def close() -> None:
        closed.append(1)

    async def fail() -> None:
        raise ValueError

    async def forgotten() -> None:
        closed.append(2)

    async def answer() -> int:
        return 42

    for one in (close, fail, forgotten):
        made.at_exit(one)
    made.forget(forgotten)
    assert made.wait(answer()) == 42
    made.close()
    made.close()
    assert closed == [1]
    assert made.wait(answer()) == 42
    made.close()


FORKS = """
from escalade.registry.sources._background import Background
from tests._forks import in_child

async def answer():
    return 42

def ask():
    assert background.wait(answer(), 5) == 42

background = Background()
ask()
in_child(ask)
ask()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_in_a_forked_child() -> None:
    """A child has a loop of its own: its parent's thread isn't there."""
    _forks.run(FORKS)
