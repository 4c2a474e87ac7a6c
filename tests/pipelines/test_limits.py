"""Timeouts, deadlines and budgets: how they flow down, into threads too."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import dspy
import pytest

from escalade import scopes
from escalade.errors import BudgetExceeded, DeadlineExceeded, NodeError, NodeTimeout, NoScope, ScopeClosed, UnknownName
from escalade.money import Money
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.registry.access import Roles
from escalade.registry.opening import scope
from escalade.scopes import Principal, require
from escalade.testing import virtual_time
from tests._virtual import virtually
from tests.pipelines.offline import no_task_left

CENT = 10_000_000


async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def spend(amount: int) -> Any:
    """A step that pays `amount` nano-dollars, as the guard would."""

    async def step() -> int:
        scopes.require().purse.reserve(amount, "a step").settle(amount)
        return amount

    return step


@pytest.mark.parametrize(
    "make",
    [
        lambda: Chain(a=node(nap, timeout=0.03)),
        lambda: Chain(a=nap, timeout=0.03),
        lambda: FanOut(a=nap, timeout=0.03),
        lambda: FanOut(a=nap, b=lambda: 0, timeouts={"a": 0.03}),
        lambda: Chain(a=node(Chain(b=nap), timeout=0.03)),
        lambda: FanOut({"a": nap, "b": nap}, timeout=0.03, concurrency=1),
        lambda: Chain(a=node(lambda seconds: [time.sleep(seconds)], timeout=0.03)),
    ],
)
@virtually
async def test_a_nodes_timeout(make: Any) -> None:
    """A node that takes too long is cancelled and named; it is a NodeTimeout, a NodeError and a TimeoutError."""
    started = time.perf_counter()
    with (
        no_task_left(),
        pytest.raises(NodeTimeout, match=r"node 'a': no result within its timeout of 0.03 s") as caught,
    ):
        await make().acall(seconds=0.4)
    assert time.perf_counter() - started < 0.3
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.path == "a"


def test_the_join_has_options_of_its_own() -> None:
    """`timeout` is for the branches; the join is limited by its own name or by `node`."""
    slow = lambda: nap(0.2)  # noqa: E731
    with virtual_time():
        assert FanOut(a=lambda: 0, join=lambda a: slow(), timeout=0.1)().join == 0.2
    for fan in (
        FanOut(a=lambda: 0, join=lambda a: slow(), timeouts={"join": 0.02}),
        FanOut(a=lambda: 0, join=node(lambda a: slow(), timeout=0.02)),
    ):
        with pytest.raises(NodeTimeout) as caught:
            fan()
        assert caught.value.path == "join"
    with pytest.raises(BudgetExceeded), scope(budget="1.00"):
        FanOut(a=lambda: 0, join=lambda a: spend(CENT)(), budgets={"join": "0.001"})()


@virtually
async def test_each_item_has_its_own_timeout() -> None:
    """A map's timeout counts from the start of each item, not of the map."""
    assert len((await Map(nap, over="xs", timeout=0.2, concurrency=1).acall(xs=[0.05] * 6)).results) == 6
    with pytest.raises(NodeTimeout) as caught:
        await Map(nap, over="xs", timeout=0.05).acall(xs=[0.0, 1.0])
    assert caught.value.path == "[1]"


async def test_a_nodes_own_timeout_error_is_not_mistaken() -> None:
    """A TimeoutError that a node raises itself, before its time is up, is a failure and no NodeTimeout."""

    async def fails() -> None:
        raise TimeoutError("the server said so")

    with pytest.raises(TimeoutError, match="the server said so") as caught:
        await Chain(a=node(fails, timeout=5.0)).acall()
    assert isinstance(caught.value, NodeError)
    assert not isinstance(caught.value, NodeTimeout)


@pytest.mark.parametrize("blocking", [False, True])
def test_the_deadline_of_the_scope_ends_everything(blocking: bool) -> None:
    """When the scope's time is up, the pipeline raises DeadlineExceeded, at any depth, sooner than a node's timeout."""
    worker = time.sleep if blocking else nap
    pipeline = Chain(a=FanOut(b=Map(node(worker, timeout=5.0), over="xs"), c=lambda: 0))
    started = time.perf_counter()
    with scope(deadline=0.1), pytest.raises(DeadlineExceeded):
        pipeline(xs=[4.0, 4.0])
    assert time.perf_counter() - started < 3.0


@virtually
async def test_a_passed_deadline_starts_nothing() -> None:
    """A pipeline that is called too late runs no node."""
    ran = []
    async with scope(deadline=0.01):
        await asyncio.sleep(0.02)
        with pytest.raises(DeadlineExceeded):
            await Chain(a=lambda: ran.append(1)).acall()
    assert not ran


@virtually
async def test_a_closed_scope_starts_nothing() -> None:
    """A task that outlives its scope can't run pipelines in it any more."""
    async with scope():
        late = asyncio.create_task(asyncio.sleep(0.02))

        async def after() -> None:
            await late
            await Chain(a=lambda: 0).acall()

        run = asyncio.create_task(after())
    with pytest.raises(ScopeClosed):
        await run


def test_scope_and_settings_reach_nodes_in_threads() -> None:
    """A blocking node sees the scope, DSPy's settings, and the deadline of its own timeout."""
    seen: dict[str, Any] = {}

    def block() -> None:
        here = scopes.require()
        seen.update(run_id=here.run_id, left=here.time_left(), thread=threading.current_thread().name)
        seen["mark"] = dspy.settings.get("mark")

    with scope(budget="1.00", deadline=30) as outer, dspy.context(mark="x"):
        FanOut(a=node(block, timeout=2.0))()
    assert seen["run_id"] == outer.run_id
    assert 0 < seen["left"] <= 2.0
    assert seen["mark"] == "x"
    assert seen["thread"].startswith("escalade-node")


def test_a_thread_that_outlives_its_timeout_cannot_spend() -> None:
    """A thread can't be stopped, but its scope is closed: what it tries later is refused."""
    told: list[BaseException | None] = []
    over, ended = threading.Event(), threading.Event()

    def slow() -> None:
        here = scopes.require()
        over.wait(30)
        try:
            here.check_open()
            told.append(None)
        except (ScopeClosed, DeadlineExceeded) as error:
            told.append(error)
        ended.set()

    with scope(budget="1.00"), pytest.raises(NodeTimeout):
        Chain(a=node(slow, timeout=0.03))()
    over.set()
    assert ended.wait(30)
    assert isinstance(told[0], ScopeClosed)


def test_a_thread_that_meets_its_deadline_first_is_a_timeout_of_the_node() -> None:
    """What the guard refuses a blocking node because the node's own time is up is told as the node's timeout."""

    def refused() -> None:
        time.sleep(0.05)
        raise DeadlineExceeded("the deadline of the thread's scope has passed")

    with scope(), pytest.raises(NodeTimeout):
        Chain(a=node(refused, timeout=0.5))()
    with scope(), pytest.raises(DeadlineExceeded):
        Chain(a=refused)()


def test_a_branchs_budget_holds() -> None:
    """A branch can't spend more than its budget, though the scope has more."""
    with pytest.raises(BudgetExceeded) as caught, scope(budget="1.00"):
        FanOut(a=node(spend(3 * CENT), budget="0.02"), b=spend(CENT))()
    assert caught.value.limit == 2 * CENT
    with scope(budget="1.00") as outer:
        assert FanOut(a=node(spend(2 * CENT), budget="0.02"), b=spend(CENT))().a == 2 * CENT
        assert outer.spent == Money.of("0.03")


def test_a_share_is_of_what_is_left() -> None:
    """A float budget is a share of what the scope has when the branch begins; without a limit above it is no limit."""
    seen = []

    def look() -> None:
        seen.append(scopes.require().left)

    with scope(budget="1.00") as outer:
        outer.purse.reserve(50 * CENT).settle(50 * CENT)
        FanOut(a=look, budgets={"a": 0.2})()
    with scope():
        FanOut(a=look, budgets={"a": 0.2})()
    assert seen == [Money.of("0.10"), None]


def test_a_budget_never_grants_more_than_the_scope_has() -> None:
    """A branch's budget is a limit and no grant."""
    with pytest.raises(BudgetExceeded), scope(budget="0.01"):
        FanOut(a=node(spend(5 * CENT), budget="1.00"))()


def test_a_budget_needs_a_scope() -> None:
    """Outside of any scope nobody keeps account, so a budget would be a lie."""
    with pytest.raises(NoScope, match="node 'a' with a budget"):
        FanOut(a=node(spend(1), budget="0.01"))()


def test_a_swallowed_refusal_is_raised_at_the_end() -> None:
    """A node that swallows BudgetExceeded, as DSPy's modules do, doesn't hide that the money ran out."""

    async def swallows() -> str:
        try:
            scopes.require().purse.reserve(5 * CENT)
        except BudgetExceeded:
            return "as if nothing had happened"
        return "paid"

    after: list[int] = []
    for listen in ((), [].append):
        with pytest.raises(BudgetExceeded), scope(budget="0.01", listen=listen):
            try:
                Chain(a=swallows, b=lambda: after.append(1))()
            finally:
                after.append(0)
    assert after == [1, 0, 1, 0]  # listening changes nothing


def test_spending_of_all_branches_meets_in_the_scope() -> None:
    """50 branches that pay a cent each: 50 cents, to the nano-dollar, and not one more."""
    with scope(budget="0.50") as outer:
        FanOut({f"b{i}": spend(CENT) for i in range(50)})()
        assert outer.spent == Money.of("0.50")
    with pytest.raises(BudgetExceeded), scope(budget="0.50") as outer:
        FanOut({f"b{i}": spend(CENT) for i in range(51)})()
    assert outer.spent <= Money.of("0.50")
    assert outer.purse.held == 0


def test_a_node_acts_in_its_principals_name() -> None:
    """A branch with a principal may do what both the caller and that principal may, in threads and coroutines alike."""
    roles = Roles({"boss": ["*"], "clerk": ["crm.*:call"]})

    def allowed() -> list[bool]:
        return [require().permits(p).allowed for p in ("crm.read:call", "mail.send:call")]

    async def aallowed() -> list[bool]:
        return allowed()

    clerk = Principal("clara", roles=frozenset({"clerk"}))
    team = FanOut(free=aallowed, bound=node(aallowed, principal=clerk), thread=node(allowed, principal=clerk))
    with scope(principal=Principal("bob", roles=frozenset({"boss"})), access=roles) as outer:
        done = team()
        assert (done.free, done.bound, done.thread) == ([True, True], [True, False], [True, False])
        assert outer.principal.user == "bob"


def test_a_principal_of_a_role_that_does_not_exist_is_refused() -> None:
    """A mistyped role of a node is an error that names it, not a node without rights."""
    ghost = node(lambda: 0, principal=Principal("x", roles=frozenset({"clrk"})))
    with (
        scope(principal=Principal("bob", roles=frozenset({"clerk"})), access=Roles({"clerk": ["*"]})),
        pytest.raises(UnknownName, match="unknown role 'clrk'"),
    ):
        FanOut(a=ghost)()


def test_a_principal_needs_a_scope() -> None:
    """Without a scope there is nothing to narrow."""
    with pytest.raises(NoScope):
        FanOut(a=node(lambda: 0, principal=Principal("x")))()
