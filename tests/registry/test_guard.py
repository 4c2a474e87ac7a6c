"""The guard: each gate refuses before anything is debited; whatever ends a use settles it exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

import escalade
from escalade import events
from escalade.errors import (
    BudgetExceeded,
    CircuitOpen,
    DeadlineExceeded,
    InvalidArguments,
    NoScope,
    PermissionDenied,
    RateLimited,
    ScopeClosed,
    ToolError,
    UnknownPrice,
)
from escalade.registry.breaker import Breaker
from escalade.registry.guard import Resource, admit, ause, use
from escalade.registry.journal import Journal
from escalade.registry.ledger import Ledger
from escalade.registry.limits import Limiter, parse_limits
from escalade.scopes import Entry, Hold, Principal, Scope
from tests.registry.helpers import Clock

ENDINGS = [ValueError, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, SystemExit]


class Setup:
    """A resource with every gate, on a clock, in a scope with 100 nano-dollars, and a body that counts."""

    def __init__(self, **changed: Any) -> None:
        self.clock, self.journal, self.observed, self.ran = Clock(), Journal(), list[Entry](), 0
        self.limiter, self.breaker = Limiter(self.clock), Breaker(failures=1, now=self.clock)
        self.resource = Resource(
            "t", "1.0.0", "tool", "t:call",
            limits=parse_limits("3/s, 5/min"), limiter=self.limiter, breaker=self.breaker, observe=self.observed.append,
        )  # fmt: skip
        self.ledger = Ledger()
        self.options = {
            "budget": escalade.Money(100),
            "principal": Principal("ana", roles=frozenset({"user"})),
            "access": escalade.Roles({"user": ["t:call"]}),
            "ledger": self.ledger,
            "recorder": self.journal,
        } | changed

    def scope(self) -> Any:
        return escalade.scope(**self.options)

    def body(self) -> str:
        self.ran += 1
        return "done"

    def taken(self) -> int:
        """Uses that count against the rate limits."""
        return max((len(window) for window in self.limiter._uses.values()), default=0)


class Counting:
    """A purse that hands out holds which count how often they were ended."""

    def __init__(self, purse: Any) -> None:
        self._purse, self.settled = purse, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._purse, name)

    def reserve(self, amount: int, what: str = "") -> Hold:
        hold = self._purse.reserve(amount, what)

        return _Counted(hold, self.settled)


class _Counted:
    def __init__(self, hold: Hold, settled: list[int]) -> None:
        self._hold, self.amount, self._settled = hold, hold.amount, settled

    def settle(self, actual: int) -> None:
        self._settled.append(actual)
        self._hold.settle(actual)

    def release(self) -> None:
        self.settle(0)


def counted(scope: Scope) -> tuple[Scope, Counting]:
    """The scope with a purse that counts."""
    counting = Counting(scope.purse)
    return replace(scope, purse=counting), counting


def test_an_admitted_use_passes_all_gates() -> None:
    """It runs, is settled, counted against the limits, told to the breaker, recorded and observed."""
    setup = Setup()
    with setup.scope() as scope:
        assert use(setup.resource, setup.body, ceiling=60, cost=len) == "done"
        assert (scope.spent, scope.purse.held, setup.taken(), setup.breaker.state) == (4, 0, 1, "closed")
    (entry,) = setup.journal.entries()
    assert setup.observed == [entry]
    assert (entry.rule, entry.cost, entry.outcome) == ("role 'user' grants 't:call'", 4, "ok")


GATES: list[tuple[str, type[Exception], Callable[[Setup, Scope], None]]] = [
    ("closed", ScopeClosed, lambda setup, scope: setattr(scope._life, "closed", True)),
    ("roles", PermissionDenied, lambda setup, scope: setattr(setup.resource, "permission", "t:other")),
    ("limits", RateLimited, lambda setup, scope: [setup.limiter.take("t@1.0.0", setup.resource.limits) for _ in "123"]),
    ("breaker", CircuitOpen, lambda setup, scope: setup.breaker.failure(setup.breaker.allow())),
    ("budget", BudgetExceeded, lambda setup, scope: setattr(setup, "other", scope.purse.reserve(70))),
]


@pytest.mark.parametrize(("gate", "error", "prepare"), GATES, ids=[gate for gate, *_ in GATES])
def test_each_gate_refuses_without_debiting_anything(gate: str, error: type[Exception], prepare: Any) -> None:
    """Whichever gate says no: the body doesn't run, no money is held or spent, no limit is used up, no probe is
    taken; and
    the denial is recorded and observed once.
    """
    setup = Setup()
    with pytest.raises(error), setup.scope() as scope:
        prepare(setup, scope)
        before = (scope.spent, scope.purse.held, setup.taken())
        with pytest.raises(error):
            use(setup.resource, setup.body, ceiling=60)
        assert (scope.spent, scope.purse.held, setup.taken()) == before
        assert setup.journal.running() == setup.journal.entries() == []
        (denial,) = setup.journal.denials()
        assert denial.outcome == error.__name__
        assert setup.observed == [denial]
        raise error("as it may leave the scope")
    assert setup.ran == 0


def test_a_refusal_gives_the_probe_back() -> None:
    """A probe whose use is refused for money afterwards is not lost: the next use may be the probe."""
    setup = Setup()
    with pytest.raises(BudgetExceeded), setup.scope() as scope:
        setup.breaker.failure(setup.breaker.allow())
        setup.clock.forward(30)
        with pytest.raises(BudgetExceeded), escalade.scope(budget="0.00000001", optional=True):
            use(setup.resource, setup.body, ceiling=60)
        assert setup.breaker.state == "half-open"
        assert use(setup.resource, setup.body, ceiling=60) == "done"
        assert setup.breaker.state == "closed"
        assert scope.spent == 60
        use(setup.resource, setup.body, ceiling=60)


def test_a_full_limit_says_when_to_come_back() -> None:
    """RateLimited and CircuitOpen carry `retry_after`, in seconds, and name the limits."""
    setup = Setup()
    with setup.scope():
        for _ in range(3):
            use(setup.resource, setup.body, ceiling=0)
        with pytest.raises(RateLimited, match=r"tool 't@1.0.0' is limited to 3/s, 5/min; try again in 1 s") as limited:
            use(setup.resource, setup.body, ceiling=0)
        setup.clock.forward(1)
        setup.breaker.failure(setup.breaker.allow())
        with pytest.raises(CircuitOpen) as open_:
            use(setup.resource, setup.body, ceiling=0)
    assert (limited.value.retry_after, open_.value.retry_after) == (1.0, 30.0)


@pytest.mark.parametrize(
    ("per", "shared"), [("resource", {"ana", "bo", "cy"}), ("tenant", {"ana", "bo"}), ("user", {"ana"})]
)
def test_limits_per_user_or_tenant(per: Any, shared: set[str]) -> None:
    """A limit counts for everybody together, for each tenant, or for each user of it."""
    resource = Resource("t", "1", "tool", "t:call", limits=parse_limits("1/h"), limits_per=per)
    access = escalade.Roles({"user": ["*"]})
    refused = set()
    for user, tenant in [("ana", "acme"), ("ana", "acme"), ("bo", "acme"), ("cy", "other")]:
        who = Principal(user, tenant, frozenset({"user"}))
        with escalade.scope(principal=who, access=access):
            try:
                use(resource, int, ceiling=0)
            except RateLimited:
                refused.add(user)
    assert refused == shared


def test_limits_of_names_that_look_alike() -> None:
    """A user can't use up the limit of somebody else by the name that he chose."""
    resource = Resource("t", "1", "tool", "t:call", limits=parse_limits("1/h"), limits_per="user")
    access = escalade.Roles({"user": ["*"]})
    for user, tenant in [("c", "a|b"), ("b|c", "a"), ("c'|'d", "a"), ("d", "a'|'c")]:
        with escalade.scope(principal=Principal(user, tenant, frozenset({"user"})), access=access):
            use(resource, int, ceiling=0)


@pytest.mark.parametrize("limits", ["1/h", {"role:intern": "1/h"}, {"user": "1/h"}])
def test_limits_of_everybody_on_whose_behalf_it_is(limits: Any) -> None:
    """Nobody gets room in a limit per user or role by a nested scope in another name: each use counts for all of them,
    and once.
    """
    resource = Resource("t", "1", "tool", "t:call", limits=parse_limits(limits), limits_per="user")
    access = escalade.Roles({"intern": ["*"], "helper": ["*"]})
    ran = 0
    with escalade.scope(principal=Principal("ana", "acme", frozenset({"intern"})), access=access):
        for user in ("ana", "bo", "cy"):
            with escalade.scope(principal=Principal(user, "acme", frozenset({"helper"}))):
                with contextlib.suppress(RateLimited):
                    ran += use(resource, lambda: 1, ceiling=0)
    assert ran == 1


def test_limits_of_roles_that_others_inherit() -> None:
    """A limit of a role holds for whoever has it by inheritance, at any depth, too; and for nobody else."""
    resource = Resource("t", "1", "tool", "t:call", limits=parse_limits({"role:seller": "2/min"}))
    access = escalade.Roles(
        {"seller": ["*"], "lead": {"inherits": ["seller"]}, "boss": {"inherits": ["lead"]}, "other": ["*"]}
    )
    ran = dict.fromkeys(("boss", "lead", "seller", "other"), 0)
    for role in ran:
        with escalade.scope(principal=Principal(role, f"of {role}", frozenset({role})), access=access):
            for _ in range(4):
                with contextlib.suppress(RateLimited):
                    ran[role] += use(resource, lambda: 1, ceiling=0)
    assert ran == {"boss": 2, "lead": 2, "seller": 2, "other": 4}


def test_limits_of_everybody_by_the_role_that_everybody_has() -> None:
    """The role "*" is everybody's, with what it inherits."""
    access = escalade.Roles({"seller": ["*"], "*": {"inherits": ["seller"]}, "a": []})
    assert access.roles_of(Principal(roles=frozenset({"a"}))) == {"a", "*", "seller"}


def test_limits_of_a_role_that_there_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """A limit that names a role which the policy doesn't know would never hold: that is told, once, with what it could
    mean. A script without a policy has no roles, and hears nothing.
    """
    resource = Resource("t.x", "1", "tool", "t:call", limits=parse_limits({"role:sellre": "2/min"}))
    with escalade.scope():
        use(resource, int, ceiling=0)
    assert caplog.messages == []
    access = escalade.Roles({"seller": ["*"]})
    with escalade.scope(principal=Principal(roles=frozenset({"seller"})), access=access):
        for _ in range(3):
            use(resource, int, ceiling=0)
    (told,) = caplog.messages
    assert told.startswith("the limits of tool 't.x@1': nobody has the role that is named there: ")
    assert "'sellre'; did you mean 'seller'?" in told


def test_a_deadline_that_passed() -> None:
    """When the scope's time is up, nothing begins any more."""
    setup = Setup(deadline=0.001)
    with setup.scope() as scope:
        while scope.time_left() > 0:
            pass
        with pytest.raises(DeadlineExceeded):
            use(setup.resource, setup.body, ceiling=0)
    assert setup.ran == 0


def test_no_scope_no_call() -> None:
    """Outside of any scope nothing runs, and the error says how to open one."""
    setup = Setup()
    with pytest.raises(NoScope, match=r"using tool 't@1.0.0' needs a scope: wrap it in `with escalade.scope"):
        use(setup.resource, setup.body, ceiling=0)
    assert setup.ran == 0


def test_an_unknown_price_is_refused_under_a_budget_only() -> None:
    """Unknown is never zero: without a budget it may run, under one it may not."""
    setup = Setup()
    with setup.scope(), pytest.raises(UnknownPrice, match="give it a price"):
        use(setup.resource, setup.body, ceiling=None)
    assert (setup.ran, setup.taken()) == (0, 0)
    unlimited = Setup(budget=None)
    with unlimited.scope():
        assert use(unlimited.resource, unlimited.body, ceiling=None) == "done"


def test_arguments_are_checked_after_the_roles_and_before_the_limits() -> None:
    """Who may not use a thing doesn't learn what it takes; wrong arguments use up no limit and no money."""
    setup = Setup()

    def check() -> None:
        raise InvalidArguments("argument 'x' is missing")

    with setup.scope() as scope:
        with pytest.raises(InvalidArguments):
            use(setup.resource, setup.body, ceiling=60, check=check)
        assert (setup.taken(), scope.spent, setup.breaker.state) == (0, 0, "closed")
        setup.resource.permission = "t:other"
        with pytest.raises(PermissionDenied):
            use(setup.resource, setup.body, ceiling=60, check=check)
    assert [denial.outcome for denial in setup.journal.denials()] == ["InvalidArguments", "PermissionDenied"]


@pytest.mark.parametrize("ending", [None, *ENDINGS])
def test_whatever_ends_a_use_settles_it_once(ending: type[BaseException] | None) -> None:
    """Success, exception, Ctrl-C, cancellation: the reservation is settled exactly once; in full when nothing is
    known.
    """
    setup = Setup()

    def body() -> None:
        if ending is not None:
            raise ending

    with setup.scope() as opened:
        scope, purse = counted(opened)
        if ending is None:
            use(setup.resource, body, ceiling=60, scope=scope)
        else:
            with pytest.raises(ending):
                use(setup.resource, body, ceiling=60, scope=scope)
        assert purse.settled == [60]
        assert (scope.spent, purse.held) == (60, 0)


def test_a_known_cost_is_kept_whatever_happens() -> None:
    """Who sets the cost before the end has it settled, also when the use fails; a negative one counts as unknown."""
    setup = Setup()
    with setup.scope() as scope:
        for cost in (10, -5):
            with pytest.raises(ToolError), admit(setup.resource, ceiling=30) as admission:
                admission.cost = cost
                raise ToolError
        assert (scope.spent, scope.purse.held) == (10 + 30, 0)


def test_a_price_that_can_not_be_told_is_the_reservation() -> None:
    """When working out the cost fails, the error comes through and the whole reservation is settled."""
    setup = Setup()
    with setup.scope() as scope:
        with pytest.raises(ZeroDivisionError):
            use(setup.resource, setup.body, ceiling=30, cost=lambda _: 1 // 0)
        assert use(setup.resource, setup.body, ceiling=30, cost=lambda _: None) == "done"
        assert scope.spent == 60


@pytest.mark.parametrize("told", ["0.05", 3.7, float("nan"), Decimal("3.5"), [], -1])
def test_a_price_that_is_no_price_is_the_reservation(told: Any) -> None:
    """What a cost function returns is settled only if it is an amount; no float ever gets into the ledger."""
    setup = Setup()
    with setup.scope() as scope:
        assert use(setup.resource, setup.body, ceiling=60, cost=lambda _: told) == "done"
        assert (scope.spent, scope.purse.held, type(scope.purse.spent)) == (60, 0, int)
    assert setup.breaker.state == "closed"


def test_an_admission_that_is_lost_gives_everything_back() -> None:
    """Ctrl-C between admitting and entering: no money stays held, the probe is free, the record is closed."""
    setup = Setup()
    with setup.scope() as scope:
        setup.breaker.failure(setup.breaker.allow())
        setup.clock.forward(30)
        lost = admit(setup.resource, ceiling=60)
        assert (scope.purse.held, setup.breaker.allow()) == (60, 1.0)
        del lost
        assert (scope.spent, scope.purse.held, setup.journal.running()) == (0, 0, [])
        assert use(setup.resource, setup.body, ceiling=60, cost=len) == "done"
    assert [(entry.outcome, entry.cost) for entry in setup.observed] == [("cancelled", 0), ("ok", 4)]


def test_an_admission_ends_once() -> None:
    """Entered a second time, it is neither settled nor recorded again."""
    setup = Setup()
    with setup.scope() as scope:
        admission = admit(setup.resource, ceiling=60)
        for _ in range(2):
            with admission:
                admission.cost = 10
        assert (scope.spent, setup.journal.settled, len(setup.observed)) == (10, 10, 1)


def test_a_generator_that_is_left_settles() -> None:
    """A stream that is closed, or collected as garbage in the middle, settles as it ends."""
    setup = Setup()

    def stream() -> Iterator[int]:
        with admit(setup.resource, ceiling=30) as admission:
            for token in range(100):
                admission.cost = token
                yield token

    with setup.scope() as scope:
        closed = stream()
        assert [next(closed) for _ in range(3)] == [0, 1, 2]
        closed.close()
        dropped = stream()
        next(dropped)
        del dropped
        gc.collect()
        assert (scope.spent, scope.purse.held) == (2 + 0, 0)
    assert [entry.outcome for entry in setup.journal.entries()] == ["cancelled", "cancelled"]


async def test_a_cancelled_task_settles() -> None:
    """Cancelling a task in the middle of a use settles its reservation, and doesn't blame the resource."""
    setup = Setup()
    async with setup.scope() as scope:
        task = asyncio.create_task(ause(setup.resource, lambda: asyncio.sleep(60), ceiling=30))
        await asyncio.sleep(0)
        assert scope.purse.held == 30
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (scope.spent, scope.purse.held, setup.breaker.state) == (30, 0, "closed")


async def test_the_async_pair_does_the_same() -> None:
    """`ause` gives the result, settles what it cost, and lets through what the coroutine raises."""
    setup = Setup()

    async def body() -> str:
        return setup.body()

    async def failing() -> str:
        raise ValueError

    async with setup.scope() as scope:
        assert await ause(setup.resource, body, ceiling=30, cost=len) == "done"
        with pytest.raises(ValueError):
            await ause(setup.resource, failing, ceiling=30)
        assert (scope.spent, setup.breaker.state) == (34, "open")


@pytest.mark.parametrize(
    ("error", "blame", "state"),
    [
        (ValueError, None, "open"),
        (ToolError, None, "closed"),
        (RateLimited, None, "closed"),
        (asyncio.CancelledError, None, "closed"),
        (ValueError, False, "closed"),
        (asyncio.CancelledError, True, "open"),
    ],
)
def test_whose_fault_it_was(error: Any, blame: bool | None, state: str) -> None:
    """The breaker hears of failures of the resource, not of its caller's mistakes; `blame` knows better."""
    setup = Setup()
    with setup.scope(), pytest.raises(error), admit(setup.resource, ceiling=0) as admission:
        admission.blame = blame
        raise error("x")
    assert setup.breaker.state == state


def test_a_recorder_that_fails_stops_the_use() -> None:
    """What can't be recorded doesn't run, and nothing stays debited."""
    setup = Setup()

    class Broken(Journal):
        def intent(self, entry: Entry) -> None:
            raise OSError("disk full")

    with escalade.scope(**setup.options | {"recorder": Broken()}) as scope:
        with pytest.raises(OSError, match="disk full"):
            use(setup.resource, setup.body, ceiling=30)
        assert (scope.spent, scope.purse.held, setup.taken(), setup.ran) == (0, 0, 0, 0)


def test_listeners_hear_of_tools() -> None:
    """Who listens to the scope hears of uses, their settlement, and denials with the rule; models are not announced
    twice.
    """
    heard: list[Any] = []
    setup = Setup(listen=heard.append)
    model = Resource("m", "", "model", "t:call")
    with setup.scope():
        use(setup.resource, setup.body, ceiling=60, cost=lambda _: 7)
        use(model, setup.body, ceiling=3)
        for resource in (Resource("u", "1", "tool", "u:call"), Resource("m", "", "model", "m:call")):
            with pytest.raises(PermissionDenied):
                use(resource, setup.body, ceiling=0)
    called, settled, model_settled, denied = heard
    assert isinstance(called, events.ToolCalled)
    assert (called.tool, called.cost, called.outcome) == ("t@1.0.0", 7, "ok")
    assert isinstance(settled, events.Settled)
    assert (model_settled.resource, model_settled.cost) == ("m", 3)
    assert isinstance(denied, events.ToolDenied)
    assert (denied.tool, denied.rule) == ("u@1", "nothing grants 'u:call' to user")


def test_threads_share_every_gate() -> None:
    """32 threads at once: as many uses as the tightest gate allows, and not one more, on the same figures
    everywhere.
    """
    setup = Setup()
    start = threading.Barrier(32)

    with setup.scope() as scope:

        def come(_: int) -> bool:
            start.wait()
            try:
                use(setup.resource, setup.body, ceiling=10, scope=scope)
            except RateLimited:
                return False
            return True

        with ThreadPoolExecutor(32) as pool:
            assert sum(pool.map(come, range(32))) == 3
        assert (setup.ran, scope.spent, setup.taken()) == (3, 30, 3)
    assert len(setup.journal.entries()) == 3
    assert len(setup.journal.denials()) == 29


class Broken:
    """A policy with a mistake in it."""

    digest = "broken"

    def decide(self, principal: Principal, permission: str, effect: str = "") -> Any:
        raise TypeError(f"a mistake, met by {principal.user}")

    def check_roles(self, roles: frozenset[str]) -> None:
        """All roles are known."""


async def test_a_gate_that_breaks_is_a_refusal() -> None:
    """A policy that raises lets nothing through, and whoever asked is in the record."""
    resource, journal = Resource("t", "1", "tool", "t:call"), Journal()
    with escalade.scope(principal=Principal("ana"), access=Broken(), recorder=journal):
        with pytest.raises(TypeError):
            use(resource, int, ceiling=0)
        with pytest.raises(TypeError):
            await ause(resource, asyncio.sleep, ceiling=0)  # type: ignore[arg-type]
    assert [(one.principal.user, one.resource, one.outcome) for one in journal.denials()] == [
        ("ana", "t", "TypeError")
    ] * 2
