"""Rate limits: sliding windows, several at once, taken together or not at all.

    "5/s, 100/min"                                                    both
    {"tool": "50/s", "user": "5/s", "tenant": "100/min", "role:intern": "10/h"}   all of them

The limiter is exact (a log of the times of the last N uses), refuses without debiting, says when to come back, and can
give a use back that did not happen after all. One lock per limiter; about 1 us per window. Limiters of processes that
share their limits are in `registry/stores`.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from escalade.clock import monotonic
from escalade.errors import BadInput

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "m": 60.0, "h": 3600.0, "hour": 3600.0}
_SECONDS |= {"d": 86400.0, "day": 86400.0}
_PER = re.compile(r"|tool|tenant|user|role:.+")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `calls` uses in any `seconds` seconds.

    `per`: whose uses count together: "tool" (everybody's), "tenant", "user" (of a tenant), "role:NAME" (of all who have
    that role in a tenant, or one that inherits it; others aren't limited by it); "" leaves it to the tool's
    `limits_per`.
    """

    calls: int
    seconds: float
    per: str = ""

    def __post_init__(self) -> None:
        if _PER.fullmatch(self.per) is None:
            raise BadInput(f"a rate limit is per 'tool', 'tenant', 'user' or 'role:NAME', not {self.per!r}")
        if self.calls < 1 or not self.seconds > 0:
            raise BadInput(f"a rate limit allows at least one use in some time, not {self.calls} in {self.seconds} s")

    def __str__(self) -> str:
        unit = next(
            (u for u, s in (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0)) if s == self.seconds), None
        )
        rate = f"{self.calls}/{unit}" if unit else f"{self.calls}/{self.seconds:g}s"
        return f"{rate} per {self.per}" if self.per else rate


def parse_limits(text: Any) -> tuple[RateLimit, ...]:
    """`"5/s, 100/min"`, `"10/30s"` -> RateLimits; a dict says per what; a RateLimit, a tuple of them and None for none
    as they are. Raises BadInput.

    >>> parse_limits({"user": "5/s", "role:intern": "10/h"})
    (RateLimit(calls=5, seconds=1.0, per='user'), RateLimit(calls=10, seconds=3600.0, per='role:intern'))
    """
    if text is None:
        return ()
    if isinstance(text, RateLimit):
        return (text,)
    if isinstance(text, tuple):
        return text
    if isinstance(text, dict):
        return tuple(replace(limit, per=str(per)) for per, each in text.items() for limit in parse_limits(each))
    if not isinstance(text, str):
        raise BadInput(f"not a rate limit: {text!r}; write it like '5/s' or '5/s, 100/min'")
    return tuple(dict.fromkeys(_parsed(part.strip()) for part in text.split(",")))


def _parsed(text: str) -> RateLimit:
    match = re.fullmatch(r"(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-z]+)", text)
    if match is None or match[3] not in _SECONDS or int(match[1]) < 1 or float(match[2] or 1) <= 0:
        raise BadInput(f"not a rate limit: {text!r}; write it like '5/s', '100/min', '10/30s' or '5/s, 100/min'")
    return RateLimit(int(match[1]), float(match[2] or 1) * _SECONDS[match[3]])


Window = tuple[str, RateLimit]
"""Whose uses count together, as a key, and how many of them there may be."""


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """One use, debited in each of these windows at time `at`; `id`: its name in a store."""

    windows: tuple[Window, ...]
    at: float
    id: str = ""


class RateLimiter(Protocol):
    """Counts uses. A store that can't be reached raises StoreUnavailable."""

    def take_all(self, windows: tuple[Window, ...]) -> Taken | float:
        """Use them all once: `Taken` if each had room and was debited, else the seconds to wait, debiting none."""
        ...

    def wait(self, windows: tuple[Window, ...]) -> float:
        """Seconds until all of them have room, as things are; 0 if they have. Debits none."""
        ...

    def give_back(self, taken: Taken) -> None:
        """Undo that use: it did not happen."""
        ...


class Limiter:
    """Counts uses of keys against rate limits, in memory. `now`: monotonic seconds."""

    _SWEEP = 4096  # windows that make a sweep worth while: keys of users who left must not pile up

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._lock = threading.RLock()  # re-entrant: a finalizer may give a use back while its thread is in here
        self._uses: dict[Window, deque[float]] = {}
        self._sweep_at = self._SWEEP

    def take(self, key: str, limits: tuple[RateLimit, ...]) -> Taken | float:
        """`take_all` of the windows of one key."""
        return self.take_all(tuple((key, limit) for limit in limits))

    def take_all(self, windows: tuple[Window, ...]) -> Taken | float:
        """Use them all once: `Taken` if each had room and was debited, else the seconds to wait, debiting none."""
        with self._lock:
            now = self._now()
            if len(self._uses) > self._sweep_at:
                self._sweep(now)
            logs = [self._window(window, now) for window in windows]
            wait = self._longest(logs, windows, now)
            if wait > 0.0:
                return wait
            for log in logs:
                log.append(now)
            return Taken(windows, now)

    def wait(self, windows: tuple[Window, ...]) -> float:
        """Seconds until all of them have room, as things are; 0 if they have. Debits none."""
        with self._lock:
            now = self._now()
            return self._longest([self._window(window, now) for window in windows], windows, now)

    def give_back(self, taken: Taken) -> None:
        """Undo that use: it did not happen. Not the newest one of the key, which may be somebody else's, and later."""
        with self._lock:
            for window in taken.windows:
                log = self._uses.get(window)
                if log is not None and taken.at in log:
                    log.remove(taken.at)

    @staticmethod
    def _longest(logs: list[deque[float]], windows: tuple[Window, ...], now: float) -> float:
        waits = (
            log[0] + limit.seconds - now
            for log, (_, limit) in zip(logs, windows, strict=True)
            if len(log) >= limit.calls
        )
        return max(waits, default=0.0)

    def _window(self, window: Window, now: float) -> deque[float]:
        log = self._uses.get(window)
        if log is None:
            log = self._uses[window] = deque()
        while log and log[0] <= now - window[1].seconds:
            log.popleft()
        return log

    def _sweep(self, now: float) -> None:
        """Forget windows in which nothing counts any more; sweep again when twice as many are left."""
        for window, log in list(self._uses.items()):
            if not log or log[-1] <= now - window[1].seconds:
                del self._uses[window]
        self._sweep_at = max(self._SWEEP, 2 * len(self._uses))
