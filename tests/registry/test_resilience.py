"""Retries, bulkheads, calls that are made once, and the cache: all of them under the guard."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest

import escalade
from escalade import Money, Principal, Registry, Roles
from escalade.errors import (
    BadInput,
    BudgetExceeded,
    DeadlineExceeded,
    InvalidArguments,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    RateLimited,
    ToolTimeout,
)
from escalade.registry.cache import MemoryCache
from escalade.registry.journal import Journal
from tests._virtual import virtually
from tests.registry.helpers import Clock


class Flaky:
    """A tool's body that fails some times, then works; counts its executions."""

    def __init__(self, failures: int = 0, error: Any = ValueError, seconds: float = 0.0) -> None:
        self.failures, self.error, self.seconds, self.ran = failures, error, seconds, 0
        self._lock = threading.Lock()

    def do(self, x: int = 0) -> int:
        with self._lock:
            self.ran += 1
            fail = self.ran <= self.failures
        time.sleep(self.seconds)
        if fail:
            raise self.error
        return x

    async def ado(self, x: int = 0) -> int:
        self.ran += 1
        await asyncio.sleep(self.seconds)
        if self.ran <= self.failures:
            raise self.error
        return x


def registered(function: Any, **said: Any) -> Any:
    """A GovernedTool of it."""
    made = escalade.tool(name="t", **said)(function)
    return Registry([made], name="resilience").get_tool("t")


def outcomes(journal: Journal) -> list[tuple[str, str]]:
    """How each use ended, and where its answer came from."""
    return [(entry.outcome, entry.source) for entry in journal.entries()]


# -------------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_failure_is_tried_again_through_the_guard(way: str) -> None:
    """Each attempt is a use of its own: reserved, paid, recorded."""
    body, journal = Flaky(2), Journal()
    tool = registered(body.do if way == "sync" else body.ado, side_effects="read", retries=2, cost="0.01")
    with escalade.scope(budget="1", recorder=journal) as run:
        assert (tool(x=7) if way == "sync" else await tool.acall(x=7)) == 7
        assert run.spent == Money.of("0.03")
    assert outcomes(journal) == [("failed", ""), ("failed", ""), ("ok", "")]


def test_attempts_end() -> None:
    """After the last one the failure is the caller's; a budget ends them, too."""
    body = Flaky(9)
    tool = registered(body.do, idempotent=True, retries=2, cost="0.01")
    with escalade.scope(), pytest.raises(ValueError, match="tool_failed"):
        tool()
    assert body.ran == 3
    with pytest.raises(BudgetExceeded), escalade.scope(budget="0.01"):
        tool()
    assert body.ran == 4


@pytest.mark.parametrize("said", [{"x": "no number"}, {"y": 1}])
def test_mistakes_of_the_caller_are_not_repeated(said: dict[str, Any]) -> None:
    """Wrong arguments stay wrong: no second attempt, nothing runs."""
    body, journal = Flaky(), Journal()
    tool = registered(body.do, side_effects="read", retries=5)
    with escalade.scope(recorder=journal), pytest.raises(InvalidArguments):
        tool(**said)
    assert (body.ran, len(journal.denials())) == (0, 1)


def test_what_an_exception_says_of_when_to_come_back_is_believed() -> None:
    """`retry_after` of the tool's own exception is waited for; where it outlasts the deadline, nobody waits."""

    class Busy(Exception):
        retry_after = 0.15

    body = Flaky(1, Busy)
    tool = registered(body.do, side_effects="read", retries=1)
    with escalade.scope():
        began = time.monotonic()
        assert tool(x=1) == 1
        assert time.monotonic() - began >= 0.15
    body.ran = 0
    Busy.retry_after = 30.0
    with escalade.scope(deadline=5.0), pytest.raises(Busy):
        tool()
    assert body.ran == 1


def test_a_timeout_is_tried_again() -> None:
    """A tool that was too slow once may be asked again, if it may be asked twice at all."""
    body = Flaky()
    body.seconds = 0.3

    def slow_once() -> int:
        if body.ran:
            return 1
        return body.do()

    assert _in_scope(registered(slow_once, side_effects="none", retries=1, timeout=0.1)) == 1


def _in_scope(tool: Any, **args: Any) -> Any:
    with escalade.scope():
        return tool(**args)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"retries": 1}, "say idempotent=True"),
        ({"retries": 1, "side_effects": "irreversible"}, "say idempotent=True"),
        ({"retries": 99, "side_effects": "read"}, "less than or equal to 10"),
        ({"cache": 5}, "say side_effects='read'"),
        ({"cache": 5, "side_effects": "read", "approval": "always"}, "approve"),
        ({"once": True, "side_effects": "read"}, "there is cache="),
        ({"max_concurrent": 0}, "greater than or equal to 1"),
    ],
)
def test_what_can_not_be_declared(said: Any, message: str) -> None:
    """What would repeat or keep what must not be is refused when the tool is declared."""
    with pytest.raises(BadInput, match=message):
        registered(Flaky().do, **said)


# ------------------------------------------------------------------------------------------------------------ bulkheads


class Crowd:
    """A body that knows how many are in it at once."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds, self.inside, self.most = seconds, 0, 0
        self._lock = threading.Lock()

    def do(self) -> int:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(self.seconds)
        with self._lock:
            self.inside -= 1
        return 1


async def test_never_more_at_once() -> None:
    """Threads and tasks together: never more than its places; the others wait, and all are served."""
    crowd = Crowd()
    tool = registered(crowd.do, max_concurrent=2)
    with escalade.scope():
        jobs = [tool.acall() for _ in range(8)]
        assert sum(await asyncio.gather(*jobs)) == 8
    assert crowd.most == 2


@pytest.mark.parametrize(
    ("timeout", "seconds", "error"), [(None, 0.1, DeadlineExceeded), (0.1, 10.0, Overloaded), (0.1, None, Overloaded)]
)
def test_no_place_in_time(timeout: Any, seconds: Any, error: Any) -> None:
    """Whoever gets no place within his deadline, or the tool's timeout, is refused, and that is recorded; whoever may
    not use it waits for nothing.
    """
    journal, tool = Journal(), registered(lambda: 1, max_concurrent=1, timeout=timeout)
    access = Roles({"user": ["t:call"]})
    with escalade.scope(principal=Principal("a", roles=frozenset({"user"})), access=access, recorder=journal):
        place = tool._registered._entrance._places.join("places")
        with escalade.scope(deadline=seconds), pytest.raises(error):
            tool()
        assert [entry.outcome for entry in journal.denials()] == [error.__name__]
        tool._registered._entrance._places.leave("places", place)
        assert tool() == 1
        place = tool._registered._entrance._places.join("places")
    began = time.monotonic()
    with escalade.scope(principal=Principal("b"), access=access), pytest.raises(PermissionDenied):
        tool()
    assert time.monotonic() - began < 5, "nobody gives the place back"


def test_a_thread_that_was_left_has_its_place_until_it_ends() -> None:
    """A call that timed out goes on in its thread: its place is not given to another one before it has ended."""
    crowd = Crowd(1.0)
    tool = registered(crowd.do, max_concurrent=1, timeout=0.1)
    with escalade.scope():
        with pytest.raises(ToolTimeout):
            tool()
        with pytest.raises(Overloaded):
            tool()
        until = time.monotonic() + 30
        with pytest.raises(ToolTimeout):
            while time.monotonic() < until:  # the body ends, and a moment later the thread gives its place back
                with contextlib.suppress(Overloaded):
                    tool()
    assert crowd.most == 1


# ----------------------------------------------------------------------------------------------------------------- once


@pytest.mark.slow
def test_stragglers_write_once() -> None:
    """`dspy.Parallel(timeout=...)` starts a slow item again: the tool that writes has run once, and both attempts have
    its result.
    """
    body, journal = Flaky(seconds=2.5), Journal()
    tool, answers = registered(body.do, once=True, cost="0.01"), []

    class Step(dspy.Module):
        def forward(self, x: int) -> int:
            answers.append(tool(x=x))
            return answers[-1]

    with escalade.scope(budget="1", recorder=journal) as run:
        dspy.Parallel(num_threads=2, timeout=1, disable_progress_bar=True)([(Step(), {"x": 5})])
        until = time.monotonic() + 30
        while len(answers) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        assert len(answers) >= 2, "the straggler was started again"
        assert set(answers) == {5}
        assert (body.ran, run.spent) == (1, Money.of("0.01"))
    assert sorted(outcomes(journal))[:2] == [("ok", ""), ("ok", "once")]


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_at_once_and_later(way: str) -> None:
    """Of many equal calls at once one runs, the others wait for its result; later ones get it, too."""
    body = Flaky(seconds=0.1)
    tool = registered(body.do if way == "sync" else body.ado, once=True)
    with escalade.scope() as run:
        if way == "async":
            got = await asyncio.gather(*(tool.acall(x=3) for _ in range(10)))
        else:

            def use(_: int) -> Any:
                with dspy.context(escalade=run):
                    return tool(x=3)

            with ThreadPoolExecutor(10) as pool:
                got = await asyncio.to_thread(lambda: list(pool.map(use, range(10))))
        assert got == [3] * 10
        assert await tool.acall(x=3) == 3
        assert body.ran == 1
        await tool.acall(x=4)
        await tool.acall()
        await tool.acall(x=0)
        assert body.ran == 3, "other arguments are another call; a default that is said is the same"


def test_steps_and_runs_are_apart() -> None:
    """The same call in another step, in another run, or for another principal, is another call."""
    body = Flaky()
    tool = registered(body.do, once=True)
    for _ in range(2):
        with escalade.scope():
            for number in range(3):
                with escalade.step(f"line {number}"):
                    tool(x=1)
                    tool(x=1)
    assert body.ran == 6
    access = Roles({"user": ["t:call"]})
    with escalade.scope(principal=Principal("a", roles=frozenset({"user"})), access=access):
        tool(x=1)
        with escalade.scope(principal=Principal("b", roles=frozenset({"user"}))):
            tool(x=1)
    assert body.ran == 8


def test_requests_to_a_server_are_runs() -> None:
    """Scopes within the configured one are runs of their own; what one of them did once, the next may do."""
    body = Flaky()
    tool = registered(body.do, once=True)
    escalade.configure()
    for _ in range(2):
        with escalade.scope():
            tool()
            tool()
    assert body.ran == 2


def test_a_failure_may_be_repeated_and_a_cut_may_not() -> None:
    """What failed can be tried again. What was cut off may have been done: it isn't repeated, unless it may be."""
    body = Flaky(1)
    tool = registered(body.do, once=True)
    with escalade.scope():
        with pytest.raises(ValueError, match="tool_failed"):
            tool()
        assert tool() == 0
    for idempotent in (False, True):
        body = Flaky(seconds=0.2)
        tool = registered(body.do, once=True, timeout=0.05, idempotent=idempotent)
        with escalade.scope():
            with pytest.raises(ToolTimeout):
                tool()
            with pytest.raises(ToolTimeout if idempotent else OutcomeUnknown):
                tool()
        assert body.ran == 1 + idempotent


async def test_who_waits_gets_the_failure() -> None:
    """A call that joined another one gets its failure, and does not run."""
    body = Flaky(1, seconds=0.1)
    tool = registered(body.ado, once=True)
    with escalade.scope():
        got = await asyncio.gather(*(tool.acall() for _ in range(3)), return_exceptions=True)
    assert [type(one).__mro__[1:] and isinstance(one, ValueError) for one in got] == [True] * 3
    assert body.ran == 1


async def test_who_waits_has_a_deadline() -> None:
    """Nobody waits for another one's call longer than his own deadline."""
    body = Flaky(seconds=1.0)
    tool = registered(body.ado, once=True)
    with escalade.scope():
        first = asyncio.create_task(tool.acall())
        await asyncio.sleep(0.05)
        with escalade.scope(deadline=0.1), pytest.raises(DeadlineExceeded):
            await tool.acall()
        assert await first == 0


def test_a_refusal_leaves_no_trace() -> None:
    """A call that the budget refused was not made: it can be made when there is money."""
    body = Flaky()
    tool = registered(body.do, once=True, cost="0.02")
    with escalade.scope(budget="0.03"):
        with pytest.raises(BudgetExceeded), escalade.scope(budget="0.01", optional=True):
            tool()
        assert tool() == 0
    assert body.ran == 1


# ---------------------------------------------------------------------------------------------------------------- cache


def test_a_hit_costs_nothing_and_is_recorded() -> None:
    """The second equal call doesn't run: no cost, no place in a limit, and the entry says where it came from."""
    body, journal = Flaky(), Journal()
    tool = registered(body.do, side_effects="read", cache=60, cost="0.01", limits="1/h")
    access = Roles({"user": ["t:call"]})
    with escalade.scope(
        principal=Principal("a", roles=frozenset({"user"})), access=access, budget="1", recorder=journal
    ) as run:
        assert [tool(x=2), tool(x=2), tool(x=2)] == [2, 2, 2]
        assert run.spent == Money.of("0.01")
        with pytest.raises(RateLimited):
            tool(x=3)
    assert body.ran == 1
    assert outcomes(journal) == [("ok", ""), ("ok", "cache"), ("ok", "cache")]
    assert [entry.cost for entry in journal.entries()] == [10_000_000, 0, 0]
    usage = tool._registered.meter.usage()
    assert (usage.calls, dict(usage.answered)) == (1, {"cache": 2})


def test_never_across_tenants_policies_and_permissions() -> None:
    """Another tenant, another policy, or other roles find nothing; who may not call gets nothing, hit or not."""
    body = Flaky()
    tool = registered(body.do, side_effects="read", cache=60)
    roles = {"user": ["t:call"], "boss": ["*"]}
    one, other = Roles(roles), Roles({**roles, "guest": ["x:call"]})

    def ask(user: str, tenant: str, role: str, access: Any) -> int:
        before = body.ran
        with escalade.scope(principal=Principal(user, tenant, frozenset({role})), access=access):
            tool(x=1)
        return body.ran - before

    assert ask("ana", "acme", "user", one) == 1
    assert ask("bo", "acme", "user", one) == 0, "a colleague of the same tenant and role"
    assert ask("cy", "other", "user", one) == 1
    assert ask("ana", "acme", "boss", one) == 1
    assert ask("ana", "acme", "user", other) == 1
    with pytest.raises(PermissionDenied):
        ask("eve", "acme", "guest", other)
    mine = registered(body.do, side_effects="read", cache=60, cache_per="user")
    for user in ("ana", "bo"):
        with escalade.scope(principal=Principal(user, "acme", frozenset({"user"})), access=one):
            before = body.ran
            mine(x=1)
            assert body.ran == before + 1


def test_results_come_back_in_their_types() -> None:
    """A hit is a new object of the annotated type; what would come back as something else is not kept."""

    def day() -> dict[str, dt.date]:
        ran.append(1)
        return {"day": dt.date(2026, 1, 2)}

    def odd() -> Any:
        ran.append(1)
        return (1, 2)

    for function, kept in ((day, True), (odd, False)):
        ran: list[int] = []
        tool = registered(function, side_effects="none", cache=60)
        with escalade.scope():
            first = tool()
            again = tool()
            assert first == again
            assert not kept or first is not again
        assert len(ran) == (1 if kept else 2)


def test_results_grow_old() -> None:
    """A result is used for so many seconds; the oldest are pushed out by others; failures are not kept."""
    clock = Clock()
    cache = MemoryCache(2, now=clock)
    cache.set("a", b"1", 10.0)
    assert cache.get("a") == b"1"
    clock.forward(10.0)
    assert cache.get("a") is None
    for key in ("a", "b", "c"):
        cache.set(key, b"1", 10.0)
    assert [cache.get(key) for key in "abc"] == [None, b"1", b"1"]
    body = Flaky(1)
    tool = registered(body.do, side_effects="read", cache=60)
    with escalade.scope():
        with pytest.raises(ValueError, match="tool_failed"):
            tool()
        assert [tool(), tool()] == [0, 0]
    assert body.ran == 2


# -------------------------------------------------------------------------------------------------- waiting for a limit


async def test_waiting_in_line() -> None:
    """With `wait`, calls that a limit would refuse wait for their turn, in the order in which they came."""
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    tool = registered(note, limits="2/0.2s", wait=True)
    journal = Journal()
    with escalade.scope(recorder=journal):
        began = time.monotonic()
        await asyncio.gather(*(tool.acall(number=number) for number in range(8)))
        took = time.monotonic() - began
    assert order == list(range(8))
    assert 0.6 <= took < 5
    assert journal.denials() == [], "waiting is no refusal"


def test_threads_wait_too() -> None:
    """The same from threads; the limit is never passed."""
    times: list[float] = []
    tool = registered(lambda: times.append(time.monotonic()), limits="2/0.5s", wait=True)
    with escalade.scope() as run:

        def use(_: int) -> None:
            with dspy.context(escalade=run):
                tool()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(use, range(8)))
    times.sort()
    assert len(times) == 8
    assert all(later - earlier >= 0.1 for earlier, later in zip(times, times[2:], strict=False))


async def test_who_leaves_the_line_lets_the_next_one_in() -> None:
    """A cancelled call costs nothing and doesn't hold up those behind it."""
    ran: list[int] = []

    async def note(number: int) -> None:
        ran.append(number)

    tool = registered(note, limits="1/2s", wait=True)
    with escalade.scope():
        tasks = [asyncio.create_task(tool.acall(number=number)) for number in range(4)]
        await asyncio.sleep(0.05)
        tasks[1].cancel()
        tasks[2].cancel()
        began = time.monotonic()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - began < 3.8, "behind one of them it takes 4 s"
    assert ran == [0, 3]
    line = tool._registered._entrance._lines
    assert (line._waiting, dict(line._inside)) == ({}, {})


def test_nobody_waits_beyond_his_deadline() -> None:
    """When the room comes too late, the refusal comes at once, with the time to wait."""
    tool = registered(lambda: 1, limits="1/h", wait=True)
    with escalade.scope(deadline=5.0):
        assert tool() == 1
        began = time.monotonic()
        with pytest.raises(RateLimited) as caught:
            tool()
        assert time.monotonic() - began < 4
        assert caught.value.retry_after is not None


@virtually
async def test_a_timeout_is_for_the_tool_and_not_for_the_line() -> None:
    """Who has no deadline waits as long as the limit takes, however short the tool's own timeout is."""

    async def note() -> float:
        return time.monotonic()

    tool = registered(note, limits="1/min", wait=True, timeout=1)
    with escalade.scope():
        first, second = await tool.acall(), await tool.acall()
    assert 60 <= second - first < 61
