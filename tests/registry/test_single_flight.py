"""A cache miss: of equal calls at once one runs, the others get its result; whoever leaves strands nobody."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import escalade
from escalade import Principal, Registry, Roles, tool
from escalade.errors import BadInput, DeadlineExceeded, OutcomeUnknown, PermissionDenied, ToolTimeout
from escalade.registry.cache import MemoryCache
from escalade.registry.idempotency import Flights, Lead
from escalade.registry.journal import Journal
from tests._virtual import virtually


class Body:
    """A tool's body: how often it ran, and how many runs of one argument there were at once."""

    def __init__(self, seconds: float = 0.05, answer: Any = lambda x: {"x": x}) -> None:
        self.seconds, self.answer = seconds, answer
        self.ran: Counter[int] = Counter()
        self.inside: Counter[int] = Counter()
        self.most = 0
        self._lock = threading.Lock()

    def _enter(self, x: int) -> None:
        with self._lock:
            self.ran[x] += 1
            self.inside[x] += 1
            self.most = max(self.most, self.inside[x])

    def do(self, x: int = 0) -> Any:
        self._enter(x)
        try:
            time.sleep(self.seconds)
            return self.answer(x)
        finally:
            self.inside[x] -= 1

    async def ado(self, x: int = 0) -> Any:
        self._enter(x)
        try:
            await asyncio.sleep(self.seconds)
            return self.answer(x)
        finally:
            self.inside[x] -= 1


def cached(function: Any, **said: Any) -> Any:
    made = escalade.tool(name="t", side_effects="read", **{"cache": 60, **said})(function)
    return Registry([made], name="flight").get_tool("t")


def waiting(tool: Any) -> int:
    """Calls that are being made."""
    return len(tool._registered._manner.misses)


@pytest.mark.parametrize("body", ["do", "ado"])
async def test_one_runs_for_all(body: str) -> None:
    """From threads and from tasks together: one run, and each other call is allowed, free, and recorded as cached."""
    world, journal = Body(0.2), Journal()
    tool = cached(getattr(world, body), cost="0.01", limits="1/h")
    with escalade.scope(recorder=journal, budget="0.05") as run:

        def use(_: int) -> Any:
            with dspy.context(escalade=run):
                return tool(x=3)

        with ThreadPoolExecutor(8) as pool:
            threads = [asyncio.get_running_loop().run_in_executor(pool, use, n) for n in range(8)]
            got = await asyncio.gather(*threads, *(tool.acall(x=3) for _ in range(8)))
        assert run.spent == escalade.Money.of("0.01")
    assert got == [{"x": 3}] * 16
    assert len({id(one) for one in got}) == 16, "each has a result of his own"
    assert world.ran == {3: 1}
    assert sorted((entry.outcome, entry.source) for entry in journal.entries()) == [("ok", "")] + [("ok", "cache")] * 15
    assert (journal.denials(), waiting(tool)) == ([], 0)


@virtually
async def test_other_arguments_do_not_wait() -> None:
    """Calls that differ run at once."""
    world = Body(0.1)
    tool = cached(world.ado)
    with escalade.scope():
        began = time.monotonic()
        await asyncio.gather(*(tool.acall(x=x) for x in range(20)))
        assert time.monotonic() - began < 1.9, "one after the other takes 2 s"
    assert world.ran == dict.fromkeys(range(20), 1)


async def test_a_failure_is_shared_with_those_who_waited() -> None:
    """They get the failure, and one run was paid for; whoever comes later is served anew."""

    def answer(x: int) -> int:
        if world.ran[x] == 1:
            raise LookupError("not there")
        return x

    world = Body(answer=answer)
    tool = cached(world.ado)
    with escalade.scope():
        got = await asyncio.gather(*(tool.acall(x=1) for _ in range(5)), return_exceptions=True)
        assert [isinstance(one, LookupError) for one in got] == [True] * 5
        assert world.ran[1] == 1
        assert await tool.acall(x=1) == 1
    assert waiting(tool) == 0


async def test_a_timeout_is_shared_and_a_deadline_is_not() -> None:
    """The tool was too slow for everybody; one caller's deadline is nobody else's."""
    world = Body(0.3)
    slow = cached(world.ado, timeout=0.1)
    with escalade.scope():
        got = await asyncio.gather(*(slow.acall() for _ in range(4)), return_exceptions=True)
    assert [type(one).__mro__ for one in got if not isinstance(one, ToolTimeout)] == []
    assert world.ran[0] == 1
    tool = cached(world.ado)

    async def hurried() -> Any:
        with escalade.scope(deadline=0.1):
            return await tool.acall(x=1)

    with escalade.scope():
        first = asyncio.create_task(hurried())
        await asyncio.sleep(0.02)
        second = asyncio.create_task(tool.acall(x=1))
        third = asyncio.create_task(hurried())
        with pytest.raises(DeadlineExceeded):
            await first
        assert await second == {"x": 1}, "it took over"
        with pytest.raises(DeadlineExceeded):
            await third
    assert world.ran[1] == 2


async def test_a_budget_is_its_owners() -> None:
    """A call that its own budget refuses strands nobody: the next one makes it."""
    world = Body()
    tool = cached(world.ado, cost="0.02")

    async def poor() -> Any:
        with escalade.scope(budget="0.01", optional=True):
            return await tool.acall()

    with escalade.scope(budget="1"):
        got = await asyncio.gather(poor(), tool.acall(), poor(), return_exceptions=True)
    assert [isinstance(one, escalade.BudgetExceeded) for one in got] == [True, False, False]
    assert (world.ran[0], got[2]) == (1, {"x": 0})


@virtually
async def test_results_that_are_not_json_are_not_shared() -> None:
    """What can't be kept is made for each caller, at once and not in turn."""
    world = Body(0.2, answer=lambda x: iter([x]))
    tool = cached(world.ado)
    with escalade.scope():
        began = time.monotonic()
        got = await asyncio.gather(*(tool.acall(x=5) for _ in range(10)))
        assert time.monotonic() - began < 1.9, "one after the other takes 2 s"
    assert [list(one) for one in got] == [[5]] * 10
    assert world.ran[5] == 10


class Touchy(dict[str, int]):
    """It can't be compared."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("don't")


async def test_results_that_can_not_be_looked_at() -> None:
    """What a result's own class raises while it is being kept breaks no call and strands nobody."""
    world = Body(answer=lambda x: Touchy(x=x))
    tool = cached(world.ado)
    with escalade.scope():
        got = await asyncio.gather(*(tool.acall(x=5) for _ in range(3)))
    assert [list(one.items()) for one in got] == [[("x", 5)]] * 3
    assert waiting(tool) == 0


async def test_a_cache_that_fails_still_shares() -> None:
    """Those who wait get the result of the one that ran, also when no cache can keep it."""

    class Broken:
        def get(self, key: str) -> bytes | None:
            raise OSError("no disk")

        def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
            raise OSError("no disk")

        def clear(self, tag: str | None = None) -> None:
            raise OSError("no disk")

    world = Body()
    registry = Registry([escalade.tool(name="t", side_effects="read", cache=60)(world.ado)], name="b", cache=Broken())
    tool = registry.get_tool("t")
    with escalade.scope():
        assert await asyncio.gather(*(tool.acall() for _ in range(6))) == [{"x": 0}] * 6
        assert world.ran[0] == 1
        assert await tool.acall() == {"x": 0}
    assert world.ran[0] == 2
    assert registry.usage()[0].cache_failures > 0


class Changing:
    """A policy that is replaced while calls wait."""

    def __init__(self) -> None:
        self.roles = Roles({"user": ["t:call"]})

    @property
    def digest(self) -> str:
        return self.roles.digest

    def decide(self, principal: Principal, permission: str, effect: str = "") -> Any:
        return self.roles.decide(principal, permission, effect)

    def check_roles(self, roles: frozenset[str]) -> None:
        """Whatever they are."""


@pytest.mark.parametrize(
    ("later", "ran"), [({"user": ["t:call", "u:call"]}, 2), ({"user": ["u:call"]}, 1)], ids=["changed", "revoked"]
)
@virtually
async def test_a_policy_that_changes_meanwhile(later: dict[str, list[str]], ran: int) -> None:
    """Who has waited passes the guard as it is then: denied he gets nothing, and under another policy no old answer."""
    world, access = Body(0.2), Changing()
    tool = cached(world.ado)
    with escalade.scope(principal=Principal("ana", roles=frozenset({"user"})), access=access):
        first = asyncio.create_task(tool.acall(x=1))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(tool.acall(x=1))
        await asyncio.sleep(0.05)
        access.roles = Roles(later)
        got = await asyncio.gather(first, second, return_exceptions=True)
    assert got[0] == {"x": 1}
    assert isinstance(got[1], PermissionDenied) if ran == 1 else got[1] == {"x": 1}
    assert world.ran[1] == ran


# ------------------------------------------------------------------------------------------- who waits holds nobody up


async def test_a_sync_call_on_the_loop_of_the_one_that_runs() -> None:
    """It can't wait for what its own loop has to end: it runs by itself. One that must not be repeated says so."""
    world = Body(0.2)
    tool = cached(world.ado)
    with escalade.scope():
        first = asyncio.create_task(tool.acall(x=1))
        await asyncio.sleep(0.02)
        assert tool(x=1) == {"x": 1}
        assert await first == {"x": 1}
    assert world.ran[1] == 2
    once = Registry([escalade.tool(name="w", once=True)(world.ado)], name="w").get_tool("w")
    with escalade.scope():
        first = asyncio.create_task(once.acall(x=2))
        await asyncio.sleep(0.02)
        with pytest.raises(BadInput, match="await it"):
            once(x=2)
        assert await first == {"x": 2}
    assert world.ran[2] == 1


@pytest.mark.blocking(8_000)
async def test_a_thread_that_a_blocked_loop_waits_for() -> None:
    """A loop that is blocked by whoever waits for the very call that it has to end: the waiting ends."""
    world = Body(0.2)
    tool = cached(world.ado)
    with escalade.scope() as run:
        first = asyncio.create_task(tool.acall(x=1))
        await asyncio.sleep(0.02)

        def sync() -> Any:
            with dspy.context(escalade=run):
                return tool(x=1)

        def other_loop() -> Any:
            with dspy.context(escalade=run):
                return asyncio.run(tool.acall(x=1))

        for way in (sync, other_loop):
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(way).result(10) == {"x": 1}  # blocks the loop, as DSPy's Parallel would
        assert await first == {"x": 1}


@pytest.mark.parametrize("way", ["sync", "async", "threads"])
async def test_a_call_within_itself(way: str) -> None:
    """A cached tool that calls itself with the same arguments runs again and does not wait for itself; one that is used
    once is refused.
    """
    depth: list[int] = []

    class Ask(dspy.Module):
        def forward(self, x: int) -> Any:
            return tools[-1](x=x)

    async def ado(x: int) -> int:
        depth.append(x)
        return x if len(depth) > 2 else await tools[-1].acall(x=x)

    def do(x: int) -> int:
        depth.append(x)
        if len(depth) > 2:
            return x
        if way == "sync":
            return int(tools[-1](x=x))
        return int(dspy.Parallel(num_threads=2, disable_progress_bar=True)([(Ask(), {"x": x})])[0])

    body = ado if way == "async" else do
    tools = [cached(body)]
    with escalade.scope(deadline=90.0):
        assert (await tools[-1].acall(x=1) if way == "async" else await asyncio.to_thread(tools[-1], x=1)) == 1
        assert (len(depth), waiting(tools[-1])) == (3, 0)
        tools.append(Registry([escalade.tool(name="w", once=True)(body)], name="w").get_tool("w"))
        depth.clear()
        if way != "threads":  # DSPy's Parallel keeps errors to itself
            with pytest.raises(BadInput, match="calls itself"):
                await (tools[-1].acall(x=1) if way == "async" else asyncio.to_thread(tools[-1], x=1))
            assert depth == [1]


def test_a_call_that_was_lost_strands_nobody() -> None:
    """Ctrl-C between the gate and the run: the call can be made."""
    flights = Flights(optional=True)
    assert flights.board("k") is None
    lead = Lead(flights, "k")
    assert len(flights) == 1
    del lead
    gc.collect()
    assert len(flights) == 0
    assert flights.board("k") is None
    kept = Lead(flights, "k")
    kept.ended(lambda key: flights.deliver(key, b"1"))
    assert len(flights) == 0


def test_a_write_whose_end_was_lost_is_not_made_again() -> None:
    """Ctrl-C between the end of a tool that is used once and the note of it: it ran, so it doesn't run again."""
    ran: list[str] = []

    class Interrupted(Journal):
        def digest(self, value: Any) -> str:
            if value == "sent":
                raise KeyboardInterrupt
            return ""

    def send(text: str) -> str:
        """Sends a mail."""
        ran.append(text)
        return "sent"

    governed = Registry([tool(once=True)(send)], name="lost").get_tool("send")
    with escalade.scope(recorder=Interrupted()):
        with pytest.raises(KeyboardInterrupt):
            governed(text="hi")
        gc.collect()
        with pytest.raises(OutcomeUnknown):
            governed(text="hi")
    assert ran == ["hi"]


# ----------------------------------------------------------------------------------------------------------- any course

KEYS = 2
Caller = tuple[int, int, int | None]
"""Argument, start and (None for never) cancellation, in ticks of the loop."""

callers = st.lists(
    st.tuples(st.integers(0, KEYS - 1), st.integers(0, 12), st.none() | st.integers(0, 25)), min_size=1, max_size=8
)
runs = st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["ok", "ok", "fail", "odd"])), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@example(
    callers=[(0, 0, None), (1, 0, None), (1, 0, None), (1, 0, None)], runs=[(0, "ok"), (1, "odd"), (1, "ok")], keep=True
)
@given(callers=callers, runs=runs, keep=st.booleans())
def test_any_course_of_events(callers: list[Caller], runs: list[tuple[int, str]], keep: bool) -> None:
    """Whoever comes, leaves, fails when: never two shareable runs of one call at once, nobody is left waiting, everyone
    who stays gets the answer or a failure that happened while he waited, and no more runs than there were reasons.
    """
    asyncio.run(_course(callers, runs, keep=keep))


class Forgetful(MemoryCache):
    """Keeps nothing."""

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """It is gone at once."""


class Course:
    """A tool whose runs follow a script, and what must hold of them."""

    def __init__(self, runs: list[tuple[int, str]], *, keep: bool) -> None:
        self.script = iter(runs * 20)
        self.inside, self.began, self.came_to_nothing = Counter[int](), Counter[int](), Counter[int]()
        self.odd = [False] * KEYS
        cache = MemoryCache() if keep else Forgetful()
        made = escalade.tool(name="t", side_effects="read", cache=60)(self.body)
        self.tool = Registry([made], name="course", cache=cache).get_tool("t")

    async def body(self, x: int) -> Any:
        ticks, how = next(self.script)
        self.inside[x] += 1
        self.began[x] += 1
        self.came_to_nothing[x] += 1
        assert self.inside[x] == 1 or self.odd[x], "two at once"
        try:
            await _ticks(ticks)
        finally:
            self.inside[x] -= 1
        if how == "fail":
            raise LookupError(x)
        if how == "odd":  # not JSON: each one makes it
            self.odd[x] = True
            return object()
        self.came_to_nothing[x] -= 1
        return {"x": x}

    async def call(self, x: int, start: int) -> Any:
        await _ticks(start)
        return await self.tool.acall(x=x)


async def _ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _cancelled(task: asyncio.Task[Any], at: int) -> None:
    await _ticks(at)
    task.cancel()


async def _course(callers: list[Caller], runs: list[tuple[int, str]], *, keep: bool) -> None:
    course = Course(runs, keep=keep)
    with escalade.scope():
        tasks = [asyncio.create_task(course.call(x, start)) for x, start, _ in callers]
        cuts = [_cancelled(task, cut) for task, (_, _, cut) in zip(tasks, callers, strict=True) if cut is not None]
        await asyncio.wait_for(asyncio.gather(*cuts, *tasks, return_exceptions=True), 10)
    assert waiting(course.tool) == 0, "nobody waits for a call that nobody makes"
    for task, (x, _, cut) in zip(tasks, callers, strict=True):
        if task.cancelled():
            assert cut is not None
        elif task.exception() is not None:
            assert isinstance(task.exception(), LookupError)
        else:
            assert task.result() == {"x": x} or course.odd[x]
    if keep:
        for x in range(KEYS):
            runs_at_once = course.odd[x]  # who waited for what can't be kept makes his own, all of them at once
            assert runs_at_once or course.began[x] <= 1 + course.came_to_nothing[x], "a run only when nothing is there"


def test_one_that_ends_between_two_looks() -> None:
    """Who looked into the cache just before its result was put there does not run after all."""
    looked, kept = threading.Event(), threading.Event()

    class Slow(MemoryCache):
        def get(self, key: str) -> bytes | None:
            found = super().get(key)
            if threading.current_thread().name.startswith("late") and not looked.is_set():
                looked.set()
                kept.wait(5)
            return found

    world = Body(0.0)
    made = escalade.tool(name="t", side_effects="read", cache=60)(world.do)
    tool = Registry([made], name="slow", cache=Slow()).get_tool("t")
    with escalade.scope() as run, ThreadPoolExecutor(1, thread_name_prefix="late") as pool:

        def use() -> Any:
            with dspy.context(escalade=run):
                return tool(x=1)

        late = pool.submit(use)
        assert looked.wait(5)
        tool(x=1)
        kept.set()
        assert late.result(5) == {"x": 1}
    assert world.ran[1] == 1
