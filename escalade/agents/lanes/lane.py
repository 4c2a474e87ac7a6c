"""A lane: one account at a provider, with the limits that the provider sets it. Models of that account share it.

    openai = Lane("openai", rpm=500, tpm=200_000)
    Gateway([Model("small", "openai/gpt-4o-mini", ..., lane=openai), Model("big", "openai/gpt-4o", ..., lane=openai)])

An attempt takes a place before it passes the guard, so that nobody holds money while he waits. Who doesn't get one at
once waits in line (`_line.py`); who would wait longer than he may is refused at once. A place counts as a start, and as
so many tokens as the attempt is expected to use, from when it is given, then from when the request is sent; it is left
when the attempt has ended. One lane serves threads and tasks of any event loop, in one process; processes that share an
account each need their part of it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from escalade.agents.lanes._clock import Clock, real_clock
from escalade.agents.lanes._line import Line
from escalade.agents.lanes._pace import Pace
from escalade.agents.lanes._windows import MINUTE, Start, Starts, Tokens
from escalade.agents.lanes.priority import Priority
from escalade.errors import BadInput, Overloaded, RateLimited
from escalade.registry.limits import RateLimit, parse_limits

State = Literal["waiting", "in", "left"]


class Place:
    """One attempt's place in a lane, as a context manager that leaves it. Made by `Lane.join`.

    It was no start unless `sent` was called. `answered` and `refused` tell the lane how it ended; `used` how many
    tokens it took, unless it is what was expected.
    """

    __slots__ = ("_ended", "_lane", "_sent", "_used", "_wake", "at", "priority", "start", "state", "tenant", "tokens")

    def __init__(self, lane: Lane, tenant: str, priority: Priority, tokens: int) -> None:
        self._lane, self.tenant, self.priority, self.tokens = lane, tenant, priority, tokens
        self.state: State = "waiting"
        self.at = 0.0
        self.start: Start | None = None
        self._sent = False
        self._used: int | None = None
        self._ended: bool | float | None = None
        self._wake: Callable[[], object] | None = None

    @property
    def share(self) -> float:
        """What it counts in its tenant's share of the lane."""
        return float(self.tokens or 1)

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lane.leave(self)

    def sent(self) -> None:
        """The request is under way."""
        self._sent = True
        if self.start is not None:
            self.start.at = self._lane.now()

    def used(self, tokens: int) -> None:
        """So many tokens."""
        self._used = tokens

    def answered(self) -> None:
        """The provider answered."""
        self._ended = True

    def refused(self, retry_after: float | None) -> None:
        """The provider said 429; `retry_after`: seconds, if it said so."""
        self._ended = retry_after if retry_after is not None else False

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait in this thread until it is one's turn: False when it didn't come within `seconds`."""
        called = threading.Event()
        return self._lane.call(self, called.set) or called.wait(None if seconds == math.inf else max(0.0, seconds))

    async def await_(self, seconds: float = math.inf) -> bool:
        """`wait`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        if self._lane.call(self, lambda: _call(loop, called)):
            return True
        done, _ = await asyncio.wait([called], timeout=None if seconds == math.inf else max(0.0, seconds))
        return bool(done)


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """A lane at one moment. `limit`: attempts that it lets in at once; `paused`: seconds until it goes on; `tokens`:
    that count in this minute.
    """

    running: int
    waiting: int
    limit: int
    paused: float
    tokens: int


class Lane:
    """`rpm`: requests per minute. `tpm`: tokens per minute. `limits`: more limits of starts, such as "5/s" where 60 a
    minute may not come at once. `at_once`: attempts under way, at most; it begins with `start`, adapts to 429s and
    answers, and always lets one in. `max_waiting`: more than so many in line are refused (Overloaded). `patience`:
    seconds that an attempt waits at most, deadlines apart. Raises BadInput.
    """

    def __init__(
        self,
        name: str,
        *,
        rpm: int | None = None,
        tpm: int | None = None,
        limits: str | None = None,
        at_once: int = 512,
        start: int = 32,
        max_waiting: int = 10_000,
        patience: float = math.inf,
        clock: Clock | None = None,
    ) -> None:
        counts = {"rpm": rpm, "tpm": tpm, "at_once": at_once, "start": start, "max_waiting": max_waiting}
        for field, value in counts.items():
            if value is not None and not (isinstance(value, int) and value >= 1):  # a nan is no limit at all
                raise BadInput(f"lane {name!r}: expected {field} of 1 or more, a whole number, got {value!r}")
        if not patience >= 0:
            raise BadInput(f"lane {name!r}: expected a patience of 0 s or more, got {patience}")
        self.name, self.rpm, self.tpm, self.patience, self.max_waiting = name, rpm, tpm, patience, max_waiting
        self._clock = clock or real_clock()
        self._lock, self._busy = threading.RLock(), False
        every = (*(() if rpm is None else (RateLimit(rpm, MINUTE),)), *parse_limits(limits))
        self._starts = [Starts(limit.calls, limit.seconds) for limit in every]
        self._tokens = None if tpm is None else Tokens(tpm)
        self._pace, self._line = Pace(at_once, start), Line()
        self._running, self._seconds, self._alarm = 0, 0.0, math.inf
        self._leaving: deque[Place] = deque()
        said = [*map(str, every), *([] if tpm is None else [f"{tpm:,} tokens/min"])]
        self._limits = ", ".join(said) or "what its provider takes"

    def __deepcopy__(self, memo: dict[int, Any]) -> Lane:
        return self  # copies of a program share it

    def __repr__(self) -> str:
        return f"Lane({self.name!r}, rpm={self.rpm}, tpm={self.tpm})"

    def now(self) -> float:
        """The time of its clock, seconds."""
        return self._clock.now()

    @property
    def paused(self) -> float:
        """Seconds until it goes on after a 429; 0 while it does."""
        return max(0.0, self._pace.paused_until - self._clock.now())

    @property
    def status(self) -> LaneStatus:
        """As it is now."""
        with self._lock:
            now = self._clock.now()
            tokens = 0 if self._tokens is None else self._tokens.used(now)
            return LaneStatus(self._running, len(self._line), self._pace.limit, self.paused, tokens)

    def join(
        self,
        tenant: str = "",
        *,
        priority: Priority = "interactive",
        tokens: int = 0,
        first: bool = False,
        seconds: float = math.inf,
    ) -> Place:
        """A place, or one's place in line: see `Place.state`. To be followed by `leave`, whatever happens.

        `tokens`: that it is expected to use at most. `first`: at the head of its tenant's line, for one that waited
        before. `seconds`: how long it may wait: raises RateLimited when it would take longer, Overloaded when the line
        is full.
        """
        place = Place(self, tenant, priority, tokens if self._tokens is not None else 0)
        self._work(place, min(seconds, self.patience), first=first)
        return place

    def leave(self, place: Place) -> None:
        """Give the place up, in the line or inside. May be called again."""
        self._leaving.append(place)
        self._work()

    def call(self, place: Place, wake: Callable[[], object]) -> bool:
        """Have `wake` called when it is in. True if it is in already."""
        with self._lock:
            place._wake = wake
            return place.state == "in"

    def _work(self, joining: Place | None = None, seconds: float = 0.0, *, first: bool = False) -> None:
        """All that changes a lane. Where a finalizer comes while its thread is in here, its `leave` is only noted."""
        while True:
            with self._lock:
                if self._busy:
                    return
                self._busy = True
                try:
                    now = self._clock.now()
                    self._let_out(now)
                    if joining is not None:
                        self._let_join(joining, now, seconds, first=first)
                        joining = None
                    woken = self._let_in(now)
                finally:
                    self._busy = False
            for wake in woken:
                wake()
            if not self._leaving:
                return

    def _let_join(self, place: Place, now: float, seconds: float, *, first: bool) -> None:
        if len(self._line) >= self.max_waiting:
            wait = self._wait(place, now, first=first)
            raise Overloaded(f"lane {self.name!r}: {len(self._line):,} are waiting, as many as may", wait)
        if seconds != math.inf:
            wait = self._wait(place, now, first=first)
            if wait > seconds:
                raise RateLimited(self._too_long(wait), wait)
        self._line.add(place, first=first)

    def _let_in(self, now: float) -> list[Callable[[], object]]:
        """Those whose turn it is. Returns how to wake them."""
        woken = []
        while (head := self._line.head()) is not None and self._running < self._pace.limit:
            free = self._free_at(now, head.tokens)
            if free > now:
                self._wake_at(free)
                break
            self._line.let_in(head)
            self._running += 1
            head.state, head.at = "in", now
            head.start = start = Start(now, head.tokens)
            for window in self._starts:
                window.take(start)
            if self._tokens is not None:
                self._tokens.take(start)
            if head._wake is not None:
                woken.append(head._wake)
        return woken

    def _let_out(self, now: float) -> None:
        while self._leaving:
            place = self._leaving.popleft()
            if place.state == "waiting":
                self._line.remove(place)
            elif place.state == "in":
                self._ended(place, now)
                self._running -= 1
            place.state, place._wake = "left", None

    def _ended(self, place: Place, now: float) -> None:
        start = place.start
        if not place._sent and start is not None:
            for window in self._starts:
                window.give_back(start)
            place._used = 0
        if start is not None and self._tokens is not None and place._used is not None:
            self._tokens.settle(start, place._used)
        if place._ended is True:
            self._pace.answered(place.at, self._running)
            self._seconds += (now - place.at - self._seconds) / 8
        elif place._ended is not None:
            self._pace.refused(place.at, now, self._running, place._ended if place._ended is not False else None)

    def _free_at(self, now: float, tokens: int, ahead: int = 0, before: int = 0) -> float:
        """When the windows and a pause let one more in, after `ahead` others with `before` tokens."""
        free = max(now, self._pace.paused_until)
        for window in self._starts:
            free = max(free, window.free_at(now, ahead))
        return free if self._tokens is None else max(free, self._tokens.free_at(now, tokens, before))

    def _wait(self, place: Place, now: float, *, first: bool) -> float:
        """Seconds that it would wait as things are, about; answers take as long as they took of late."""
        waiting = len(self._line)
        ahead = 0 if first or not waiting else self._line.ahead(place.tenant, place.priority)
        before = self._line.tokens * ahead // waiting if waiting else 0
        rounds = (self._running + ahead) // self._pace.limit
        return max(self._free_at(now, place.tokens, ahead, before) - now, rounds * self._seconds)

    def _too_long(self, wait: float) -> str:
        waiting = f", and {len(self._line):,} are waiting" if len(self._line) else ""
        return f"lane {self.name!r} is limited to {self._limits}{waiting}; try again in {wait:.3g} s"

    def _wake_at(self, when: float) -> None:
        if when < self._alarm:
            self._alarm = when
            self._clock.call_at(when, self._rung)

    def _rung(self) -> None:
        self._alarm = math.inf
        self._work()


def _call(loop: asyncio.AbstractEventLoop, called: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_done, called)
    except RuntimeError:
        """The loop was closed, and with it whoever waited; his `leave` gives the place to the next one."""


def _done(called: asyncio.Future[None]) -> None:
    if not called.done():
        called.set_result(None)
