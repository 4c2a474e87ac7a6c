"""One of something per event loop, since connections belong to the loop that opened them.

It is closed with its loop: `asyncio.run` (and every runner that follows it) ends the async generators of a loop before
it closes it, and what keeps the thing is one. A table with weak keys would not do: connections hold their loop, so that
neither ever goes (measured: 10 loops, 10 of them alive, with their sockets).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """`make`: a new one. `close`: called with it, on its own loop, when that ends."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make, self._close = make, close
        self._lock = threading.Lock()
        self._kept: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[T, None]]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self) -> T:
        """The one of the running loop. Doesn't let another task run."""
        loop = asyncio.get_running_loop()
        found = self._kept.get(loop)
        if found is not None:
            return found[0]
        self._forget_closed()
        keeper = self._keeping(loop)
        made = await anext(keeper)
        with self._lock:
            self._kept[loop] = made, keeper
        return made

    async def _keeping(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[T, None]:
        made = self._make()
        try:
            yield made
        finally:
            with self._lock:
                self._kept.pop(loop, None)
            await self._close(made)

    def _forget_closed(self) -> None:
        """Of loops that somebody closed without ending what ran on them: it can't be closed any more."""
        with self._lock:
            for loop in [loop for loop in self._kept if loop.is_closed()]:
                del self._kept[loop]
