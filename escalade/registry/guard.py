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

import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, cast

from escalade import events, telemetry
from escalade.errors import InvalidArguments, UnknownPrice, one_of
from escalade.registry.access.holders import holds
from escalade.registry.admission import Admission, fingerprint
from escalade.registry.approvals.gate import Need, denied, look_closer
from escalade.registry.breaker import Breaker
from escalade.registry.elsewhere import elsewhere, is_remote
from escalade.registry.idempotency import InFlight
from escalade.registry.limits import Limiter, RateLimit, RateLimiter, Window
from escalade.registry.privacy.outlets import safe_line
from escalade.scopes import NOBODY, AsyncRecorder, Decided, Entry, Principal, Scope, current, require

__all__ = ["Admission", "Kind", "Resource", "aadmit", "admit", "ause", "use"]

R = TypeVar("R")
Kind = Literal["tool", "model"]

UNKNOWN_ARGUMENT = "(unknown)"
"""Stands for all names that a schema doesn't have: models make them up, and labels must be bounded."""

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
    arguments, with a digest; `remote`: whether a use asks a store that processes share (its limiter's does).
    `described`: what spans and metrics say of it besides its name.
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
    remote: bool = False
    described: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("limits_per", self.limits_per, ("resource", "tenant", "user"))
        one_of("when_store_is_down", self.when_store_is_down, ("closed", "open"))
        self.remote = self.remote or (bool(self.limits) and is_remote(self.limiter))

    @property
    def label(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name

    def windows(self, scope: Scope) -> tuple[Window, ...]:
        """The windows of its limits that a use in this scope counts in: those of everybody on whose behalf it is, since
        a nested scope narrows and makes nobody's room larger.
        """
        callers = scope.principals or (scope.principal,)
        counted = (
            (self._counted(limit.per or self.limits_per, who), limit)
            for limit in self.limits
            for who in callers
            if not limit.per.startswith("role:") or self._is_for(limit, who, scope)
        )
        return tuple(counted if len(callers) == 1 else dict.fromkeys(counted))

    def _is_for(self, limit: RateLimit, who: Principal, scope: Scope) -> bool:
        return holds(scope.access, who, [limit.per[5:]], f"the limits of {self.kind} {self.label!r}")

    def _counted(self, per: str, who: Principal) -> str:
        if per in {"resource", "tool"}:
            return self.label
        if per == "user":
            return f"{self.label}|{who.tenant!r}|{who.user!r}"  # quoted: no name can be read as two
        return f"{self.label}|{who.tenant!r}" if per == "tenant" else f"{self.label}|{who.tenant!r}|{per}"


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
        admission.record()
    except InFlight:
        raise
    except Exception as refusal:  # a policy or a store that breaks refuses, too
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
    """`admit` for coroutines; what it returns is used in an `async with`.

    The event loop goes on while it waits: for the record of the intent, where the recorder has an `aintent`, and for
    stores that processes share; those are asked in a thread, and `check`, `ceiling` and `shortcut` run there, too.
    Cancelled meanwhile, it gives everything back; nothing ran, and where an intent was recorded, that is as well.
    """
    scope = _scope_for(resource) if scope is None else scope
    entry = _entry(resource, scope)
    try:
        through = partial(_through, resource, scope, entry, ceiling, check, shortcut)
        if resource.remote or is_remote(scope.purse) or _asks_people_elsewhere(resource, scope):
            admission = await elsewhere(through, Admission.give_back)
        else:
            admission = through()
        if hasattr(scope.recorder, "aintent"):
            await admission.arecord(cast("AsyncRecorder", scope.recorder))
        else:
            admission.record()
    except InFlight:
        raise
    except Exception as refusal:
        _refused(resource, scope, entry, refusal)
        raise
    return admission


def _asks_people_elsewhere(resource: Resource, scope: Scope) -> bool:
    return resource.kind == "tool" and is_remote(scope.approvals)


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
    if values is not None:
        entry.args_digest = fingerprint(scope, values)
    consent = None
    if decided.closer or decided.approval or resource.approval is not None:
        consent = look_closer(resource, scope, entry, decided, values)
    admission = Admission(scope, resource, entry)
    if shortcut is not None:
        entry.source = shortcut(scope, entry)
    ticket = None if consent is None else consent.ticket(entry.source)
    if entry.source:
        admission.spend(ticket)
        return admission
    most = ceiling() if callable(ceiling) else ceiling
    if most is None and scope.purse.limited:
        raise UnknownPrice(
            f"{resource.kind} {resource.label!r} has no known price and the scope has a budget; give it a price "
            f"(an unknown price is never taken for zero), or open the scope without a budget"
        )
    admission.take(most, ticket)
    return admission


def _refused(resource: Resource, scope: Scope, entry: Entry, refusal: Exception) -> None:
    """Record, count and tell that the guard said no."""
    entry.outcome, entry.error = type(refusal).__name__, safe_line(refusal)
    if isinstance(refusal, InvalidArguments):
        entry.invalid = refusal.arguments or (UNKNOWN_ARGUMENT,)
    scope.recorder.denied(entry)
    if resource.observe is not None:
        resource.observe(entry)
    if telemetry.switch.tracer is not None:
        telemetry.refused(scope, entry, resource.described)
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
    async with await aadmit(resource, ceiling=ceiling, scope=scope, check=check) as admission:
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


def _announce_denial(scope: Scope, resource: Resource, entry: Entry) -> None:
    """Refused models are told by the gateway, which knows what it does about it."""
    if resource.kind == "tool":
        events.emit(scope, events.ToolDenied, tool=resource.label, rule=entry.rule or entry.error)
