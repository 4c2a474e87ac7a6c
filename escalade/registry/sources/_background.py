"""An event loop of our own, in a thread of its own, in which connections to other servers live.

A connection belongs to the event loop that opened it. Callers come from many: each sync call of an async tool has a
loop of its own, which ends with the call. Here connections outlive their callers, are shared by all of them, and are
closed in one place, at the latest when the process ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSING_SECONDS = 5.0


class Background:
    """Runs coroutines in its loop, for callers in any thread and any loop."""

    def __init__(self) -> None:
        self._closers: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._reset()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)  # a forked child has neither thread nor connections

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closers.clear()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it there. Cancelling the future cancels the task."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running())

    def wait(self, coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Run it there, and block this thread meanwhile. Raises TimeoutError."""
        future = self.submit(coroutine)
        try:
            return future.result(seconds)
        finally:
            future.cancel()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it there, without blocking this loop. Cancelled here, it is cancelled there."""
        return await asyncio.wrap_future(self.submit(coroutine))

    def at_exit(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have this run before the process ends."""
        self._closers.add(close)

    def forget(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """It was closed already."""
        self._closers.discard(close)

    def close(self) -> None:
        """Close what is open, and end the loop."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        closers, self._closers = self._closers, set()

        async def all_of_them() -> None:
            await asyncio.gather(*(close() for close in closers), return_exceptions=True)

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(all_of_them(), loop).result(_CLOSING_SECONDS)
        loop.call_soon_threadsafe(loop.stop)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._serve, args=(self._loop,), name="escalade-sources", daemon=True).start()
            return self._loop

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        with contextlib.suppress(Exception):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


shared = Background()
"""The one of this process."""
