"""Who waits in a lane, and whose turn is next.

Tenants take turns: next is the one that has had least so far, in requests, or in tokens where the lane counts tokens
(stride scheduling). Within a tenant, first come, first served. Who comes new, or again, begins where the others are:
nobody saves up turns by waiting outside. Batch goes after interactive, and ages: when nine others were let in before
it, the next one is batch's.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

from escalade.agents.lanes.priority import Priority

if TYPE_CHECKING:
    from escalade.agents.lanes.lane import Place

PATIENCE = 9
"""Turns of interactive that batch is passed over."""

_REMEMBERED = 1024
"""Tenants without anybody in line whose share is remembered, before those that have none are forgotten."""


class Line:
    """All who wait. Under the lane's lock."""

    def __init__(self) -> None:
        self._sides: dict[Priority, _Side] = {"interactive": _Side(), "batch": _Side()}
        self._passed = 0
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._sides["interactive"]) + len(self._sides["batch"])

    def add(self, place: Place, *, first: bool = False) -> None:
        """At the end of its tenant's line; `first`: at its head."""
        self._sides[place.priority].add(place, first=first)
        self.tokens += place.tokens

    def remove(self, place: Place) -> None:
        """It leaves the line."""
        self._sides[place.priority].remove(place)
        self.tokens -= place.tokens

    def head(self) -> Place | None:
        """Whose turn it is; the same until somebody is added, removed or let in."""
        first, second = self._order()
        return self._sides[first].head() or self._sides[second].head()

    def let_in(self, place: Place) -> None:
        """The head goes in."""
        self._sides[place.priority].charge(place)
        self.remove(place)
        if place.priority == "batch" or not self._sides["batch"]:
            self._passed = 0
        else:
            self._passed += 1

    def ahead(self, tenant: str, priority: Priority) -> int:
        """How many will go before one that is added now, if nobody else comes: at least about that many."""
        ahead, mine = self._sides[priority].ahead(tenant)
        if priority == "batch":
            ahead += min(len(self._sides["interactive"]), PATIENCE * (mine + 1))
        return ahead

    def _order(self) -> tuple[Priority, Priority]:
        return ("interactive", "batch") if self._passed < PATIENCE else ("batch", "interactive")


class _Side:
    """Those of one priority."""

    def __init__(self) -> None:
        self._lines: dict[str, OrderedDict[Place, None]] = {}
        self._had: dict[str, float] = {}
        self._now = 0.0
        self._next: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, place: Place, *, first: bool) -> None:
        line = self._lines.get(place.tenant)
        if line is None:
            line = self._lines[place.tenant] = OrderedDict()
            self._had[place.tenant] = had = max(self._had.get(place.tenant, 0.0), self._now)
            self._offer(place.tenant, had)
        line[place] = None
        if first:
            line.move_to_end(place, last=False)
        self._size += 1

    def remove(self, place: Place) -> None:
        line = self._lines[place.tenant]
        del line[place]
        self._size -= 1
        if not line:
            del self._lines[place.tenant]
            if len(self._had) > _REMEMBERED + 2 * len(self._lines):
                self._had = {t: had for t, had in self._had.items() if had > self._now or t in self._lines}

    def head(self) -> Place | None:
        while self._next:
            had, _, tenant = self._next[0]
            if tenant in self._lines and self._had[tenant] == had:
                return next(iter(self._lines[tenant]))
            heapq.heappop(self._next)  # that tenant left, or has had more since
        return None

    def charge(self, place: Place) -> None:
        """The head's tenant has had this much more."""
        self._now = self._had[place.tenant]
        self._had[place.tenant] += place.share
        self._offer(place.tenant, self._had[place.tenant])

    def _offer(self, tenant: str, had: float) -> None:
        heapq.heappush(self._next, (had, next(self._numbers), tenant))
        if len(self._next) > _REMEMBERED + 4 * len(self._lines):  # mostly of tenants who came and left
            self._next = [(self._had[who], next(self._numbers), who) for who in self._lines]
            heapq.heapify(self._next)

    def ahead(self, tenant: str) -> tuple[int, int]:
        mine = len(self._lines.get(tenant, ()))
        return mine + sum(min(len(line), mine + 1) for who, line in self._lines.items() if who != tenant), mine
