"""Scope: who asks (Principal), how much may be spent (Purse), until when (deadline), where it is recorded.

A scope travels as one object in `dspy.context(escalade=...)`. A bare ContextVar would not do: it doesn't reach the
threads of `dspy.Parallel`, `Module.batch` and `dspy.Evaluate`, while a key of `dspy.context` reaches all of them
by reference (measured on DSPy 3.4.1; `tests/test_scopes.py` keeps it so).

Nested scopes narrow: the tighter budget, the earlier deadline, the smaller set of permissions. Without a scope no
governed call runs. This module stands under the registry; what it needs from there is in `protocols.py`, whose names
can be imported from here.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from weakref import ReferenceType

from escalade import telemetry
from escalade.errors import BadInput, DeadlineExceeded, NoScope, ScopeClosed
from escalade.money import Money
from escalade.protocols import (
    NOBODY,
    Access,
    AsyncRecorder,
    CallAccess,
    Decided,
    Desk,
    DigestingRecorder,
    Entry,
    Hold,
    Principal,
    Purse,
    Recorder,
    RunJournal,
    Ticket,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "KEY",
    "NOBODY",
    "Access",
    "AsyncRecorder",
    "CallAccess",
    "Decided",
    "Desk",
    "DigestingRecorder",
    "Entered",
    "Entry",
    "Hold",
    "Principal",
    "Purse",
    "Recorder",
    "RunJournal",
    "Scope",
    "Ticket",
    "current",
    "raise_exhausted",
    "require",
    "runs",
    "set_default",
    "set_runs",
]

KEY = "escalade"
"""The key of `dspy.context` that carries the scope."""


@dataclass(slots=True)
class _Life:
    """The mutable part of a scope, shared by its copies."""

    closed: bool = False
    truncated: int = 0
    partial: int = 0
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a governed call needs to know. Made by `escalade.scope(...)`, never by hand in applications.

    `principals`: everybody on whose behalf this runs, outermost first: all of them must be allowed, so that a nested
    scope can only narrow. `deadline`: `time.monotonic()` seconds, inf for none. `span`: of the run, while `telemetry`
    is on. `listeners`: are called with each pipeline event, in order. `approvals`: where people approve calls that need
    it; None refuses those. `uses`: what is in use in all of its run, weakly held, by id; each knows its own scope.
    `once`: what was decided once for the whole run, such as the versions that ranges mean; None in the configured
    scope, which is no run but what runs start from. `mode`: what tools do (see `registry/modes.py`); `cassette`: what
    they are recorded to, or replayed from. `journal`: what a durable run has finished.
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
    journal: RunJournal | None = None
    uses: dict[int, ReferenceType[Any]] = field(default_factory=dict, repr=False, compare=False)
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

    def close(self) -> None:
        """It has ended: nobody calls any more in it. What a thread still uses, which nobody can stop, is settled at
        what was reserved for it, as after a deadline: what it really cost would come when nobody looks any more.
        """
        self._life.closed = True
        if self.purse.held:
            for use in [reference() for reference in self.uses.copy().values()]:
                if use is not None and self._contains(use.scope):
                    use.leave()

    def _contains(self, scope: Scope | None) -> bool:
        while scope is not None and scope._life is not self._life:
            scope = scope.parent
        return scope is not None

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

    def note_partial(self) -> None:
        """A result is less than it could be: a branch is missing, a step was left out, a fallback stood in; counted
        here and in all outer scopes.
        """
        scope: Scope | None = self
        while scope is not None:
            scope._life.partial += 1
            scope = scope.parent

    @property
    def partial(self) -> int:
        """Results so far that are less than they could be."""
        return self._life.partial

    @property
    def truncated(self) -> int:
        """Answers cut off at their token limit so far."""
        return self._life.truncated

    def note_unpriced(self) -> None:
        """Something was used whose price nobody knows; counted here and in all outer scopes."""
        scope: Scope | None = self
        while scope is not None:
            scope._life.unpriced += 1
            scope = scope.parent

    @property
    def unpriced(self) -> int:
        """Uses so far of which neither a price nor a bill is known: with one of them, `spent` isn't all of it."""
        return self._life.unpriced

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
        scope.close()
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


_runs: Any = None


def set_runs(runs: Any) -> None:
    """The durable runs that `pipeline.start(...)` means."""
    global _runs  # noqa: PLW0603 - one per process, by definition
    _runs = runs


def runs() -> Any:
    """The configured `Runs`. Raises BadInput where there are none."""
    if _runs is None:
        raise BadInput(
            "starting a durable run needs Runs that know the pipeline: "
            'escalade.configure(runs=Runs("sqlite:///runs.sqlite", pipelines={"report": report}))'
        )
    return _runs


def configured() -> Scope | None:
    """The default scope, if there is one."""
    return _default


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
