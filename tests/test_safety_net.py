"""The nets under the other tests hold: the network is blocked, a blocked event loop is noticed, state doesn't leak."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dspy
import pytest

import escalade
from escalade.scopes import current
from tests import _loop_watch, _network

ELSEWHERE = "192.0.2.1"  # reserved for documentation: nobody's


def _with_socket(use: Callable[[socket.socket], Any]) -> Any:
    with socket.socket() as made:
        return use(made)


@pytest.fixture
def _caught() -> Iterator[None]:
    yield
    _network.attempts.clear()


@pytest.mark.usefixtures("_caught")
@pytest.mark.parametrize(
    "leave",
    [
        lambda: socket.create_connection((ELSEWHERE, 9), timeout=1),
        lambda: _with_socket(lambda s: s.connect_ex((ELSEWHERE, 9))),
        lambda: socket.getaddrinfo("host.invalid", 80),
        lambda: socket.gethostbyname("host.invalid"),
        lambda: asyncio.run(asyncio.open_connection("host.invalid", 80)),
    ],
)
def test_network_is_blocked(leave: Callable[[], Any]) -> None:
    """Look-ups and connections to other machines are refused and remembered, also from asyncio."""
    with pytest.raises(_network.NetworkBlockedError):
        leave()
    assert _network.attempts


def test_loopback_is_open() -> None:
    """Servers of tests on loopback are reached, by number and by name."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1])),
    ):
        pass
    assert not _network.attempts


async def test_blocked_loop_is_noticed() -> None:
    """A coroutine that sleeps without `await` fails; one that awaits passes."""

    async def polite() -> str:
        await asyncio.sleep(0.4)
        return "result"

    async def rude() -> None:
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251  # what is to be noticed

    assert await _loop_watch.watched(polite, 250)() == "result"
    with pytest.raises(_loop_watch.LoopBlockedError):
        await _loop_watch.watched(rude, 250)()


@pytest.mark.parametrize("_turn", [1, 2])
def test_state_does_not_leak(_turn: int) -> None:
    """Each test finds DSPy and escalade unconfigured, and may configure them from any thread."""
    assert dspy.settings.adapter is None
    assert current() is None
    other = threading.Thread(target=lambda: dspy.configure(adapter=dspy.JSONAdapter()))
    other.start()
    other.join()
    escalade.configure(budget="1.00")
    assert dspy.settings.adapter is not None
    assert current() is not None


def test_cache_is_off() -> None:
    """No test is answered from the cache of another one."""
    assert dspy.cache.enable_disk_cache is False
    assert dspy.cache.enable_memory_cache is False
