"""The time of lanes, and who wakes them when a window frees up: one daemon thread for all of them.

A thread, since whoever waits may be a thread or a task of any event loop, and may leave at any moment: a wake-up that
hung on one of those who wait would be lost with it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Protocol


class Clock(Protocol):
    """Tests hand in one whose time they move themselves."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def call_at(self, when: float, do: Callable[[], object]) -> None:
        """Call it then, in any thread."""
        ...


class RealClock:
    """The process's monotonic time. The thread is started by the first call that waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._alarms: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    now = staticmethod(time.monotonic)

    def call_at(self, when: float, do: Callable[[], object]) -> None:
        """`do` must neither block nor raise."""
        with self._changed:
            heapq.heappush(self._alarms, (when, next(self._numbers), do))
            if self._thread is None or not self._thread.is_alive():  # it is lost in a process that was forked
                self._thread = threading.Thread(target=self._run, name="escalade-lanes", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._alarms or self._alarms[0][0] > self.now():
                    self._changed.wait(self._alarms[0][0] - self.now() if self._alarms else None)
                do = heapq.heappop(self._alarms)[2]
            do()


@cache
def real_clock() -> Clock:
    """The one of this process."""
    return RealClock()
