"""Sliding windows of a lane: starts of requests, and tokens. Exact, in absolute times, under the lane's lock.

Times are compared as `start + seconds <= now`, and that sum is also what a lane sleeps until: with differences, a
rounding error could wake it just too early, for ever.
"""

from __future__ import annotations

from collections import deque

MINUTE = 60.0


class Starts:
    """At most `calls` starts in any `seconds` seconds."""

    def __init__(self, calls: int, seconds: float) -> None:
        self.calls, self.seconds = calls, seconds
        self._log: deque[float] = deque()

    def free_at(self, now: float, ahead: int = 0) -> float:
        """When one more may start, after `ahead` others that start as early as they may."""
        log = self._log
        while log and log[0] + self.seconds <= now:
            log.popleft()
        turns, at = divmod(len(log) + ahead, self.calls)
        if turns == 0:
            return now
        return (log[at] if at < len(log) else now) + turns * self.seconds

    def take(self, now: float) -> None:
        """One starts."""
        self._log.append(now)

    def give_back(self, at: float) -> None:
        """That one did not start after all."""
        if at in self._log:
            self._log.remove(at)


class Spent:
    """Tokens of one attempt. `counts`: is it still in the window?"""

    __slots__ = ("at", "counts", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at, self.tokens, self.counts = at, tokens, True


class Tokens:
    """At most `per_minute` tokens in any 60 seconds. What is larger than that goes through alone."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute, self._used = per_minute, 0
        self._log: deque[Spent] = deque()

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
        for spent in self._log:
            lacking -= spent.tokens
            if lacking <= 0:
                return spent.at + MINUTE
        last = self._log[-1].at + MINUTE if self._log else now
        return last + MINUTE * lacking / self.per_minute

    def take(self, now: float, tokens: int) -> Spent:
        """An attempt starts that is expected to use so many at most."""
        spent = Spent(now, tokens)
        self._log.append(spent)
        self._used += tokens
        return spent

    def settle(self, spent: Spent, tokens: int) -> None:
        """What it really used."""
        if spent.counts:
            self._used += tokens - spent.tokens
            spent.tokens = tokens
