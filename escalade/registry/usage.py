"""Usage: what each version of each tool was used for, at what price, how fast, and how often it failed."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from escalade.money import Money
from escalade.scopes import Entry

_KEPT = 1_000
"""Durations per tool version that the percentiles are taken from: those of the newest calls."""


@dataclass(frozen=True, slots=True)
class ToolUsage:
    """One version of one tool, since it was registered.

    `calls`: uses that ran. `failures`, `cancelled`: how many of them ended so. `denied`: uses that the guard refused,
    which did not run and cost nothing. `p50`, `p95`: seconds, over the newest 1,000 calls; None before the first one.
    `cost`: of all calls with a known price. `unpriced`: calls whose price is unknown, and so not in `cost`.
    """

    name: str
    version: str
    calls: int
    failures: int
    cancelled: int
    denied: int
    p50: float | None
    p95: float | None
    cost: Money
    unpriced: int


class Meter:
    """Counts the uses of one tool version; told by the guard, from any thread."""

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version
        self._lock = threading.RLock()  # re-entrant: a finalizer may end a use while its thread is in here
        self._calls = self._failures = self._cancelled = self._denied = self._cost = self._unpriced = 0
        self._seconds: deque[float] = deque(maxlen=_KEPT)

    def observe(self, entry: Entry) -> None:
        """A use ended, or was refused."""
        if entry.outcome in {"ok", "failed", "cancelled"}:
            self.add(entry.outcome, entry.seconds, entry.cost if entry.priced else None)
        else:
            with self._lock:
                self._denied += 1

    def add(self, outcome: str, seconds: float, cost: int | None) -> None:
        """Count a use that ran: ok, failed or cancelled. `cost`: nano-dollars, None for unknown."""
        with self._lock:
            self._calls += 1
            self._failures += outcome == "failed"
            self._cancelled += outcome == "cancelled"
            self._cost += cost or 0
            self._unpriced += cost is None
            self._seconds.append(seconds)

    def usage(self) -> ToolUsage:
        """The figures so far."""
        with self._lock:
            seconds = sorted(self._seconds)
            return ToolUsage(
                name=self.name,
                version=self.version,
                calls=self._calls,
                failures=self._failures,
                cancelled=self._cancelled,
                denied=self._denied,
                p50=percentile(seconds, 0.50),
                p95=percentile(seconds, 0.95),
                cost=Money(self._cost),
                unpriced=self._unpriced,
            )


def percentile(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values don't exceed (nearest rank); None for no values."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]
