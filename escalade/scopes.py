"""Scope: who asks (Principal), how much may be spent (Purse), until when (deadline), where it is recorded.

A scope travels as one object in `dspy.context(escalade=...)`. A bare ContextVar would not do: it doesn't reach the
threads of `dspy.Parallel`, `Module.batch` and `dspy.Evaluate`, while a key of `dspy.context` reaches all of them
by reference (measured on DSPy 3.4.1; `tests/test_scopes.py` keeps it so).

Nested scopes narrow: the tighter budget, the earlier deadline, the smaller set of permissions. Without a scope no
governed call runs. This module stands under the registry; what it needs from there it states as protocols.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast

from escalade import telemetry
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, NoScope, ScopeClosed
from escalade.money import Money

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

KEY = "escalade"
"""The key of `dspy.context` that carries the scope."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a user of a tenant, with roles. `roles` are names that an access policy gives a meaning."""

    user: str = "anonymous"
    tenant: str = "default"
    roles: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        given: Any = self.roles
        object.__setattr__(self, "roles", frozenset({given} if isinstance(given, str) else given))
        if not self.user or not self.tenant or "*" in self.user + self.tenant or "/" in self.tenant:
            raise BadInput(
                f"user {self.user!r} of tenant {self.tenant!r}: names aren't empty and have no '*', a tenant's no '/'"
            )


NOBODY = Principal(user="nobody")
"""Stands where no principal is known."""


class Hold(Protocol):
    """Money set aside for one use. `settle` or `release` ends it, exactly once; later calls change nothing."""

    @property
    def amount(self) -> int: ...
    def settle(self, actual: int) -> None: ...
    def release(self) -> None: ...


class Purse(Protocol):
    """The scope's place in a ledger: an account and all the accounts above it."""

    def reserve(self, amount: int, what: str = "") -> Hold:
        """Set `amount` nano-dollars aside on every level or on none. Raises BudgetExceeded."""
        ...

    def child(
        self, name: str, limit: int | None, *, optional: bool = False, principal: Principal | None = None
    ) -> Purse:
        """A narrower purse, also under the budgets of `principal` and his tenant.

        `optional`: a refusal inside doesn't exhaust the accounts above.
        """
        ...

    def exhaust(self, refusal: BudgetExceeded) -> None:
        """Make a refusal stick here, as if a reservation had been refused: something gave up for want of money."""
        ...

    def left(self) -> int | None:
        """Nano-dollars that the tightest level still has, None without any limit."""
        ...

    @property
    def braked(self) -> bool:
        """Some level is past its brake (95 %): finish cheaply, don't escalate."""
        ...

    @property
    def spent(self) -> int:
        """Nano-dollars settled on this account."""
        ...

    @property
    def held(self) -> int:
        """Nano-dollars set aside and not settled yet on this account."""
        ...

    @property
    def limited(self) -> bool:
        """Is there a limit on any level?"""
        ...

    @property
    def exhausted(self) -> BudgetExceeded | None:
        """The first refusal here or below, which stays (DSPy swallows the exception itself)."""
        ...


@dataclass(frozen=True, slots=True)
class Decided:
    """What an access policy said: `allowed`, and the `rule` that decided, for people and the audit.

    `closer`: it depends on the arguments: allowed here means that some call is, and `decide_call` has the last word.
    `approval`: allowed once a person has approved this very call.
    """

    allowed: bool
    rule: str
    closer: bool = field(default=False, repr=False)
    approval: bool = field(default=False, repr=False)


class Access(Protocol):
    """Who may do what. Deny by default. `effect`: what a tool does to the world ("read", "write", "irreversible"), ""
    for anything else.

    A policy may also have a `digest`, which is recorded with each use.
    """

    def decide(self, principal: Principal, permission: str, effect: str = "") -> Decided:
        """May the principal do this, with some arguments or other?"""
        ...

    def check_roles(self, roles: frozenset[str]) -> None:
        """Raises UnknownName for a role that does not exist."""
        ...


class CallAccess(Access, Protocol):
    """A policy that looks at arguments. Whoever answers `closer` has these two methods besides."""

    def decide_call(self, principal: Principal, permission: str, effect: str, args: Mapping[str, Any]) -> Decided:
        """May the principal do this with these (validated) arguments?"""
        ...

    def decide_any(
        self, principals: tuple[Principal, ...], permission: str, effect: str, schema: Mapping[str, Any] | None
    ) -> bool:
        """Are there arguments that fit the schema and with which all principals may do this? May say yes in doubt."""
        ...


class Desk(Protocol):
    """Where calls wait for a person's approval: `registry/approvals`."""

    @property
    def waits(self) -> bool:
        """Does a call wait for the decision, or does it end with ApprovalRequired?"""
        ...

    def ticket(self, asked: Any) -> Ticket:
        """The approval of exactly this call. Raises ApprovalRequired (and opens a request), ApprovalDenied."""
        ...

    def given(self, asked: Any) -> bool:
        """Was exactly this call approved, be it that the approval was spent since? Opens no request."""
        ...

    def spent(self, asked: Any) -> Ticket | None:
        """The approval that exactly this call has spent: takes no other one, and is good for that answer alone."""
        ...

    def wait(self, request_id: str, seconds: float) -> bool:
        """Wait for a decision; False when none came before the request expired."""
        ...

    async def await_(self, request_id: str, seconds: float) -> bool:
        """`wait`, without blocking the event loop."""
        ...


class Ticket(Protocol):
    """An approval of one call. Of all who hold it, one may use it."""

    @property
    def request_id(self) -> str: ...
    def use(self) -> None:
        """Spend it. Raises ApprovalRequired when somebody else was faster, or it has expired."""
        ...

    def give_back(self) -> None:
        """Nothing ran after all."""
        ...


class Recorder(Protocol):
    """Where each use is recorded: an intent before it, an outcome after it, a denial instead of both."""

    def intent(self, entry: Entry) -> None: ...
    def outcome(self, entry: Entry) -> None: ...
    def denied(self, entry: Entry) -> None: ...


class DigestingRecorder(Recorder, Protocol):
    """A recorder that wants digests of a tool's arguments and result in its entries, and says what a digest is."""

    def digest(self, value: Any) -> str: ...


class AsyncRecorder(Recorder, Protocol):
    """A recorder whose `intent` may take a while: coroutines await this one instead, where there is one."""

    async def aintent(self, entry: Entry) -> None: ...


@dataclass(slots=True)
class Entry:
    """One physical use of a resource, as recorded.

    `held` and `cost`: nano-dollars. `started`: wall clock, seconds. `seconds`: duration. `outcome`: "" while it runs,
    then ok, failed, cancelled, or the class name of the refusal. `priced`: False when neither a price nor a bill was
    known: its `cost` of 0 means unknown. What follows is for the audit, "" where nobody filled it in: `side_effects`
    of a tool (read, write, irreversible); the permission that was asked for; digests that stand for schema, arguments,
    result and policy (never the things themselves); `approval_id`; `redactions`: how often which kind was redacted;
    `principals`: all who had to be allowed. `unchecked`: "limits" when their store was down and the resource stays
    open then. `source`: where the answer came from when nothing ran: cache, once, replay, dry-run.
    """

    call_id: str
    run_id: str
    principal: Principal
    resource: str
    version: str
    kind: str
    rule: str = ""
    held: int = 0
    cost: int = 0
    started: float = 0.0
    seconds: float = 0.0
    outcome: str = ""
    error: str = ""
    priced: bool = True
    side_effects: str = ""
    permission: str = ""
    schema_digest: str = ""
    args_digest: str = ""
    result_digest: str = ""
    policy_digest: str = ""
    approval_id: str = ""
    redactions: dict[str, int] = field(default_factory=dict)
    principals: tuple[Principal, ...] = ()
    unchecked: str = ""
    source: str = ""


@dataclass(slots=True)
class _Life:
    """The mutable part of a scope, shared by its copies."""

    closed: bool = False
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a governed call needs to know. Made by `escalade.scope(...)`, never by hand in applications.

    `principals`: everybody on whose behalf this runs, outermost first: all of them must be allowed, so that a nested
    scope can only narrow. `deadline`: `time.monotonic()` seconds, inf for none. `span`: of the run, while `telemetry`
    is on. `listeners`: are called with each pipeline event, in order. `approvals`: where people approve calls that need
    it; None refuses those. `once`: what was decided once for the whole run, such as the versions that ranges mean; None
    in the configured scope, which is no run but what runs start from. `mode`: what tools do (see `registry/modes.py`);
    `cassette`: what they are recorded to, or replayed from.
    """

    principals: tuple[Principal, ...]
    purse: Purse
    access: Access
    recorder: Recorder
    deadline: float = math.inf
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    span: Any = None
    listeners: tuple[Callable[[Any], None], ...] = ()
    parent: Scope | None = None
    approvals: Desk | None = None
    once: dict[Any, Any] | None = None
    mode: str = "live"
    cassette: Any = None
    _life: _Life = field(default_factory=_Life, repr=False)

    @property
    def principal(self) -> Principal:
        """The innermost principal; nobody, who may do nothing, where an application has not said yet."""
        return self.principals[-1] if self.principals else NOBODY

    @property
    def shown_id(self) -> str:
        """`run_id` as errors and spans have it: applications choose it, and may put personal data there."""
        return telemetry.switch.shown(self.run_id)

    @property
    def closed(self) -> bool:
        scope: Scope | None = self
        while scope is not None:
            if scope._life.closed:
                return True
            scope = scope.parent
        return False

    def time_left(self) -> float:
        """Seconds until the deadline, inf without one, 0 or less when it has passed."""
        return self.deadline - time.monotonic() if self.deadline != math.inf else math.inf

    def check_open(self) -> None:
        """Raises ScopeClosed or DeadlineExceeded."""
        if self.closed:
            raise ScopeClosed(f"scope {self.shown_id} has ended; its threads and tasks may not call any more")
        if self.time_left() <= 0:
            raise DeadlineExceeded(f"the deadline of scope {self.shown_id} has passed")

    def permits(self, permission: str, effect: str = "", args: Mapping[str, Any] | None = None) -> Decided:
        """Does every principal have the permission? The first refusal decides. `args`: of a call, as validated; without
        them the question is whether some call could be allowed.
        """
        decided = Decided(False, "no principal: open a nested scope with principal=...")
        closer = approval = False
        for principal in self.principals:
            if args is None:
                decided = self.access.decide(principal, permission, effect)
            else:
                decided = cast("CallAccess", self.access).decide_call(principal, permission, effect, args)
            if not decided.allowed:
                return decided
            closer, approval = closer or decided.closer, approval or decided.approval
        if (closer, approval) != (decided.closer, decided.approval):
            decided = replace(decided, closer=closer, approval=approval)
        return decided

    def sees(
        self,
        permission: str,
        effect: str = "",
        schema: Mapping[str, Any] | None = None,
        *,
        principal: Principal | None = None,
    ) -> bool:
        """Is there a call that is allowed? What one may never call one neither sees nor finds. `schema`: of the
        arguments; `principal`: asked besides, as in a scope nested for him.
        """
        callers = self.principals if principal is None else (*self.principals, principal)
        decisions = [self.access.decide(caller, permission, effect) for caller in callers]
        if not decisions or not all(decided.allowed for decided in decisions):
            return False
        if not any(decided.closer for decided in decisions):
            return True
        return cast("CallAccess", self.access).decide_any(callers, permission, effect, schema)

    def narrow(
        self,
        *,
        name: str = "nested",
        budget: Money | int | None = None,
        deadline: float | None = None,
        principal: Principal | None = None,
        optional: bool = False,
        listeners: tuple[Callable[[Any], None], ...] = (),
    ) -> Scope:
        """A scope inside this one. `budget`: nano-dollars; `deadline`: seconds from now; both can only tighten.

        `optional`: what is refused inside doesn't exhaust this scope, for steps that one can do without.
        """
        until = self.deadline if deadline is None else min(self.deadline, time.monotonic() + deadline)
        if principal is not None:
            self.access.check_roles(principal.roles)
        return replace(
            self,
            principals=self.principals if principal is None else (*self.principals, principal),
            purse=self.purse.child(
                name, None if budget is None else int(budget), optional=optional, principal=principal
            ),
            deadline=until,
            listeners=(*self.listeners, *listeners),
            parent=self,
            once={} if self.once is None else self.once,
            _life=_Life(),
        )

    def note_truncated(self) -> None:
        """An answer was cut off at its token limit; counted here and in all outer scopes."""
        scope: Scope | None = self
        while scope is not None:
            scope._life.truncated += 1
            scope = scope.parent

    @property
    def truncated(self) -> int:
        """Answers cut off at their token limit so far."""
        return self._life.truncated

    def with_span(self, span: Any) -> Scope:
        """The same scope under another parent span."""
        return replace(self, span=span)

    @property
    def spent(self) -> Money:
        """What was settled in this scope so far."""
        return Money(self.purse.spent)

    @property
    def left(self) -> Money | None:
        """What the tightest budget still has, None without any."""
        left = self.purse.left()
        return None if left is None else Money(left)


class Entered:
    """`with`/`async with` around a scope: carries it in `dspy.context`, closes it, and raises what DSPy swallowed.

    Left without an exception while its budget is exhausted, it raises the BudgetExceeded that exhausted it.
    `check=False` leaves that to the caller. One may be entered again and again, also by several threads or tasks at
    once: each gets a scope of its own. `amake`: makes it for `async with`, where `make` may keep its caller waiting.
    """

    def __init__(
        self, make: Callable[[], Scope], *, check: bool = True, amake: Callable[[], Awaitable[Scope]] | None = None
    ) -> None:
        self._make, self._check, self._amake = make, check, amake
        self._open: dict[int, tuple[Scope, Any]] = {}

    def __enter__(self) -> Scope:
        return self._entered(self._make())

    def _entered(self, scope: Scope) -> Scope:
        import dspy

        if telemetry.switch.tracer is not None:
            scope = telemetry.opened(scope)
        context = dspy.context(**{KEY: scope})
        context.__enter__()
        self._open[id(scope)] = scope, context
        return scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import dspy

        mine = id(dspy.settings.get(KEY))
        scope, context = self._open.pop(mine) if mine in self._open else self._open.popitem()[1]
        context.__exit__(kind, error, trace)
        scope._life.closed = True
        telemetry.closed(scope, error)
        if error is None and self._check:
            raise_exhausted(scope)

    async def __aenter__(self) -> Scope:
        return self._entered(self._make() if self._amake is None else await self._amake())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def raise_exhausted(scope: Scope) -> None:
    """Raise the refusal that exhausted this scope's budget, if there was one."""
    refusal = scope.purse.exhausted
    if refusal is not None:
        raise refusal.again()


_default: Scope | None = None


def set_default(scope: Scope | None) -> None:
    """The scope that holds where none was opened; None for none."""
    global _default  # noqa: PLW0603 - one per process, by definition
    _default = scope


def current() -> Scope | None:
    """The scope of this task or thread, the default one where none was opened, else None."""
    import dspy

    scope: Scope | None = dspy.settings.get(KEY)
    return _default if scope is None else scope


def require(what: str = "a governed call") -> Scope:
    """`current()`. Raises NoScope where there is none."""
    scope = current()
    if scope is None:
        raise NoScope(what)
    return scope
