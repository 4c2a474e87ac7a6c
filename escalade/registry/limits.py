"""Rate limits: sliding windows, several at once, taken together or not at all.

`"5/s, 100/min"` means both. The limiter is exact (a log of the times of the last N uses), refuses without debiting,
says when to come back, and can give a use back that did not happen after all. One lock per limiter; about 1 us per
window.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from escalade.errors import BadInput

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "m": 60.0, "h": 3600.0, "hour": 3600.0}
_SECONDS |= {"d": 86400.0, "day": 86400.0}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `calls` uses in any `seconds` seconds."""

    calls: int
    seconds: float

    def __post_init__(self) -> None:
        if self.calls < 1 or not self.seconds > 0:
            raise BadInput(f"a rate limit allows at least one use in some time, not {self.calls} in {self.seconds} s")

    def __str__(self) -> str:
        unit = next(
            (u for u, s in (("s", 1.0), ("min", 60.0), ("h", 3600.0), ("day", 86400.0)) if s == self.seconds), None
        )
        return f"{self.calls}/{unit}" if unit else f"{self.calls}/{self.seconds:g}s"


def parse_limits(text: Any) -> tuple[RateLimit, ...]:
    """`"5/s, 100/min"`, `"10/30s"` -> RateLimits; a RateLimit, a tuple of them and None for none as they are. Raises
    BadInput.

    >>> parse_limits("5/s, 100/min")
    (RateLimit(calls=5, seconds=1.0), RateLimit(calls=100, seconds=60.0))
    """
    if text is None:
        return ()
    if isinstance(text, RateLimit):
        return (text,)
    if isinstance(text, tuple):
        return text
    if not isinstance(text, str):
        raise BadInput(f"not a rate limit: {text!r}; write it like '5/s' or '5/s, 100/min'")
    return tuple(dict.fromkeys(_parsed(part.strip()) for part in text.split(",")))


def _parsed(text: str) -> RateLimit:
    match = re.fullmatch(r"(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-z]+)", text)
    if match is None or match[3] not in _SECONDS or int(match[1]) < 1 or float(match[2] or 1) <= 0:
        raise BadInput(f"not a rate limit: {text!r}; write it like '5/s', '100/min', '10/30s' or '5/s, 100/min'")
    return RateLimit(int(match[1]), float(match[2] or 1) * _SECONDS[match[3]])


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """One use, debited in every window of the key at time `at`."""

    key: str
    limits: tuple[RateLimit, ...]
    at: float


class Limiter:
    """Counts uses of keys against rate limits, in memory. `now`: monotonic seconds."""

    _SWEEP = 4096  # windows that make a sweep worth while: keys of users who left must not pile up

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.RLock()  # re-entrant: a finalizer may give a use back while its thread is in here
        self._uses: dict[tuple[str, RateLimit], deque[float]] = {}
        self._sweep_at = self._SWEEP

    def take(self, key: str, limits: tuple[RateLimit, ...]) -> Taken | float:
        """Use `key` once: `Taken` if every window had room and was debited, else the seconds to wait, debiting none."""
        with self._lock:
            now = self._now()
            if len(self._uses) > self._sweep_at:
                self._sweep(now)
            windows = [self._window(key, limit, now) for limit in limits]
            waits = (
                window[0] + limit.seconds - now
                for window, limit in zip(windows, limits, strict=True)
                if len(window) >= limit.calls
            )
            wait = max(waits, default=0.0)
            if wait > 0.0:
                return wait
            for window in windows:
                window.append(now)
            return Taken(key, limits, now)

    def give_back(self, taken: Taken) -> None:
        """Undo that use: it did not happen. Not the newest one of the key, which may be somebody else's, and later."""
        with self._lock:
            for limit in taken.limits:
                window = self._uses.get((taken.key, limit))
                if window is not None and taken.at in window:
                    window.remove(taken.at)

    def _window(self, key: str, limit: RateLimit, now: float) -> deque[float]:
        window = self._uses.get((key, limit))
        if window is None:
            window = self._uses[key, limit] = deque()
        while window and window[0] <= now - limit.seconds:
            window.popleft()
        return window

    def _sweep(self, now: float) -> None:
        """Forget windows in which nothing counts any more; sweep again when twice as many are left."""
        for key, window in list(self._uses.items()):
            if not window or window[-1] <= now - key[1].seconds:
                del self._uses[key]
        self._sweep_at = max(self._SWEEP, 2 * len(self._uses))
