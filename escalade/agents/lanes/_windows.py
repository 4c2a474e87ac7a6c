"""Sliding windows of a lane: starts of requests, and tokens. Exact, in absolute times, under the lane's lock.

Times are compared as `start + seconds <= now`, and that sum is also what a lane sleeps until: with differences, a
rounding error could wake it just too early, for ever.
"""

from __future__ import annotations

from collections import deque

MINUTE = 60.0


class Start:
    """One attempt in the windows. `at`: when its place was given, then when it was sent, which may be moved up: what is
    sent a little later than it was let in must not come too close to what follows. `counts`: are its tokens counted?
    """

    __slots__ = ("at", "counts", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at, self.tokens, self.counts = at, tokens, False


class Starts:
    """At most `calls` starts in any `seconds` seconds."""

    def __init__(self, calls: int, seconds: float) -> None:
        self.calls, self.seconds = calls, seconds
        self._log: deque[Start] = deque()

    def free_at(self, now: float, ahead: int = 0) -> float:
        """When one more may start, after `ahead` others that start as early as they may."""
        log = self._log
        while log and log[0].at + self.seconds <= now:
            log.popleft()
        turns, at = divmod(len(log) + ahead, self.calls)
        if turns == 0:
            return now
        return (log[at].at if at < len(log) else now) + turns * self.seconds

    def take(self, start: Start) -> None:
        """One starts."""
        self._log.append(start)

    def give_back(self, start: Start) -> None:
        """That one did not start after all."""
        if start in self._log:
            self._log.remove(start)


class Tokens:
    """At most `per_minute` tokens in any 60 seconds. What is larger than that goes through alone."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute, self._used = per_minute, 0
        self._log: deque[Start] = deque()

    def used(self, now: float) -> int:
        """Tokens that count now."""
        log = self._log
        while log and log[0].at + MINUTE <= now:
            gone = log.popleft()
            gone.counts = False
            self._used -= gone.tokens
        return self._used

    def free_at(self, now: float, tokens: int, ahead: int = 0) -> float:
        """When so many more may start, after `ahead` tokens of others; beyond a minute it is an estimate."""
        lacking = self.used(now) + min(tokens, self.per_minute) + ahead - self.per_minute
        if lacking <= 0:
            return now
        for start in self._log:
            lacking -= start.tokens
            if lacking <= 0:
                return max(start.at + MINUTE, self._log[0].at + MINUTE)
        last = self._log[-1].at + MINUTE if self._log else now
        return last + MINUTE * lacking / self.per_minute

    def take(self, start: Start) -> None:
        """An attempt starts that is expected to use so many at most."""
        self._log.append(start)
        self._used += start.tokens
        start.counts = True

    def settle(self, start: Start, tokens: int) -> None:
        """What it really used."""
        if start.counts:
            self._used += tokens - start.tokens
            start.tokens = tokens
