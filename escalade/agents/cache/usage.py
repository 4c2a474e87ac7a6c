"""What a cache is worth: hits, misses and the dollars that hits would have cost, by tenant and model."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from escalade.money import Money


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """One model, as one tenant used it through the cache.

    `hits`: answers that were there, by where they came from (memory; store; joined: an equal call that ran at the time;
    similar: an answer to a question that differs a little). `misses`: calls that the model answered. `saved`: what the
    hits would have cost, as far as that is known; `unpriced`: hits of which it isn't. `kept`: answers that were kept;
    `refused`: those that were not, by reason (truncated, refused, empty, not exact, unparsable; unknown: the model that
    answered, in a stream of one with fallbacks; never: of a kind that is not kept).
    """

    tenant: str
    model: str
    hits: Mapping[str, int] = field(default_factory=dict)
    misses: int = 0
    saved: Money = field(default_factory=Money)
    unpriced: int = 0
    kept: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def hit_rate(self) -> float | None:
        """Of all calls, the share that was answered by the cache; None before the first."""
        return _rate(sum(self.hits.values()), self.misses)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `saved` as nano-dollars."""
        return {**asdict(self), "saved": int(self.saved), "hit_rate": self.hit_rate}


@dataclass(frozen=True, slots=True)
class CacheStats:
    """All figures since the cache was made. `evicted`: entries that memory had no room for. `failures`: how often the
    store could not be used or what it had was none of ours, each a miss. `entries`, `bytes`: in memory.
    """

    usage: tuple[CacheUsage, ...]
    evicted: int
    failures: int
    entries: int
    bytes: int

    @property
    def hits(self) -> int:
        """Of all tenants and models."""
        return sum(sum(one.hits.values()) for one in self.usage)

    @property
    def misses(self) -> int:
        """Of all tenants and models."""
        return sum(one.misses for one in self.usage)

    @property
    def hit_rate(self) -> float | None:
        """Of all calls, the share that was answered by the cache; None before the first."""
        return _rate(self.hits, self.misses)

    @property
    def saved(self) -> Money:
        """What all hits would have cost."""
        return Money(sum(one.saved for one in self.usage))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: costs as nano-dollars."""
        plain = {name: getattr(self, name) for name in ("evicted", "failures", "entries", "bytes", "hit_rate")}
        return {**plain, "saved": int(self.saved), "usage": [one.as_dict() for one in self.usage]}


class Counters:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a finalizer may end a call while its thread is in here
        self._rows: dict[tuple[str, str], _Row] = {}
        self.failures = 0

    def hit(self, tenant: str, model: str, level: str, saved: int | None) -> None:
        with self._lock:
            row = self._row(tenant, model)
            row.hits[level] += 1
            row.saved += saved or 0
            row.unpriced += saved is None

    def miss(self, tenant: str, model: str) -> None:
        with self._lock:
            self._row(tenant, model).misses += 1

    def kept(self, tenant: str, model: str) -> None:
        with self._lock:
            self._row(tenant, model).kept += 1

    def refused(self, tenant: str, model: str, why: str) -> None:
        with self._lock:
            self._row(tenant, model).refused[why] += 1

    def failed(self) -> None:
        with self._lock:
            self.failures += 1

    def usage(self) -> tuple[CacheUsage, ...]:
        """By tenant and model."""
        with self._lock:
            return tuple(self._rows[key].usage(*key) for key in sorted(self._rows))

    def _row(self, tenant: str, model: str) -> _Row:
        return self._rows.setdefault((tenant, model), _Row())


@dataclass(slots=True)
class _Row:
    hits: Counter[str] = field(default_factory=Counter)
    misses: int = 0
    saved: int = 0
    unpriced: int = 0
    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def usage(self, tenant: str, model: str) -> CacheUsage:
        hits, refused = dict(sorted(self.hits.items())), dict(sorted(self.refused.items()))
        return CacheUsage(tenant, model, hits, self.misses, Money(self.saved), self.unpriced, self.kept, refused)


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None
