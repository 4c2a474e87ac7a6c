"""The journal of one attempt at a durable run: what earlier attempts finished, and what this one does.

A node's result is found by the node's path and a digest of its inputs; an answer of a model or a tool by its step and a
digest of the request. So nothing depends on the order in which branches happen to run: a result can't be swapped for
that of another branch, and after a change upstream, what has other inputs now is simply not found.

A result that isn't plain data is not kept: the node is run again when the run is resumed, and its calls of models and
tools are answered from here.

The journal also knows when an attempt can't go on without a person: every step that is at work either waits for one or
contains steps that do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import orjson

from escalade.errors import BadInput, OutcomeUnknown
from escalade.events import Event
from escalade.pipelines._timers import Timer, nearest
from escalade.pipelines.durable.store import CallRow, EventRow, Kept, StepRow, TicketRow, Written
from escalade.pipelines.values import Codec, NotPlain
from escalade.registry.idempotency import step_path

_logger = logging.getLogger(__name__)

_GLANCE = 0.5
"""Seconds between looks at a question that another process may have answered, while other branches go on."""
_TICK = 0.001
"""Seconds by which two times that are the same may differ, once they were kept."""
_SETTLING = 0.02
"""Seconds that an attempt must stand still before it counts as waiting: branches begin one after the other."""


class Keeper(Protocol):
    """Where what is finished is written: a `Writer`."""

    @property
    def full(self) -> bool: ...
    def put(self, written: Written) -> None: ...
    def write(self, written: Written | tuple[str, int]) -> None: ...
    async def awrite(self, written: Written | tuple[str, int]) -> None: ...


class Desk(Protocol):
    """Where questions to people are kept."""

    async def open(self, ticket: TicketRow) -> TicketRow: ...
    async def look(self, ticket: str) -> TicketRow | None: ...


class _Active:
    """A step that is at work. `inner`: how many steps in it are."""

    __slots__ = ("inner", "outer")

    def __init__(self, outer: _Active | None) -> None:
        self.outer = outer
        self.inner = 0


_here: ContextVar[_Active | None] = ContextVar("escalade_active", default=None)


class Journal:
    """A `RunJournal`. `kept`: what earlier attempts have finished; `spent`: what they paid for it, nano-dollars.
    `codec`: for results of nodes. `desk`: where questions are kept; `deadline`: of the run, seconds since the epoch.
    `stuck`: set when the attempt can't go on without a person.
    """

    def __init__(
        self,
        run_id: str,
        attempt: int,
        kept: Kept,
        keeper: Keeper,
        codec: Codec,
        desk: Desk,
        deadline: float | None = None,
    ) -> None:
        self._desk, self._deadline = desk, deadline
        self.run_id, self.attempt, self._keeper, self._codec = run_id, attempt, keeper, codec
        self._steps = {row.key: row.value for row in kept.steps}
        self._calls: dict[str, deque[CallRow]] = {}
        for call in kept.calls:
            if call.state != "failed":
                self._calls.setdefault(call.key, deque()).append(call)
        self.spent = sum(call.cost for call in kept.calls)
        self._begun: dict[str, deque[int]] = {}
        self._times: dict[str, int] = {}
        self._n = max([0, *(row.n for row in kept.steps), *(row.n for row in kept.calls)])
        self._events = 0
        self._lock = threading.Lock()
        self._odd: set[str] = set()
        self._busy = 1
        self._due: list[Timer] = []
        self.stuck = asyncio.Event()
        self.tickets: dict[str, asyncio.Future[None]] = {}
        self.reused = 0

    # -- nodes

    async def step(
        self,
        path: list[str | int],
        work: Callable[[], Awaitable[Any]],
        fields: Mapping[str, Any] | None = None,
        reused: Callable[[], object] | None = None,
    ) -> Any:
        """The kept result of the node, or that of `work`."""
        told = orjson.dumps(path).decode()
        key = self._key(told, fields)
        if key is not None and key in self._steps:
            try:
                result = self._codec.loads(self._steps[key])
            except BadInput as error:
                _logger.warning("run %s: node %s is run again: %s", self.run_id, told, error)
            else:
                self.reused += 1
                if reused is not None:
                    reused()
                return result
        with self._at_work():
            result = await work()
        if key is not None:
            await self._finished(key, told, result)
        return result

    def _key(self, path: str, fields: Mapping[str, Any] | None) -> str | None:
        """Path, inputs, and how often this very step was asked for in this attempt; None for inputs that are no data,
        by which the node can't be known again.
        """
        try:
            digest = "" if fields is None else self._codec.digest(dict(fields))
        except NotPlain as error:
            self._warn(path, f"its inputs are {error}")
            return None
        key = f"{path}|{digest}"
        times = self._times[key] = self._times.get(key, 0) + 1
        return key if times == 1 else f"{key}|{times}"

    async def _finished(self, key: str, path: str, result: Any) -> None:
        try:
            value = self._codec.dumps(result)
        except NotPlain as error:
            self._warn(path, f"its result is {error}")
            return
        self._steps[key] = value
        written = self._written(lambda n: StepRow(key, n, path, value))
        if self._keeper.full:
            await self._keeper.awrite(written)
        else:
            self._keeper.put(written)

    def _warn(self, path: str, why: str) -> None:
        if path not in self._odd:
            self._odd.add(path)
            _logger.warning("run %s: node %s is run again when the run is resumed: %s", self.run_id, path, why)

    # -- calls of models and tools

    def find(self, key: str) -> bytes | None:
        """The next finished answer to this call. Raises OutcomeUnknown."""
        with self._lock:
            found = self._calls.get(key)
            if not found:
                return None
            if found[0].state == "done":
                return found.popleft().value
        begun = found[0].state == "begun"
        how = "was begun before the run was interrupted" if begun else "was made, and its result could not be kept"
        raise OutcomeUnknown(
            f"this call of {found[0].resource} {how}; it may have been done and isn't repeated: look, and fork the run"
        )

    def begin(self, key: str, kind: str, resource: str) -> None:
        """Note that a call is about to be made that must not be made twice. Blocks."""
        with self._lock:
            self._n += 1
            n = self._n
            self._begun.setdefault(key, deque()).append(n)
        call = self._call(key, n, kind, resource, b"", 0, "begun")
        self._keeper.write(Written(self.run_id, self.attempt, call))

    def drop(self, key: str) -> None:
        """What was begun has failed. Blocks."""
        n = self._taken(key)
        if n is not None:
            self._keeper.write(Written(self.run_id, self.attempt, self._call(key, n, "", "", b"", 0, "failed")))

    def note(self, key: str, kind: str, resource: str, value: bytes | None, cost: int) -> None:
        """Keep an answer, some time soon: whoever is cancelled meanwhile has noted it all the same."""
        self._keeper.put(self._answered(key, kind, resource, value, cost))

    def saved(self) -> None:
        """Blocks until what was noted is on the disk."""
        self._keeper.write((self.run_id, self.attempt))

    async def asaved(self) -> None:
        """`saved`, without blocking the event loop."""
        await self._keeper.awrite((self.run_id, self.attempt))

    def _answered(self, key: str, kind: str, resource: str, value: bytes | None, cost: int) -> Written:
        n, state = self._taken(key), "done" if value is not None else "odd"
        if n is None:
            return self._written(lambda n: self._call(key, n, kind, resource, value or b"", cost, state))
        return Written(self.run_id, self.attempt, self._call(key, n, kind, resource, value or b"", cost, state))

    def _taken(self, key: str) -> int | None:
        with self._lock:
            begun = self._begun.get(key)
            return begun.popleft() if begun else None

    @staticmethod
    def _call(key: str, n: int, kind: str, resource: str, value: bytes, cost: int, state: str) -> CallRow:
        return CallRow(key, n, key.rpartition("|")[0], kind, resource, value, cost, time.time(), state)

    def _written(self, row: Callable[[int], StepRow | CallRow]) -> Written:
        with self._lock:
            self._n += 1
            return Written(self.run_id, self.attempt, row(self._n))

    # -- events

    def listen(self, event: Event) -> None:
        """Keep an event: a listener of the scope."""
        told = orjson.dumps(event.as_dict(), default=_shown, option=orjson.OPT_NON_STR_KEYS)
        with self._lock:
            self._events += 1
            # Numbered by time, so that those of a later attempt come later.
            n = (self.attempt << 40) + self._events
        self._keeper.put(Written(self.run_id, self.attempt, EventRow(n, told)))

    # -- people

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        outer = _here.get()
        mine = _Active(outer)
        if outer is not None:
            outer.inner += 1
        if outer is None or outer.inner > 1:
            self._busy += 1
        token = _here.set(mine)
        try:
            yield
        finally:
            _here.reset(token)
            if outer is not None:
                outer.inner -= 1
            if outer is None or outer.inner > 0:
                self._more(-1)

    def root(self) -> None:
        """The attempt itself is at work, here."""
        _here.set(_Active(None))

    async def ask(
        self, asked: str, seconds: float | None, opened: Callable[[str], object]
    ) -> tuple[str, str, str] | None:
        """Ask a person, in this step: the ticket, the answer as JSON, and who gave it; None when nobody has within
        `seconds` since it was first asked. `asked`: JSON. `opened`: told of the ticket, if there is no answer yet.

        Where a timer around it would have gone off before, it does so when the run goes on.
        """
        path = orjson.dumps(step_path()).decode()
        ticket = _ticket(self.run_id, path, asked)
        now, loop, timer = time.time(), asyncio.get_running_loop(), nearest()
        ends = self._ends(now, seconds)
        until = ends if timer is None else min(ends, now + timer.at - loop.time())
        future = self.tickets.setdefault(ticket, loop.create_future())
        expires = None if until == math.inf else until
        row = await self._desk.open(TicketRow(ticket, self.run_id, path, asked, now, expires))
        if row.answer is None:
            opened(ticket)
        while row.answer is None and (row.expires is None or row.expires > time.time()):
            row = await self._answered_by_then(row, future)
        if not future.done():
            future.set_result(None)
        if row.answer is None and timer is not None and (row.expires or 0.0) < self._ends(row.created, seconds) - _TICK:
            await self._over(timer)
        return None if row.answer is None else (ticket, row.answer, row.by)

    async def _over(self, timer: Timer) -> None:
        """Until the timer goes off, which cancels this: when all that was finished before has come from here again."""
        self._due.append(timer)
        self._more(-1)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._busy += 1
            with contextlib.suppress(ValueError):
                self._due.remove(timer)

    def _ends(self, now: float, seconds: float | None) -> float:
        """When a question that is asked now has no answer any more, by what is said of itself and of the run."""
        return min(math.inf if at is None else at for at in (seconds and now + seconds, self._deadline))

    async def _answered_by_then(self, row: TicketRow, future: asyncio.Future[None]) -> TicketRow:
        """Wait for an answer, a while: the ticket as it is then."""
        self._more(-1)
        try:
            left = _GLANCE if row.expires is None else max(0.0, min(_GLANCE, row.expires - time.time()))
            await asyncio.wait([future], timeout=left)
        finally:
            self._busy += 1
        found = await self._desk.look(row.ticket)
        return row if found is None else found

    def _more(self, change: int) -> None:
        self._busy += change
        if self._busy == 0:
            asyncio.get_running_loop().call_later(_SETTLING, self._look)

    def _look(self) -> None:
        if self._busy != 0:
            return
        if not self._due:
            self.stuck.set()
        for timer in list(self._due):
            timer.go_off()


def _ticket(run_id: str, path: str, asked: str) -> str:
    """The same for the same question of the same run, in every attempt; nobody guesses it. Letters alone, since
    records are redacted, and digits may be taken for a telephone number.
    """
    digest = hashlib.blake2b(json.dumps([run_id, path, asked]).encode(), digest_size=12).hexdigest()
    return digest.translate(str.maketrans("0123456789", "ghijklmnop"))


def _shown(value: Any) -> Any:
    """What an event shows of a value that isn't JSON."""
    if hasattr(value, "items"):
        return dict(value.items())
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return repr(value)[:1000]
