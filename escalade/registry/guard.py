"""The guard: one door. Every physical use of a tool or a model passes here, and nowhere else.

    open? -> decide (roles) -> check (arguments) -> decide with them, approved? -> limits -> breaker -> reserve
          -> spend the approval -> intent -> DO IT -> settle -> breaker -> outcome

`use` and `ause` are the pair that most callers want; `admit` is the same as a context manager, for streams and for
callers who learn the cost late. `aadmit` is `admit` for coroutines: where the record waits for the disk, it awaits. A
refusal raises a `Refused`, costs nothing and debits nothing: what an earlier gate took is given back. Whatever happens
to an admitted use (success, exception, cancellation), its reservation is settled exactly once, on leaving the `with`.
Money that may be gone is never given back: a use that ended badly settles at its full reservation, unless the caller
knows better and set `cost`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from escalade import events, telemetry
from escalade.errors import (
    CircuitOpen,
    EscaladeError,
    RateLimited,
    Refused,
    StoreUnavailable,
    ToolError,
    ToolFailed,
    ToolTimeout,
    UnknownPrice,
)
from escalade.registry.approvals.gate import Need, denied, look_closer
from escalade.registry.breaker import Breaker, Pass
from escalade.registry.budgets import FREE
from escalade.registry.limits import Limiter, RateLimit, RateLimiter, Taken, Window
from escalade.registry.privacy.outlets import safe_line
from escalade.scopes import NOBODY, AsyncRecorder, Decided, Entry, Hold, Principal, Scope, Ticket, current, require

R = TypeVar("R")
Kind = Literal["tool", "model"]

logger = logging.getLogger(__name__)

_ids = itertools.count(1)
_PREFIX = os.urandom(4).hex()


@dataclass(slots=True, eq=False)
class Resource:
    """Something that is used under control: a tool or a model, in one version.

    `permission`: what a role must grant. `limits`: rate limits, all of them at once. `limits_per`: whether each user
    has his own. `when_store_is_down`: whether to refuse ("closed") or to go on without limits, noted in each entry
    ("open"), when they are in a store that can't be reached. `breaker`: None for resources that can't be down.
    `observe`: told of each use that ended or was refused. `effect`: what a tool does to the world, as policies name it;
    `approval`: when it wants a person's consent; `once`: whether a call may have its answer again; `schema`: of its
    arguments, with a digest.
    """

    name: str
    version: str
    kind: Kind
    permission: str
    limits: tuple[RateLimit, ...] = ()
    limits_per: Literal["resource", "tenant", "user"] = "resource"
    limiter: RateLimiter = field(default_factory=Limiter)
    when_store_is_down: Literal["closed", "open"] = "closed"
    breaker: Breaker | None = None
    observe: Callable[[Entry], None] | None = None
    effect: str = ""
    approval: Need = None
    once: bool = False
    schema: Mapping[str, Any] | None = None
    schema_digest: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name

    def windows(self, scope: Scope) -> tuple[Window, ...]:
        """The windows of its limits that a use in this scope counts in."""
        who = scope.principal
        return tuple(
            (self._counted(limit.per or self.limits_per, who), limit)
            for limit in self.limits
            if not limit.per.startswith("role:") or limit.per[5:] in who.roles
        )

    def _counted(self, per: str, who: Principal) -> str:
        if per in {"resource", "tool"}:
            return self.label
        if per == "user":
            return f"{self.label}|{who.tenant!r}|{who.user!r}"  # quoted: no name can be read as two
        return f"{self.label}|{who.tenant!r}" if per == "tenant" else f"{self.label}|{who.tenant!r}|{per}"


class Admission:
    """One admitted use, as a context manager. Set `cost` as soon as it is known: nano-dollars; below 0, and what is no
    int, count as unknown.

    `blame`: did the resource fail? None leaves it to the kind of the exception. `held`: what was reserved. One that is
    lost before it was entered (Ctrl-C came between) used nothing: collected, it ends as cancelled and costs nothing.
    """

    __slots__ = (
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

    def __enter__(self) -> Admission:
        self._entered = True
        if telemetry.tracer is not None and self.resource.kind == "tool":
            self.span = telemetry.started(self.scope, self.entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._end(error)

    def __del__(self) -> None:
        if getattr(self, "_open", False):  # interrupted while it was made, it has none, and its hold frees itself
            self.cost = self.cost if self._entered else 0
            self._end(asyncio.CancelledError())

    def _take(self, ceiling: int | None, ticket: Ticket | None) -> None:
        """Take what the use needs: room in the limits, leave of the breaker, money, the approval."""
        resource, scope, entry = self.resource, self.scope, self.entry
        try:
            if resource.limits:
                self._taken = _within_limits(resource, scope, entry)
            self._pass = _allowed(resource)
            self._hold = scope.purse.reserve(0 if ceiling is None else ceiling, resource.label)
            entry.held, entry.priced = self._hold.amount, ceiling is not None
            self._spend(ticket)
        except BaseException:
            self._give_back()
            raise

    def _spend(self, ticket: Ticket | None) -> None:
        """Take the approval: all that an answer takes which is there already."""
        if ticket is not None:
            ticket.use()
            self._ticket, self.entry.approval_id = ticket, ticket.request_id

    def _give_back(self) -> None:
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

    def _record(self) -> None:
        """Record the intent. From here on it is a use, and has an end."""
        try:
            self.scope.recorder.intent(self.entry)
        except BaseException as error:
            self._lost(error)
            raise
        self._open, self.started = True, time.perf_counter()

    async def _arecord(self, recorder: AsyncRecorder) -> None:
        """`_record`, without blocking the event loop."""
        try:
            await recorder.aintent(self.entry)
        except BaseException as error:
            self._lost(error)
            raise
        self._open, self.started = True, time.perf_counter()

    def _lost(self, error: BaseException) -> None:
        """There is no record of the intent, or nobody waits for it any more (then it may be on the disk all the same,
        and what came of it has to be there, too).
        """
        self._give_back()
        if not isinstance(error, Exception):
            self.entry.outcome = type(error).__name__
            self.scope.recorder.denied(self.entry)
            if self.resource.observe is not None:
                self.resource.observe(self.entry)

    def _end(self, error: BaseException | None) -> None:
        entry = self.entry
        cost = self.cost if isinstance(self.cost, int) and self.cost >= 0 else self._hold.amount
        self._hold.settle(cost)
        self._open = False
        entry.priced = entry.priced or cost > 0
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


def admit(
    resource: Resource,
    *,
    ceiling: int | Callable[[], int | None] | None,
    scope: Scope | None = None,
    check: Callable[[], object] | None = None,
    shortcut: Callable[[Scope, Entry], str] | None = None,
) -> Admission:
    """Pass all gates and reserve `ceiling` nano-dollars (an upper bound of the price; None when the price is unknown; a
    function that says so, once the arguments are checked).

    `check`: a last look at what is asked for, such as its arguments; it refuses by raising an EscaladeError and may
    return the arguments by name, for policies that look at them. It runs after the roles have decided, so that whoever
    may not use a thing learns nothing about it, and before anything is debited.

    `shortcut`: whether the answer is there already, once it is clear that the call is allowed: where it comes from
    ("cache"), "" if the thing has to be used. Such a use is recorded, and takes nothing but the approval, if it needs
    one.

    Raises NoScope, ScopeClosed, and the Refused of the gate that said no; UnknownPrice for an unpriced resource under a
    budget. Must be used as a context manager.
    """
    scope = _scope_for(resource) if scope is None else scope
    entry = _entry(resource, scope)
    try:
        admission = _through(resource, scope, entry, ceiling, check, shortcut)
        admission._record()
    except EscaladeError as refusal:
        _refused(resource, scope, entry, refusal)
        raise
    return admission


async def aadmit(
    resource: Resource,
    *,
    ceiling: int | Callable[[], int | None] | None,
    scope: Scope | None = None,
    check: Callable[[], object] | None = None,
    shortcut: Callable[[Scope, Entry], str] | None = None,
) -> Admission:
    """`admit` for coroutines; what it returns is used in a `with` as well.

    Waits for the record of the intent without blocking the event loop, where the recorder has an `aintent`. Cancelled
    while it waits, it gives everything back; nothing ran, and the record says so.
    """
    scope = _scope_for(resource) if scope is None else scope
    entry = _entry(resource, scope)
    try:
        admission = _through(resource, scope, entry, ceiling, check, shortcut)
        if hasattr(scope.recorder, "aintent"):
            await admission._arecord(cast("AsyncRecorder", scope.recorder))
        else:
            admission._record()
    except EscaladeError as refusal:
        _refused(resource, scope, entry, refusal)
        raise
    return admission


def _scope_for(resource: Resource) -> Scope:
    """The scope that is open. Without one there is no record, either: the refusal is counted in the usage alone."""
    if resource.observe is not None and current() is None:
        resource.observe(Entry("", "", NOBODY, resource.name, resource.version, resource.kind, outcome="NoScope"))
    return require(f"using {resource.kind} {resource.label!r}")


def _through(
    resource: Resource,
    scope: Scope,
    entry: Entry,
    ceiling: int | Callable[[], int | None] | None,
    check: Callable[[], object] | None,
    shortcut: Callable[[Scope, Entry], str] | None,
) -> Admission:
    """Through all gates; what is left to do is to record the intent."""
    scope.check_open()
    decided = _decide(resource, scope, entry)
    values = None if check is None else check()
    consent = None
    if decided.closer or decided.approval or resource.approval is not None:
        consent = look_closer(resource, scope, entry, decided, values)
    admission = Admission(scope, resource, entry)
    if shortcut is not None:
        entry.source = shortcut(scope, entry)
    ticket = None if consent is None else consent.ticket(entry.source)
    if entry.source:
        admission._spend(ticket)
        return admission
    most = ceiling() if callable(ceiling) else ceiling
    if most is None and scope.purse.limited:
        raise UnknownPrice(
            f"{resource.kind} {resource.label!r} has no known price and the scope has a budget; give it a price "
            f"(an unknown price is never taken for zero), or open the scope without a budget"
        )
    admission._take(most, ticket)
    return admission


def _refused(resource: Resource, scope: Scope, entry: Entry, refusal: EscaladeError) -> None:
    """Record, count and tell that the guard said no."""
    entry.outcome, entry.error = type(refusal).__name__, safe_line(refusal)
    scope.recorder.denied(entry)
    if resource.observe is not None:
        resource.observe(entry)
    if telemetry.tracer is not None and resource.kind == "tool":
        telemetry.refused(scope, entry)
    if scope.listeners:
        _announce_denial(scope, resource, entry)


def use(
    resource: Resource,
    do: Callable[[], R],
    *,
    ceiling: int | None,
    cost: Callable[[R], int | None] | None = None,
    scope: Scope | None = None,
    check: Callable[[], object] | None = None,
) -> R:
    """Do it, under control. `cost(result)`: what it really cost, nano-dollars; None: the ceiling."""
    with admit(resource, ceiling=ceiling, scope=scope, check=check) as admission:
        result = do()
        admission.blame = False  # it worked: an error in working out its cost is not its fault
        if cost is not None:
            admission.cost = cost(result)
        return result


async def ause(
    resource: Resource,
    do: Callable[[], Awaitable[R]],
    *,
    ceiling: int | None,
    cost: Callable[[R], int | None] | None = None,
    scope: Scope | None = None,
    check: Callable[[], object] | None = None,
) -> R:
    """`use` for coroutines."""
    with await aadmit(resource, ceiling=ceiling, scope=scope, check=check) as admission:
        result = await do()
        admission.blame = False
        if cost is not None:
            admission.cost = cost(result)
        return result


def _entry(resource: Resource, scope: Scope) -> Entry:
    return Entry(
        call_id=f"{_PREFIX}-{next(_ids)}",
        run_id=scope.run_id,
        principal=scope.principal,
        resource=resource.name,
        version=resource.version,
        kind=resource.kind,
        started=time.time(),
        side_effects=resource.effect,
        permission=resource.permission,
        schema_digest=resource.schema_digest,
        policy_digest=getattr(scope.access, "digest", ""),
        principals=scope.principals,
    )


def _decide(resource: Resource, scope: Scope, entry: Entry) -> Decided:
    decided = scope.permits(resource.permission, resource.effect)
    entry.rule = decided.rule
    if not decided.allowed or (decided.closer and not _seen(resource, scope)):
        raise denied(resource, scope, decided)
    return decided


def _seen(resource: Resource, scope: Scope) -> bool:
    """Could any arguments be allowed? If not, nobody learns here which ones it takes."""
    return scope.sees(resource.permission, resource.effect, resource.schema)


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
    events.emit(scope, events.Settled, resource=label, cost=entry.cost)


def _announce_denial(scope: Scope, resource: Resource, entry: Entry) -> None:
    """Refused models are told by the gateway, which knows what it does about it."""
    if resource.kind == "tool":
        events.emit(scope, events.ToolDenied, tool=resource.label, rule=entry.rule or entry.error)
