"""Fails an async test that blocked its event loop.

A task ticks inside the loop; a tick that comes late was kept waiting by somebody. Three things are forgiven: time that
the operating system gave to other processes (known on Linux), and imports and garbage collections, since which test
pays for them is chance: in a process that has run thousands of tests one full collection takes most of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

LIMIT_MS = 500.0
_TICK = 0.02
_MANY_IMPORTS = 20


class LoopBlockedError(AssertionError):
    """Something kept the event loop from running."""


def watched(test: Callable[..., Awaitable[Any]], limit_ms: float) -> Callable[..., Awaitable[Any]]:
    """The same coroutine function; raises LoopBlockedError if its loop stood still for more than `limit_ms`."""

    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> Any:
        waits: list[float] = []
        ticking = asyncio.create_task(beat(waits))
        try:
            await asyncio.sleep(0)  # the first tick begins before the test does
            result = await test(*args, **kwargs)
            await asyncio.sleep(0)
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
        worst = max(waits, default=0.0) * 1000
        if worst > limit_ms:
            raise LoopBlockedError(
                f"the event loop stood still for {worst:.0f} ms (limit {limit_ms:.0f} ms); "
                "move blocking work off it, or allow it with @pytest.mark.blocking(ms)"
            )
        return result

    return run


async def beat(waits: list[float]) -> None:
    """Note how late each tick of the loop comes, seconds, without what is forgiven."""
    while True:
        began, stolen, modules, collecting = time.perf_counter(), _stolen(), len(sys.modules), _collector.seconds
        try:
            await asyncio.sleep(_TICK)
        finally:  # a test that ends right after it blocked cancels this tick
            if len(sys.modules) - modules < _MANY_IMPORTS:
                forgiven = max(0.0, _stolen() - stolen) + _collector.seconds - collecting
                waits.append(time.perf_counter() - began - _TICK - forgiven)


class _Collector:
    """How long garbage collections have taken in this process, seconds."""

    def __init__(self) -> None:
        self.seconds = self._began = 0.0
        gc.callbacks.append(self._told)

    def _told(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._began


_collector = _Collector()


def _stolen() -> float:
    """Seconds that our threads were ready to run and another process, or another guest of the host, ran instead; 0
    where that isn't known.

    All threads, since one that was put aside may have held the lock that the loop's thread waits for.
    """
    return sum(map(_waited, Path("/proc/self/task").glob("*/schedstat"))) / 1e9 + _taken_by_the_host()


def _taken_by_the_host() -> float:
    """Seconds of all processors together, in steps of 10 ms."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as stat:
            return int(stat.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _waited(schedstat: Path) -> int:
    try:
        return int(schedstat.read_text().split()[1])
    except (OSError, IndexError, ValueError):  # the thread has just ended, or the kernel keeps no account
        return 0
