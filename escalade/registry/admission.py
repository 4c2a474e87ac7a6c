"""One admitted use: what it has taken, and that it ends exactly once."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from escalade import events, telemetry
from escalade.errors import (
    CircuitOpen,
    RateLimited,
    Refused,
    ScopeClosed,
    StoreUnavailable,
    ToolError,
    ToolFailed,
    ToolTimeout,
)
from escalade.registry.breaker import Pass
from escalade.registry.budgets import FREE
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.limits import Taken
from escalade.scopes import AsyncRecorder, Entry, Hold, Scope, Ticket

if TYPE_CHECKING:
    from escalade.registry.guard import Resource

logger = logging.getLogger(__name__)


class Admission:
    """One admitted use, as a context manager. Set `cost` as soon as it is known: nano-dollars; below 0, and what is no
    int, count as unknown.

    `blame`: did the resource fail? None leaves it to the kind of the exception. `held`: what was reserved. One that is
    lost before it was entered (Ctrl-C came between) used nothing: collected, it ends as cancelled and costs nothing.

    Coroutines enter it by `async with`, which settles without blocking the event loop where a store is asked for that.
    """

    __slots__ = (
        "__weakref__",
        "_entered",
        "_hold",
        "_open",
        "_pass",
        "_taken",
        "_ticket",
        "blame",
        "cost",
        "entry",
        "resource",
        "scope",
        "span",
        "started",
    )

    def __init__(self, scope: Scope, resource: Resource, entry: Entry) -> None:
        self.scope, self.resource, self.entry = scope, resource, entry
        self._taken: Taken | None = None
        self._pass: Pass | None = None
        self._hold: Hold = FREE
        self._ticket: Ticket | None = None
        self.cost: int | None = None
        self.blame: bool | None = None
        self.span: telemetry.Spanning | None = None
        self.started = 0.0
        self._entered = self._open = False

    @property
    def held(self) -> int:
        return self._hold.amount

    @property
    def remote(self) -> bool:
        """Does it take something from a store that processes share?"""
        return self.resource.remote or is_remote(self.scope.purse)

    @property
    def _due(self) -> int:
        """What it costs, as far as is known."""
        return self.cost if isinstance(self.cost, int) and self.cost >= 0 else self._hold.amount

    def __enter__(self) -> Admission:
        self._entered = True
        if self._open:
            self.scope.uses[id(self)] = weakref.ref(self)
        if self.scope.closed:  # while it was admitted: whoever closed it may not have seen it yet
            self.cost = 0
            self.leave()
            raise ScopeClosed(f"scope {self.scope.shown_id} ended before {self.resource.label} was used")
        if telemetry.switch.tracer is not None:
            self.span = telemetry.started(self.scope, self.entry, self.resource.described)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._end(error)

    async def __aenter__(self) -> Admission:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open and self.remote:
            self._open = False
            try:
                await elsewhere(partial(self._hold.settle, self._due))
            finally:
                self._tell_once(error)
        else:
            self.__exit__(kind, error, trace)

    def leave(self) -> None:
        """Its scope has ended, and a thread is still at it: as far as anybody waits, it was cancelled."""
        if self._open:
            self._end(asyncio.CancelledError())

    def __del__(self) -> None:
        if getattr(self, "_open", False):  # interrupted while it was made, it has none, and its hold frees itself
            self.scope.uses.pop(id(self), None)
            self.cost = self.cost if self._entered else 0
            self._hold.settle(self._due)
            self._open = False
            self._tell(asyncio.CancelledError())

    def take(self, ceiling: int | None, ticket: Ticket | None) -> None:
        """Take what the use needs: room in the limits, leave of the breaker, money, the approval."""
        resource, scope, entry = self.resource, self.scope, self.entry
        try:
            if resource.limits:
                self._taken = _within_limits(resource, scope, entry)
            self._pass = _allowed(resource)
            self._hold = scope.purse.reserve(0 if ceiling is None else ceiling, resource.label)
            entry.held, entry.priced = self._hold.amount, ceiling is not None
            self.spend(ticket)
        except BaseException:
            self.give_back()
            raise

    def spend(self, ticket: Ticket | None) -> None:
        """Take the approval: all that an answer takes which is there already."""
        if ticket is not None:
            ticket.use()
            self._ticket, self.entry.approval_id = ticket, ticket.request_id

    def give_back(self) -> None:
        """It does not happen: give back what was taken, the last first."""
        try:
            if self._ticket is not None:
                self._ticket.give_back()
        finally:
            self._hold.release()
            if self._pass is not None and self.resource.breaker is not None:
                self.resource.breaker.forget(self._pass)
            if self._taken is not None:
                _untake(self.resource, self._taken)

    def record(self) -> None:
        """Record the intent. From here on it is a use, and has an end."""
        try:
            self.scope.recorder.intent(self.entry)
        except BaseException as error:
            self._lost(error)
            raise
        self._open, self.started = True, time.perf_counter()

    async def arecord(self, recorder: AsyncRecorder) -> None:
        """`record`, without blocking the event loop."""
        try:
            await recorder.aintent(self.entry)
        except BaseException as error:
            if self.remote or self._ticket is not None:
                await elsewhere(partial(self._lost, error))
            else:
                self._lost(error)
            raise
        self._open, self.started = True, time.perf_counter()

    def _lost(self, error: BaseException) -> None:
        """There is no record of the intent, or nobody waits for it any more (then it may be on the disk all the same,
        and what came of it has to be there, too).
        """
        self.give_back()
        if not isinstance(error, Exception):
            self.entry.outcome = type(error).__name__
            self.scope.recorder.denied(self.entry)
            if self.resource.observe is not None:
                self.resource.observe(self.entry)

    def _end(self, error: BaseException | None) -> None:
        self._hold.settle(self._due)
        self._open = False
        self._tell_once(error)

    def _tell_once(self, error: BaseException | None) -> None:
        """Who uses it and who closes its scope may both end it, at the same time: the first one tells."""
        if self.scope.uses.pop(id(self), None) is not None:
            self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        """It has ended, and is settled: tell everybody who counts, records or listens."""
        entry, cost = self.entry, self._due
        entry.priced = entry.priced or cost > 0
        if not entry.priced:
            self.scope.note_unpriced()
        entry.seconds = time.perf_counter() - self.started
        entry.cost = cost
        entry.outcome = "ok" if error is None else _outcome(error)
        entry.error = "" if error is None else type(error).__name__
        self._tell_breaker(error)
        if self.span is not None:
            telemetry.ended(self.span, entry)
        self.scope.recorder.outcome(entry)
        if self.resource.observe is not None:
            self.resource.observe(entry)
        if self.scope.listeners:
            _announce(self.scope, entry)

    def say_nothing(self) -> None:
        """How this use ends tells nothing about the resource, whatever its error is."""
        if self.resource.breaker is not None and self._pass is not None:
            self.resource.breaker.forget(self._pass)
            self._pass = None

    def _tell_breaker(self, error: BaseException | None) -> None:
        breaker = self.resource.breaker
        if breaker is None or self._pass is None:
            return
        blame = _blame(error) if self.blame is None else self.blame
        if blame is None:
            breaker.forget(self._pass)
        elif blame:
            breaker.failure(self._pass)
        else:
            breaker.success(self._pass)


def fingerprint(scope: Scope, value: object) -> str:
    """The digest of arguments or of a result, "" where the recorder wants none."""
    recorder: Any = scope.recorder
    return str(recorder.digest(value)) if hasattr(recorder, "digest") else ""


def _within_limits(resource: Resource, scope: Scope, entry: Entry) -> Taken | None:
    try:
        taken = resource.limiter.take_all(resource.windows(scope))
    except StoreUnavailable as error:
        if resource.when_store_is_down == "closed":
            raise
        entry.unchecked = "limits"
        logger.warning("%s %r is used without its rate limits: %s", resource.kind, resource.label, error)
        if scope.listeners:
            events.emit(scope, events.LimitsUnchecked, resource=resource.label, error=str(error))
        return None
    if isinstance(taken, Taken):
        return taken
    limits = ", ".join(map(str, resource.limits))
    raise RateLimited(f"{resource.kind} {resource.label!r} is limited to {limits}; try again in {taken:.3g} s", taken)


def _untake(resource: Resource, taken: Taken) -> None:
    try:
        resource.limiter.give_back(taken)
    except StoreUnavailable as error:  # what is not given back counts until its window has passed
        logger.warning("a use of %s that did not happen still counts: %s", resource.label, error)


def _allowed(resource: Resource) -> Pass | None:
    if resource.breaker is None:
        return None
    allowed = resource.breaker.allow()
    if isinstance(allowed, Pass):
        return allowed
    raise CircuitOpen(
        f"{resource.kind} {resource.label!r} failed too often and is left alone for {allowed:.3g} s more", allowed
    )


def _outcome(error: BaseException) -> str:
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit | KeyboardInterrupt) else "failed"


def _blame(error: BaseException | None) -> bool | None:
    """True: the resource failed. False: it worked. None: it tells nothing (the caller's mistake, or he left)."""
    if error is None:
        return False
    if isinstance(error, ToolTimeout | ToolFailed):
        return True
    if isinstance(error, Refused | ToolError) or not isinstance(error, Exception):
        return None
    return True


def _announce(scope: Scope, entry: Entry) -> None:
    label = f"{entry.resource}@{entry.version}" if entry.version else entry.resource
    if entry.kind == "tool":
        events.emit(scope, events.ToolCalled, tool=label, cost=entry.cost, outcome=entry.outcome)
    events.emit(
        scope,
        events.Settled,
        resource=label,
        cost=entry.cost,
        permission=entry.permission,
        effect=entry.side_effects,
        approved=bool(entry.approval_id),
        kind=entry.kind,
        seconds=entry.seconds,
    )
