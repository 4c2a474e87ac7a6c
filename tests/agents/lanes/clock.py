"""A clock whose time the test moves."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class FakeClock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self.time = 0.0
        self._alarms: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, do: Callable[[], object]) -> None:
        heapq.heappush(self._alarms, (when, next(self._numbers), do))

    @property
    def pending(self) -> int:
        """Alarms that have not rung."""
        return len(self._alarms)

    def move_to(self, when: float) -> None:
        """Ring all alarms until then, each at its time."""
        while self._alarms and self._alarms[0][0] <= when:
            at, _, do = heapq.heappop(self._alarms)
            self.time = max(self.time, at)
            do()
        self.time = max(self.time, when)

    def next(self) -> bool:
        """On to the next alarm; False when there is none."""
        if self._alarms:
            self.move_to(self._alarms[0][0])
            return True
        return False
