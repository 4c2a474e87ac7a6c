"""A circuit breaker: closed, open, half-open with exactly one probe.

It opens after `failures` failures in a row, or when at least half of the last `window` uses failed; it stays open for
`cooldown` seconds; then one use may try (the probe), everybody else is refused until the probe has ended. The lock
is never held during a use. Refusals, bad arguments and other mistakes of the caller are not failures of the resource;
the guard decides which is which.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """`allow()` before a use, then `success()`, `failure()` or `forget()` exactly once after it."""

    def __init__(
        self,
        *,
        failures: int = 5,
        window: int = 20,
        cooldown: float = 30.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._cooldown, self._now = failures, cooldown, now
        self._lock = threading.Lock()
        self._row = 0
        self._recent: deque[bool] = deque(maxlen=window)
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "half-open" if self._probing or self._now() >= self._open_until else "open"

    def allow(self) -> float:
        """0.0: go ahead (when half-open, you are the probe). Else the seconds to wait; nothing is to be reported then."""
        if self._open_until is None:  # unlocked fast path: a use that slips in while it opens is one more failure at most
            return 0.0
        with self._lock:
            if self._open_until is None:
                return 0.0
            wait = self._open_until - self._now()
            if wait > 0:
                return wait
            if self._probing:
                return min(1.0, self._cooldown)
            self._probing = True
            return 0.0

    def success(self) -> None:
        with self._lock:
            self._row = 0
            if self._open_until is not None and self._probing:
                self._open_until, self._probing = None, False
                self._recent.clear()
            self._recent.append(True)

    def failure(self) -> None:
        with self._lock:
            self._row += 1
            self._recent.append(False)
            if self._probing or self._row >= self._failures or self._mostly_failing():
                self._open_until, self._probing, self._row = self._now() + self._cooldown, False, 0
                self._recent.clear()

    def forget(self) -> None:
        """The use ended without telling anything about the resource (cancelled, refused later on)."""
        with self._lock:
            self._probing = False

    def _mostly_failing(self) -> bool:
        return len(self._recent) == self._recent.maxlen and 2 * self._recent.count(False) >= len(self._recent)
