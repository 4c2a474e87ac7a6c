"""Usage: what each version of each tool was used for, at what price, how fast, and how often it failed."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from escalade.money import Money
from escalade.scopes import Entry

_KEPT = 1_000
"""Durations per tool version that the percentiles are taken from: those of the newest calls."""

Watch = Callable[[str, float, int | None], None]
"""Told of each call: outcome, seconds, nano-dollars (None for unknown)."""


@dataclass(frozen=True, slots=True)
class ToolUsage:
    """One version of one tool, since it was registered; of a model, since it was made.

    `calls`: uses that ran. `failures`, `cancelled`: how many of them ended so. `denied`: uses that the guard refused,
    which did not run and cost nothing; `refusals`: these by the class of the refusal. `invalid`: of these, refused for
    their arguments, by argument. `p50`, `p95`: seconds, over the newest 1,000 calls; None before the first one.
    `seconds`: of all calls together. `cost`: of all calls with a known price. `unpriced`: calls whose price is unknown,
    and so not in `cost`. `tokens`: as far as they were reported; what was told to `registry.log_usage` alone is in no
    record. `answered`: calls that did not run since their answer
    was there, by where it came from (cache, once, replay, dry-run). `unchecked`: calls that ran although a gate could
    not be asked, by gate (limits). `cache_failures`: how often the cache failed, which counts as a miss.
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
    tokens: int = 0
    seconds: float = 0.0
    invalid: Mapping[str, int] = field(default_factory=dict)
    refusals: Mapping[str, int] = field(default_factory=dict)
    answered: Mapping[str, int] = field(default_factory=dict)
    unchecked: Mapping[str, int] = field(default_factory=dict)
    cache_failures: int = 0
    tokens_by: Mapping[str, int] = field(default_factory=dict)

    @property
    def successes(self) -> int:
        """Calls that came back with a result."""
        return self.calls - self.failures - self.cancelled

    def as_dict(self) -> dict[str, Any]:
        """For JSON: costs as nano-dollars."""
        return {**asdict(self), "cost": int(self.cost), "successes": self.successes}


class Meter:
    """Counts the uses of one tool version, or of one model; told by the guard, from any thread. `watch`: is told of
    each call, too.
    """

    def __init__(self, name: str, version: str) -> None:
        self.name, self.version = name, version
        self.watch: Watch | None = None
        self._lock = threading.RLock()  # re-entrant: a finalizer may end a use while its thread is in here
        self._calls = self._failures = self._cancelled = self._cost = self._unpriced = self._tokens = 0
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._total = 0.0
        self._invalid: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._unchecked: Counter[str] = Counter()
        self._cache_failures = 0
        self._tokens_by: Counter[str] = Counter()

    def observe(self, entry: Entry) -> None:
        """A use ended, or was refused."""
        if entry.source:
            with self._lock:
                self._answered[entry.source] += 1
        elif entry.outcome in {"ok", "failed", "cancelled"}:
            if entry.unchecked:
                with self._lock:
                    self._unchecked[entry.unchecked] += 1
            self.add(entry.outcome, entry.seconds, entry.cost if entry.priced else None)
        else:
            with self._lock:
                self._refused[entry.outcome] += 1
                self._invalid.update(entry.invalid)

    def add(self, outcome: str, seconds: float, cost: int | None, tokens: int = 0) -> None:
        """Count a use that ran: ok, failed or cancelled. `cost`: nano-dollars, None for unknown."""
        with self._lock:
            self._calls += 1
            self._failures += outcome == "failed"
            self._cancelled += outcome == "cancelled"
            self._cost += cost or 0
            self._unpriced += cost is None
            self._tokens += tokens
            self._total += seconds
            self._seconds.append(seconds)
        if self.watch is not None:
            self.watch(outcome, seconds, cost)

    def cache_failed(self) -> None:
        """The cache could not be read or written, or what it had was none of ours."""
        with self._lock:
            self._cache_failures += 1

    def tokens(self, **counts: int | None) -> None:
        """Tokens of a use, `input` and `output`, as far as they are known."""
        known = {kind: count for kind, count in counts.items() if count}
        with self._lock:
            self._tokens_by.update(known)
            self._tokens += sum(known.values())

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
                denied=self._refused.total(),
                p50=percentile(seconds, 0.50),
                p95=percentile(seconds, 0.95),
                cost=Money(self._cost),
                unpriced=self._unpriced,
                tokens=self._tokens,
                seconds=self._total,
                invalid=dict(sorted(self._invalid.items())),
                refusals=dict(sorted(self._refused.items())),
                answered=dict(sorted(self._answered.items())),
                unchecked=dict(sorted(self._unchecked.items())),
                cache_failures=self._cache_failures,
                tokens_by=dict(sorted(self._tokens_by.items())),
            )


def usage_of(entries: Iterable[Entry]) -> list[ToolUsage]:
    """Usage of tools out of a record, such as `Journal.entries() + Journal.denials()`, by name and version."""
    meters: dict[tuple[str, str], Meter] = {}
    for entry in entries:
        if entry.kind == "tool" and entry.outcome:
            key = (entry.resource, entry.version)
            meters.setdefault(key, Meter(*key)).observe(entry)
    return [meters[key].usage() for key in sorted(meters)]


def percentile(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values don't exceed (nearest rank); None for no values."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]
