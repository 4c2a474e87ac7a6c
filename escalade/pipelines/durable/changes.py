"""Who waits in this process for a run to end is woken when it does."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict


class Changes:
    """Wakes those in this process who wait for a run, when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = defaultdict(list)
        self._futures: dict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def ticket(self, run_id: str) -> threading.Event:
        """Set when something changes."""
        event = threading.Event()
        with self._lock:
            self._events[run_id].append(event)
        return event

    def aticket(self, run_id: str) -> asyncio.Future[None]:
        """Done when something changes."""
        future = asyncio.get_running_loop().create_future()
        with self._lock:
            self._futures[run_id].append(future)
        return future

    def tell(self, run_id: str) -> None:
        """Something changed."""
        with self._lock:
            events, futures = self._events.pop(run_id, []), self._futures.pop(run_id, [])
        for event in events:
            event.set()
        for future in futures:
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_done, future)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
