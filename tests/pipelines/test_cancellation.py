"""Cancellation: whenever it comes, and whatever the join, nothing is alive, spends or is held after it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from typing import Any

import pytest

from benchmarks._storm import storm
from escalade import Budget, Ledger, Money, Principal, Registry, Roles, node, scopes, tool
from escalade.errors import JoinFailed, ScopeClosed
from escalade.events import NodeCancelled
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.race import Race
from escalade.registry.journal import Journal
from escalade.registry.opening import scope
from tests._virtual import virtually
from tests.pipelines.offline import no_task_left

RULES: list[dict[str, Any]] = [
    {},
    {"quorum": 2},
    {"first": 2},
    {"until": lambda found: len(found) == 2},
    {"partial": True, "within": 9.0},
    {"partial": True, "concurrency": 2},
    {"reduce": lambda total, name, x: x},
]


async def nap(seconds: float = 9.0) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def cancel(pipeline: Any, pause: float = 0.03, **inputs: Any) -> asyncio.Task[Any]:
    """A run that was cancelled after a while, and has ended."""
    run = asyncio.create_task(pipeline.acall(**inputs))
    await asyncio.sleep(pause)
    run.cancel()
    await asyncio.wait([run], timeout=5)
    return run


@pytest.mark.slow
@pytest.mark.blocking(2000)  # one turn of the loop ends thousands of tasks: 0.2 s on a processor of its own
async def test_cancelled_at_random_times_nothing_is_left() -> None:
    """80 pipelines of depth 4 and width 10, with all kinds of joins over leaves that pay, block, fail and resist, each
    cancelled at a random moment: no task is alive after it, no money is held, no tool begins, the caller is whole, and
    a cancelled run is always a cancelled task. In full, 1,000 of width 50: `python -m benchmarks joins`.
    """
    report = await storm(80, 10, seed=3)
    assert not report.left
    assert report.outcomes["cancelled"] > 20, report.outcomes


@pytest.mark.parametrize("rule", RULES, ids="-".join)
@virtually
async def test_who_cancels_the_caller_gets_a_cancelled_task(rule: dict[str, Any]) -> None:
    """Under any rule, with branches that swallow their first cancellation and branches that fail in their cleanup."""

    async def swallows() -> float:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        return 1.0

    async def sore() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            raise ValueError("in the cleanup")

    fan = FanOut({"a": swallows, "b": sore, "c": nap, "d": lambda: nap(0.0)}, **rule)
    with no_task_left():
        run = await cancel(fan)
    assert run.cancelled()
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("rule", RULES, ids="-".join)
async def test_an_outer_timeout_is_a_timeout(rule: dict[str, Any]) -> None:
    """`asyncio.timeout` around any join ends all of it, and raises TimeoutError."""
    with no_task_left(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await FanOut(dict.fromkeys("abcd", nap), **rule).acall()
    assert asyncio.current_task().cancelling() == 0


async def test_cancelled_while_the_losers_end() -> None:
    """A caller that is cancelled after the decision, while a loser still cleans up, is cancelled, and no result hides
    it.
    """
    cleaning = asyncio.Event()

    async def slow_to_go() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            cleaning.set()
            await asyncio.sleep(9)

    for pipeline in (FanOut(a=nap, b=slow_to_go, quorum=1), Race(a=nap, b=slow_to_go)):
        cleaning.clear()
        with no_task_left():
            run = asyncio.create_task(pipeline.acall(seconds=0.01))
            await asyncio.wait_for(cleaning.wait(), 5)
            run.cancel()
            await asyncio.wait([run], timeout=5)
        assert run.cancelled()


async def test_cancelled_in_the_join() -> None:
    """When the branches are done and the join is at work."""
    joining = asyncio.Event()

    async def join(a: float) -> None:
        joining.set()
        await asyncio.sleep(9)

    for rule in ({}, {"partial": True}):
        joining.clear()
        with no_task_left():
            run = asyncio.create_task(FanOut(a=nap, join=join, **rule).acall(seconds=0.0))
            await asyncio.wait_for(joining.wait(), 5)
            run.cancel()
            await asyncio.wait([run], timeout=5)
        assert run.cancelled()


@virtually
async def test_a_cancelled_child_does_not_cancel_the_caller() -> None:
    """Somebody cancels the task of a branch: under a rule that is its status; nobody else is cancelled."""
    tasks: list[asyncio.Task[Any]] = []

    async def victim() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(9)

    async def murderer() -> str:
        await asyncio.sleep(0.01)
        tasks.pop().cancel()
        await asyncio.sleep(0.01)
        return "done"

    result = await FanOut(victim=victim, murderer=murderer, partial=True).acall()
    assert (result.murderer, result.statuses["victim"].state) == ("done", "cancelled")
    with no_task_left(), pytest.raises(JoinFailed, match="victim: cancelled"):
        await FanOut(victim=victim, murderer=murderer, quorum=2).acall()
    assert asyncio.current_task().cancelling() == 0


@pytest.mark.parametrize("rule", RULES, ids="-".join)
def test_ctrl_c_in_a_branch(rule: dict[str, Any]) -> None:
    """It ends the call by identity, whatever the rule; the siblings end with it, not within the next call."""
    ended: list[str] = []

    async def sibling() -> None:
        try:
            await asyncio.sleep(9)
        finally:
            ended.append("sibling")

    async def interrupted() -> None:
        await asyncio.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FanOut({"a": sibling, "b": interrupted}, **rule)()
    assert ended == ["sibling"]
    assert Chain(a=lambda: 1)().a == 1


async def test_threads_of_losers_cannot_spend() -> None:
    """A loser that blocks a thread goes on, but its scope is closed when the fan-out returns."""
    told: list[BaseException] = []
    begun, over, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        here = scopes.require()
        here.purse.reserve(5, "before").settle(5)
        begun.set()
        over.wait(30)
        try:
            here.check_open()
        except ScopeClosed as error:
            told.append(error)
        ended.set()

    async with scope(budget="1.00") as outer:
        result = await FanOut(slow=slow, quick=lambda: asyncio.to_thread(begun.wait, 30), quorum=1).acall()
        over.set()
        assert result.statuses["slow"].cost == 5
        assert outer.purse.held == 0
        assert await asyncio.to_thread(ended.wait, 30)
    assert isinstance(told[0], ScopeClosed)


@virtually
async def test_a_held_reservation_of_a_loser_is_settled() -> None:
    """What a cancelled branch had reserved is free when the call returns."""

    async def holds() -> None:
        hold = scopes.require().purse.reserve(1000, "a call")
        try:
            await asyncio.sleep(9)
        finally:
            hold.settle(7)

    async with scope(budget="1.00") as outer:
        result = await FanOut(a=holds, b=nap, partial=True, within=0.05).acall(seconds=0.0)
        assert (outer.purse.held, int(outer.spent), result.statuses["a"].cost) == (0, 7, 7)
        await cancel(FanOut(a=holds, quorum=1))
        assert (outer.purse.held, int(outer.spent)) == (0, 14)


class Till:
    """A tool of $0.01 that blocks its thread until somebody opens it, and who calls it from a function."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

        @tool(name="till.pay", cost="0.01", side_effects="irreversible")
        def pay(x: int) -> int:
            """Pays."""
            self.begun.set()
            assert self.go.wait(10)
            return x

        self._tool = Registry([pay]).get_tool("till.pay")
        self.left = threading.Event()

    def blocking(self, x: int) -> int:
        """A node that blocks its thread in the tool."""
        try:
            return int(self._tool(x=x))
        finally:
            self.left.set()

    async def meanwhile(self, x: int) -> int:
        """A node that is done as soon as the tool is in use."""
        assert await asyncio.to_thread(self.begun.wait, 10)
        return -x


@pytest.mark.parametrize(
    "build",
    [
        lambda till: FanOut(a=till.blocking, b=till.meanwhile, first=1),
        lambda till: FanOut(a=till.blocking, b=till.meanwhile, quorum=1),
        lambda till: Race(a=node(till.blocking, retry=1), b=till.meanwhile),
        lambda till: FanOut(a=Chain(deep=till.blocking), b=till.meanwhile, until=bool),
    ],
    ids=["first", "quorum", "race", "deep"],
)
@pytest.mark.parametrize("heard", [False, True])
async def test_what_a_thread_of_a_loser_uses_is_settled_at_return(build: Any, heard: bool) -> None:
    """Nobody can stop the thread, but its use has ended for whoever asks: at what was reserved, once, on all accounts,
    in the statuses, the events and the record.
    """
    till, told = Till(), list[Any]()
    ledger = Ledger([Budget("tenant:acme", "1.00")])
    who = Principal("ada", "acme", frozenset({"all"}))
    journal = Journal()
    try:
        with scope(
            budget="0.50",
            principal=who,
            access=Roles({"all": ["*:call"]}),
            ledger=ledger,
            recorder=journal,
            listen=told.append if heard else (),
        ) as run:
            result = await build(till).acall(x=1)
            assert result.statuses["a"].cost == run.spent == Money.of("0.01")
            assert (run.purse.held, run.left) == (0, Money.of("0.49"))
        assert not till.left.is_set()
        account = ledger.account("tenant:acme")
        assert account is not None
        assert (account.held, account.settled) == (0, Money.of("0.01"))
        (entry,) = journal.entries()
        assert (entry.outcome, entry.cost) == ("cancelled", Money.of("0.01"))
        assert {e.cost for e in told if isinstance(e, NodeCancelled)} == ({Money.of("0.01")} if heard else set())
    finally:
        till.go.set()
    assert await asyncio.to_thread(till.left.wait, 10)
    assert (account.held, account.settled, run.spent) == (0, Money.of("0.01"), Money.of("0.01"))
    assert (entry.outcome, len(journal.entries())) == ("cancelled", 1)


def test_what_a_thread_uses_is_settled_when_its_scope_is_left() -> None:
    """A thread of anybody's that outlives the block holds nothing of any account after it."""
    till = Till()
    ledger = Ledger([Budget("everything", "1.00")])
    with scope(ledger=ledger):
        with scope(budget="0.50") as inner:
            thread = threading.Thread(target=contextvars.copy_context().run, args=(till.blocking, 1))
            thread.start()
            assert till.begun.wait(10)
            assert inner.purse.held == Money.of("0.01")
        assert (inner.purse.held, inner.spent) == (0, Money.of("0.01"))
    till.go.set()
    thread.join(10)
    account = ledger.account("everything")
    assert account is not None
    assert (account.held, account.settled) == (0, Money.of("0.01"))


@virtually
async def test_a_partial_result_does_not_wait_for_who_swallows_a_cancellation() -> None:
    """When time is up, a branch that swallows its first cancellation is cancelled again."""

    async def swallows(times: int) -> None:
        for _ in range(times):
            try:
                await asyncio.sleep(9)
            except asyncio.CancelledError:
                continue
        await asyncio.sleep(9)

    began = time.perf_counter()
    with no_task_left():
        result = await FanOut(
            once=lambda: swallows(1), twice=lambda: swallows(2), good=nap, partial=True, within=0.1
        ).acall(seconds=0.0)
    assert time.perf_counter() - began < 1
    assert result.good == 0.0
    assert set(result.missing) == {"once", "twice"}


async def test_a_failure_ends_a_bounded_fan_out_with_a_rule() -> None:
    """What waits for a place never begins when it is decided."""
    began: list[int] = []

    async def work(x: int) -> int:
        began.append(x)
        await asyncio.sleep(0)
        if x == 3:
            raise ValueError(x)
        return x

    with no_task_left(), pytest.raises(JoinFailed):
        await Map(work, over="xs", quorum=100, concurrency=2).acall(xs=range(10))
    assert len(began) == 10  # how many there are is known at the end only
    began.clear()
    branches = {f"b{i}": Chain(lambda i=i: {"x": i}, work) for i in range(10)}
    with no_task_left(), pytest.raises(JoinFailed):
        await FanOut(branches, quorum=10, concurrency=2).acall()
    assert max(began) <= 5
