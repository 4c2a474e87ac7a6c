"""Scopes: they narrow and never widen, reach DSPy's threads, close, and raise what DSPy swallowed."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import Any

import dspy
import hypothesis.strategies as st
import pytest
from hypothesis import given

import escalade
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    DeadlineExceeded,
    NoScope,
    PermissionDenied,
    ScopeClosed,
    UnknownName,
)
from escalade.money import Money
from escalade.registry.guard import Resource, ause, use
from escalade.registry.ledger import Budget, Ledger
from escalade.scopes import NOBODY, Principal, current, require

TOOL = Resource("t", "1.0.0", "tool", "t:call")
ROLES = escalade.Roles({"caller": ["t:call"], "reader": ["t:read"], "both": ["t:*"]})


class Use(dspy.Module):
    """Uses the tool for 10 nano-dollars and says which scope it saw."""

    def __init__(self, price: int = 10) -> None:
        super().__init__()
        self.price = price

    def forward(self, x: int) -> dspy.Prediction:
        return dspy.Prediction(x=use(TOOL, lambda: x, ceiling=self.price), scope=current())

    async def aforward(self, x: int) -> dspy.Prediction:
        async def body() -> int:
            return x

        return dspy.Prediction(x=await ause(TOOL, body, ceiling=self.price), scope=current())


def examples(count: int) -> list[dspy.Example]:
    return [dspy.Example(x=n).with_inputs("x") for n in range(count)]


# ------------------------------------------------------------------------------------------------- there, or not there


def test_outside_of_any_scope() -> None:
    """There is none, and who needs one is told how to open it."""
    assert current() is None
    with pytest.raises(NoScope, match=r"the thing needs a scope: wrap it in `with escalade.scope"):
        require("the thing")


def test_inside_and_after() -> None:
    """Inside the block the scope is the current one; after it, the one from before."""
    with escalade.scope() as outer:
        assert require() is current() is outer
        with escalade.scope() as inner:
            assert current() is inner
            assert inner.parent is outer
        assert current() is outer
    assert current() is None


async def test_async_with() -> None:
    """The same scope opens by `async with`, and each task keeps its own."""

    async def run(user: str) -> str:
        async with escalade.scope(principal=Principal(user, roles=frozenset({"both"})), access=ROLES) as scope:
            await asyncio.sleep(0.001)
            assert current() is scope
            return scope.principal.user

    assert await asyncio.gather(*map(run, "abc")) == ["a", "b", "c"]


def test_a_scope_left_in_error_does_not_hide_it() -> None:
    """The error that leaves the block comes through, even when the budget is exhausted as well."""
    with pytest.raises(KeyError), escalade.scope(budget="0"):
        with pytest.raises(BudgetExceeded):
            use(TOOL, int, ceiling=1)
        raise KeyError


# -------------------------------------------------------------------------------------------------------------
# narrowing

budgets = st.none() | st.integers(0, 100)
deadlines = st.none() | st.sampled_from([1.0, 5.0, 60.0])


@given(st.lists(st.tuples(budgets, deadlines), min_size=1, max_size=5), st.integers(0, 120))
def test_nested_scopes_only_narrow_budget_and_deadline(
    levels: list[tuple[int | None, float | None]], asked: int
) -> None:
    """However scopes are nested, what one may spend is at most the least of their budgets, and the time left at most
    the
    least of their deadlines; what fits all of them is admitted.
    """
    opened: list[Any] = []
    least = min((budget for budget, _ in levels if budget is not None), default=math.inf)
    try:
        for budget, deadline in levels:
            entered = escalade.scope(budget=None if budget is None else Money(budget), deadline=deadline)
            scope = entered.__enter__()
            opened.append(entered)
        soonest = min((deadline for _, deadline in levels if deadline is not None), default=math.inf)
        assert scope.time_left() <= soonest
        assert (scope.left if scope.left is not None else math.inf) == least
        if asked <= least:
            use(TOOL, int, ceiling=asked)
            assert scope.spent == asked
        else:
            with pytest.raises(BudgetExceeded):
                use(TOOL, int, ceiling=asked)
    finally:
        for entered in reversed(opened):
            entered.__exit__(KeyError, KeyError(), None)


@given(st.lists(st.sets(st.sampled_from(["caller", "reader", "both"])), min_size=1, max_size=4))
def test_nested_scopes_only_narrow_permissions(levels: list[set[str]]) -> None:
    """A use is allowed exactly when every principal on the way down may do it: nobody gains by nesting."""
    opened: list[Any] = []
    expected = all(roles & {"caller", "both"} for roles in levels)
    try:
        for depth, roles in enumerate(levels):
            who = Principal(f"user {depth}", roles=frozenset(roles))
            entered = escalade.scope(principal=who, access=None if depth else ROLES)
            scope = entered.__enter__()
            opened.append(entered)
        assert scope.permits("t:call").allowed == expected
        assert [p.user for p in scope.principals] == [f"user {depth}" for depth in range(len(levels))]
        if expected:
            use(TOOL, int, ceiling=0)
        else:
            with pytest.raises(PermissionDenied):
                use(TOOL, int, ceiling=0)
    finally:
        for entered in reversed(opened):
            entered.__exit__(None, None, None)


def test_the_outermost_scope_sets_the_rules() -> None:
    """Ledger, access and recorder belong to the outermost scope: a nested one that brings its own is refused."""
    for own in ({"ledger": Ledger()}, {"access": ROLES}, {"recorder": escalade.Journal()}):
        with escalade.scope(), pytest.raises(BadInput, match="set on the outermost"), escalade.scope(**own):
            pass


def test_a_principal_needs_a_policy() -> None:
    """Who names a principal must say what his roles may do; a role that doesn't exist is an error, nested or not."""
    with pytest.raises(BadInput, match="a principal needs an access policy"), escalade.scope(principal=Principal()):
        pass
    ghost = Principal(roles=frozenset({"ghost"}))
    with pytest.raises(UnknownName, match="unknown role 'ghost'"), escalade.scope(principal=ghost, access=ROLES):
        pass
    with escalade.scope(), pytest.raises(UnknownName, match="unknown role 'ghost'"), escalade.scope(principal=ghost):
        pass


@pytest.mark.parametrize("deadline", [0, -1, math.nan])
def test_a_deadline_is_in_the_future(deadline: float) -> None:
    """A deadline of no seconds, of fewer, or of no number is refused when the scope is made."""
    with pytest.raises(BadInput, match="expected seconds > 0"):
        escalade.scope(deadline=deadline)


def test_roles_may_be_written_as_one_word() -> None:
    """One role can be written as a string; it is not taken for a set of letters."""
    assert Principal(roles="admin").roles == {"admin"}  # type: ignore[arg-type]
    assert Principal(roles=["a", "b"]).roles == frozenset({"a", "b"})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- DSPy's threads and tasks


def by_parallel(module: dspy.Module) -> list[Any]:
    parallel = dspy.Parallel(num_threads=4, disable_progress_bar=True)
    return list(parallel([(module, example) for example in examples(8)]))


def by_batch(module: dspy.Module) -> list[Any]:
    return list(module.batch(examples(8), num_threads=4, disable_progress_bar=True))


def by_evaluate(module: dspy.Module) -> list[Any]:
    evaluate = dspy.Evaluate(devset=examples(8), metric=lambda *_: 1.0, num_threads=4, display_progress=False)
    return [prediction for _, prediction, _ in evaluate(module).results]


def by_asyncify(module: dspy.Module) -> list[Any]:
    async def run() -> list[Any]:
        return list(await asyncio.gather(*(dspy.asyncify(module)(x=n) for n in range(8))))

    return asyncio.run(run())


def by_streamify(module: dspy.Module) -> list[Any]:
    async def run() -> list[Any]:
        stream = dspy.streamify(module, async_streaming=True)
        return [item for n in range(8) async for item in stream(x=n)]

    return asyncio.run(run())


def by_acall(module: dspy.Module) -> list[Any]:
    async def run() -> list[Any]:
        return list(await asyncio.gather(*(module.acall(x=n) for n in range(8))))

    return asyncio.run(run())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", [by_parallel, by_batch, by_evaluate, by_asyncify, by_streamify, by_acall])
def test_it_reaches_the_threads_of_dspy(way: Any) -> None:
    """The scope arrives, as the same object, in every thread and task that DSPy makes; what they spend is in its
    purse.
    """
    with escalade.scope(budget="1") as scope:
        predictions = [p for p in way(Use()) if isinstance(p, dspy.Prediction)]
        assert [p.scope is scope for p in predictions] == [True] * 8
        assert scope.spent == 80


@pytest.mark.parametrize("way", [by_parallel, by_batch, by_evaluate])
def test_what_dspy_swallows_is_raised_on_exit(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    """DSPy's runners turn a refusal into a None or a score of 0 and go on; leaving the scope raises it after all."""
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.00000003") as scope:
        way(Use())
        assert 0 <= scope.spent <= 30
        assert scope.purse.exhausted is not None
    assert scope.spent <= 30


def test_one_for_many_at_once() -> None:
    """A scope that is made once and entered by several threads is one of its own in each, whoever leaves first."""
    made, first_left = escalade.scope(budget="1"), threading.Event()
    inside, found = threading.Barrier(2), {}

    def run(name: str) -> None:
        with made as scope:
            inside.wait(5)
            if name == "second":
                first_left.wait(5)
            found[name] = (current() is scope, scope.closed)
        first_left.set()
        found[name] += (current() is None, scope.closed)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == dict.fromkeys(("first", "second"), (True, False, True, True))


def test_a_caller_may_look_himself() -> None:
    """A nested scope raises for its own budget; whoever catches that goes on, and the outer scope is unharmed."""
    with escalade.scope(budget="1") as outer:
        with pytest.raises(BudgetExceeded), escalade.scope(budget="0.000000005"):
            by_parallel(Use())
        with pytest.raises(BudgetExceeded), escalade.scope(optional=True):
            Use(price=2_000_000_000)(x=1)
        use(TOOL, int, ceiling=10)
        assert outer.spent == 10


# ---------------------------------------------------------------------------------------------------------------
# closing


def test_a_closed_scope_refuses_stragglers() -> None:
    """A thread that outlives its scope can't call any more, nor can it open a nested scope."""
    go, seen = threading.Event(), list[BaseException]()

    def straggle() -> None:
        go.wait()
        for attempt in (lambda: use(TOOL, int, ceiling=0), lambda: escalade.scope().__enter__()):
            try:
                attempt()
            except ScopeClosed as error:
                seen.append(error)

    with escalade.scope():
        with escalade.scope():
            import contextvars

            thread = threading.Thread(target=contextvars.copy_context().run, args=(straggle,))
            thread.start()
    go.set()
    thread.join()
    assert len(seen) == 2
    assert "has ended" in str(seen[0])


def test_closing_the_outer_scope_closes_the_inner_one() -> None:
    """A nested scope ends with the one around it."""
    with escalade.scope() as outer:
        inner = outer.narrow()
        assert not inner.closed
    assert inner.closed
    with pytest.raises(ScopeClosed):
        use(TOOL, int, ceiling=0, scope=inner)


def test_time_runs_out() -> None:
    """When the deadline has passed, the scope says so; without one there is all the time in the world."""
    with escalade.scope(deadline=0.01) as scope:
        scope.check_open()
        time.sleep(0.02)
        with pytest.raises(DeadlineExceeded, match="the deadline of scope"):
            scope.check_open()
    with escalade.scope() as scope:
        assert scope.time_left() == math.inf


# ------------------------------------------------------------------------------------------- the default scope, a
# server


def test_a_default_scope() -> None:
    """`configure` installs what holds where no scope was opened: in this thread, in others, and around nested
    scopes.
    """
    made = escalade.configure(budget="0.0000001")
    assert current() is made
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(current()))
    thread.start()
    thread.join()
    assert seen == [made]
    with escalade.scope(budget="1") as nested:
        assert nested.parent is made
        use(TOOL, int, ceiling=100)
    assert made.spent == 100
    with pytest.raises(BudgetExceeded):
        use(TOOL, int, ceiling=1)
    again = escalade.configure(budget="1")
    assert current() is again
    use(TOOL, int, ceiling=1)


def test_the_shape_of_a_server() -> None:
    """An application sets policy and ledger once; nobody may do anything until a request says who asks; then his
    budgets
    hold, by user and by tenant, from request to request.
    """
    ledger = Ledger(
        [Budget("user:acme/ana", "0.00000003", period="day"), Budget("tenant:acme", "0.00000005", period="month")]
    )
    root = escalade.configure(access=ROLES, ledger=ledger)
    assert root.principal == NOBODY
    with pytest.raises(PermissionDenied, match="open a nested scope with principal"):
        use(TOOL, int, ceiling=0)

    def request(user: str, role: str, price: int) -> None:
        with escalade.scope(principal=Principal(user, "acme", frozenset({role}))):
            use(TOOL, int, ceiling=price)

    request("ana", "caller", 20)
    with pytest.raises(PermissionDenied):
        request("bo", "reader", 0)
    with pytest.raises(BudgetExceeded, match="'user:acme/ana'"):
        request("ana", "caller", 20)
    request("bo", "caller", 20)
    with pytest.raises(BudgetExceeded, match="'tenant:acme'"):
        request("bo", "caller", 20)
    request("ana", "caller", 10)
    assert [(a.name, a.settled) for a in ledger.accounts()] == [("tenant:acme", 50), ("user:acme/ana", 30)]


def test_truncated_answers_are_noted_above() -> None:
    """A cut answer is noted on every scope around the call."""
    with escalade.scope() as outer:
        outer.narrow().narrow().note_truncated()
        assert outer.truncated == 1
        outer.with_span("span").note_truncated()
        assert outer.truncated == 2


@pytest.mark.parametrize(("user", "tenant"), [("", "a"), ("a", ""), ("*", "a"), ("a", "*"), ("a", "b/c")])
def test_names_that_could_be_taken_for_others_are_refused(user: str, tenant: str) -> None:
    """A user or tenant whose name could stand for somebody else's account is refused."""
    with pytest.raises(BadInput, match="names aren't empty"):
        Principal(user, tenant)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ledger": [Budget("tenant:acme", "1")]}, r"ledger: expected a Ledger\("),
        ({"ledger": Ledger}, r"ledger: expected a Ledger\("),
        ({"access": {"caller": ["t:call"]}}, r"access: expected a policy, like Roles\("),
        ({"recorder": "audit.sqlite"}, r"recorder: expected a recorder, like AuditLog\(.* got 'audit.sqlite'"),
        ({"approvals": "approvals.sqlite"}, r"approvals: expected a desk, like Approvals\("),
        ({"principal": "ada", "access": ROLES}, r"principal: expected a Principal\(.* got 'ada'"),
    ],
)
def test_what_is_no_object_of_ours_is_refused_when_the_scope_opens(given: dict[str, Any], expected: str) -> None:
    """A path, a dict or a class in the place of a ledger, a policy or a record is told at once, not later."""
    with pytest.raises(BadInput, match=expected), escalade.scope(**given):
        pass
    with pytest.raises(BadInput, match=expected):
        escalade.configure(**given)
