"""A circuit breaker: closed, open, half-open with exactly one probe.

It opens after `failures` failures in a row, or when at least half of the last `window` uses failed; it stays open for
`cooldown` seconds; then one use may try (the probe), everybody else is refused until the probe has ended. The lock
is never held during a use. Refusals, bad arguments and other mistakes of the caller are not failures of the resource;
the guard decides which is which.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from escalade.clock import monotonic
from escalade.errors import BadInput

State = Literal["closed", "open", "half-open"]


class Pass:
    """Leave to use the resource once."""

    __slots__ = ()


_ORDINARY = Pass()


class Breaker:
    """`allow()` before a use, then `success()`, `failure()` or `forget()` with its pass, exactly once, after it."""

    def __init__(
        self,
        *,
        failures: int = 5,
        window: int = 20,
        cooldown: float = 30.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        if failures < 1 or window < 1 or not cooldown > 0:
            raise BadInput(
                f"breaker: expected failures, window >= 1 and cooldown > 0, got {failures}, {window}, {cooldown}"
            )
        self._failures, self._cooldown, self._now = failures, cooldown, now
        self._lock = threading.RLock()  # re-entrant: a finalizer may end a use while its thread is in here
        self._row = 0
        self._recent: deque[bool] = deque(maxlen=window)
        self._open_until: float | None = None
        self._probe: Pass | None = None

    @property
    def state(self) -> State:
        with self._lock:
            if self._open_until is None:
                return "closed"
            return "half-open" if self._probe is not None or self._now() >= self._open_until else "open"

    def allow(self) -> Pass | float:
        """A `Pass` to hand back after the use, or the seconds to wait (then nothing is to be reported)."""
        if self._open_until is None:  # without the lock: a use that slips in while it opens is one more use at most
            return _ORDINARY
        with self._lock:
            until: float | None = self._open_until
            if until is None:
                return _ORDINARY
            wait = until - self._now()
            if wait > 0:
                return wait
            if self._probe is not None:
                return min(1.0, self._cooldown)
            self._probe = Pass()
            return self._probe

    def success(self, used: Pass) -> None:
        with self._lock:
            if used is self._probe:
                self._open_until = self._probe = None
                self._recent.clear()
            self._row = 0
            self._recent.append(True)

    def failure(self, used: Pass) -> None:
        with self._lock:
            self._row += 1
            self._recent.append(False)
            probe_failed = used is self._probe
            if probe_failed or (self._open_until is None and (self._row >= self._failures or self._mostly_failing())):
                self._open_until, self._row = self._now() + self._cooldown, 0
                self._probe = None
                self._recent.clear()

    def forget(self, used: Pass) -> None:
        """The use ended without telling anything about the resource (cancelled, refused later on)."""
        with self._lock:
            if used is self._probe:
                self._probe = None

    def _mostly_failing(self) -> bool:
        return len(self._recent) == self._recent.maxlen and 2 * self._recent.count(False) >= len(self._recent)
