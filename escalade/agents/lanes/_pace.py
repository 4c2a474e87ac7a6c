"""How many attempts at once, and whether any at all: additive increase, multiplicative decrease.

A 429 halves what is let in, once for all attempts that were under way when it came: they are one burst. It stops the
whole lane for the Retry-After that came with it; without one for a second, then two, four, up to a minute, until an
answer comes. Answers let one more in per round again, where as many as allowed were running; before the first 429 ever,
one more per answer.
"""

from __future__ import annotations

import math

LONGEST = 60.0
"""Seconds of a pause that nobody asked for."""


class Pace:
    """Concurrency of a lane, 1 to `most`, from `start` on. Under the lane's lock."""

    def __init__(self, most: int, start: int) -> None:
        self.most, self._limit = most, float(min(start, most))
        self.paused_until = -math.inf
        self._cut_at, self._rising, self._bursts = -math.inf, True, 0

    @property
    def limit(self) -> int:
        """So many at once."""
        return int(self._limit)

    def answered(self, began: float, running: int) -> None:
        """One that began then had an answer; `running`: how many ran, itself included."""
        if began > self._cut_at:
            self._bursts = 0
        if running >= self.limit:
            self._limit = min(float(self.most), self._limit + (1.0 if self._rising else 1.0 / self._limit))

    def refused(self, began: float, now: float, running: int, retry_after: float | None) -> None:
        """The provider said 429 to one that began then."""
        if retry_after is not None:
            self.paused_until = max(self.paused_until, now + retry_after)
        if began <= self._cut_at:
            return
        if retry_after is None:
            self.paused_until = max(self.paused_until, now + min(LONGEST, 2.0**self._bursts))
        self._cut_at, self._rising, self._bursts = now, False, self._bursts + 1
        self._limit = max(1.0, min(self._limit, running) / 2)
