"""Queues: so many at once, the others wait in the order in which they came; threads and tasks in one queue."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any


class Turn(Future[None]):
    """A place in a queue; done when it is one's turn."""

    inside = False
    rank = 0


class Queues:
    """At most `places` at once for each key.

        with queues.turn("k", seconds=2.0) as mine:     # False when the time was up
            ...

    Whoever leaves the queue, by cancellation too, lets the next one in. `rank`: the higher goes first.
    """

    def __init__(self, places: int = 1) -> None:
        self.places = places
        self._lock = threading.RLock()  # re-entrant: a finalizer may leave while its thread is in here
        self._inside: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[Turn]] = {}

    def join(self, key: Hashable, rank: int = 0) -> Turn:
        """Get in line; the turn may come at once. To be followed by `leave`, whatever happens."""
        turn = Turn()
        turn.rank = rank
        with self._lock:
            if self._inside[key] < self.places and key not in self._waiting:
                self._inside[key] += 1
                turn.inside = True
                turn.set_result(None)
            else:
                line = self._waiting.setdefault(key, deque())
                line.insert(_behind(line, rank), turn)
        return turn

    def leave(self, key: Hashable, turn: Turn) -> None:
        """Give the place up, in the line or inside."""
        with self._lock:
            if turn.inside:
                turn.inside = False
                self._inside[key] -= 1
            else:
                self._waiting[key].remove(turn)
            called = self._called(key)
        for one in called:
            if one.set_running_or_notify_cancel():  # a cancelled one leaves by itself
                one.set_result(None)

    def occupy(self, key: Hashable, job: Future[Any]) -> None:
        """Take a place, beyond the number of places if need be, until the job has ended."""
        turn = Turn()
        with self._lock:
            turn.inside = True
            self._inside[key] += 1
        job.add_done_callback(lambda _: self.leave(key, turn))

    def waiting(self, key: Hashable) -> int:
        """How many are in line."""
        with self._lock:
            return len(self._waiting.get(key, ()))

    @contextmanager
    def turn(self, key: Hashable, seconds: float = math.inf) -> Iterator[bool]:
        """One's turn, waited for in this thread: False when it didn't come within `seconds`."""
        turn = self.join(key)
        try:
            try:
                turn.result(None if seconds == math.inf else max(0.0, seconds))
            except TimeoutError:
                yield False
            else:
                yield True
        finally:
            self.leave(key, turn)

    @asynccontextmanager
    async def aturn(self, key: Hashable, seconds: float = math.inf, rank: int = 0) -> AsyncIterator[bool]:
        """`turn`, without blocking the event loop."""
        turn = self.join(key, rank)
        try:
            mine = turn.done()
            if not mine:
                done, _ = await asyncio.wait(
                    [asyncio.wrap_future(turn)], timeout=None if seconds == math.inf else max(0.0, seconds)
                )
                mine = bool(done)
            yield mine
        finally:
            self.leave(key, turn)

    def _called(self, key: Hashable) -> list[Turn]:
        """Those whose turn it is now. Under the lock."""
        called, line = [], self._waiting.get(key)
        while line and self._inside[key] < self.places:
            turn = line.popleft()
            turn.inside = True
            self._inside[key] += 1
            called.append(turn)
        if not line:
            self._waiting.pop(key, None)
        if not self._inside[key] and key not in self._waiting:
            del self._inside[key]
        return called


def _behind(line: deque[Turn], rank: int) -> int:
    """Where in line: behind all of the same rank, or a higher one. Looked for from the end, where it usually is."""
    for ahead in range(len(line), 0, -1):
        if line[ahead - 1].rank >= rank:
            return ahead
    return 0
