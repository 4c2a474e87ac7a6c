"""Virtual time: hours in milliseconds, in the order in which they would really pass."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import Chain, DeadlineExceeded, FanOut, NodeRetry, NodeTimeout, events, node
from escalade.registry import workers
from escalade.testing import virtual_time


async def hour(x: int) -> int:
    """A node that takes an hour."""
    await asyncio.sleep(3600)
    return x


def test_ten_hours_take_no_time() -> None:
    """Chains add up, branches take as long as the longest, sync and async; afterwards the time is the real one."""
    began, real = time.perf_counter(), time.monotonic
    with virtual_time() as clock:
        chain = Chain(**{f"s{k}": hour for k in range(8)})
        fan = FanOut(a=hour, b=Chain(one=hour, two=hour))
        assert chain(x=1).s7 == 1
        assert clock.elapsed == pytest.approx(8 * 3600)
        clock.run(fan.acall(x=1))
        assert clock.elapsed == pytest.approx(10 * 3600)
    assert time.monotonic is real
    assert time.perf_counter() - began < 5
    assert FanOut(a=lambda x: x)(x=1).a == 1


def test_deadlines_timeouts_and_pauses_go_by_it() -> None:
    """What is set in seconds is over after so many virtual ones."""
    tries: list[float] = []

    async def broken(x: int) -> int:
        tries.append(clock.elapsed)
        raise ConnectionError("no")

    with virtual_time() as clock:
        with escalade.scope(deadline=600), pytest.raises(DeadlineExceeded):
            Chain(a=hour)(x=1)
        assert clock.elapsed == pytest.approx(600)
        with pytest.raises(NodeTimeout):
            Chain(a=node(hour, timeout=60.0))(x=1)
        assert clock.elapsed == pytest.approx(660)
        with pytest.raises(ConnectionError):
            Chain(a=node(broken, retry=NodeRetry(2, base=100.0, cap=1000.0, patience=1000.0)))(x=1)
    assert len(tries) == 3
    assert tries[2] - tries[0] >= 150  # half of each pause is chance


def test_threads_hold_it_still_unless_they_sleep() -> None:
    """What blocks a thread is waited for, and a sleep in it is no real one."""

    def works(x: int) -> int:
        return sum(i * i for i in range(200_000)) * 0 + x

    def sleeps(x: int) -> int:
        time.sleep(3600)
        return x

    async def late(x: int) -> float:
        await asyncio.sleep(1800)
        return clock.elapsed

    with virtual_time() as clock:
        assert FanOut(works=node(works, timeout=0.001), late=late)(x=1).late == pytest.approx(1800)
        began = time.monotonic()
        result = FanOut(a=sleeps, b=sleeps, late=late)(x=1)
        assert (result.a, result.late) == (1, pytest.approx(3600))
        assert time.monotonic() - began == pytest.approx(3600)


def test_who_was_there_before_sleeps_really() -> None:
    """A heartbeat of somebody else's, in a thread that was there before the block, moves no time; nor is it held up."""
    beats, over = itertools.count(), threading.Event()
    seen = [0]

    def heartbeat() -> None:
        while not over.is_set():
            seen[0] = next(beats)
            time.sleep(0.001)

    thread = threading.Thread(target=heartbeat)
    thread.start()
    try:
        with virtual_time() as clock:
            began, deadline = seen[0], threading.Event()
            while seen[0] < began + 20:
                deadline.wait(0.001)  # really
            assert clock.elapsed == 0
            time.sleep(5.0)
            assert clock.elapsed == 5
    finally:
        over.set()
        thread.join()


def test_a_thread_that_was_there_before_works_for_it() -> None:
    """Workers are kept: what they do for a pipeline in the block goes by its clock."""

    def sleeps(x: int) -> int:
        time.sleep(3600)
        return x

    pool = workers.Workers(1)
    pool.submit(lambda: None).result()
    Chain(a=lambda x: x)(x=1)  # a thread for blocking nodes
    with virtual_time() as clock:
        pool.submit(lambda: time.sleep(60.0)).result()
        assert clock.elapsed == pytest.approx(60)
        assert Chain(a=sleeps)(x=1).a == 1
        assert clock.elapsed == pytest.approx(3660)


def test_a_job_of_before_counts_for_nobody() -> None:
    """One that was submitted before the block, and is done inside, doesn't end the work of another one."""
    pool, holding, begun = workers.Workers(1), threading.Event(), threading.Event()
    first = pool.submit(lambda: begun.set() or holding.wait(30))
    waiting = pool.submit(lambda: "done")  # there is one place
    begun.wait(30)

    def works(x: int) -> int:
        holding.set()
        assert (first.result(), waiting.result()) == (True, "done")
        until = real() + 0.05
        while real() < until:  # time enough for a clock that goes
            pass
        return x

    real = time.monotonic
    with virtual_time() as clock:
        assert Chain(a=node(works, timeout=0.001))(x=1).a == 1
        assert clock.elapsed < 0.001


def test_a_job_that_was_left_holds_nobody_up_and_hurries_nobody() -> None:
    """What was cut off goes on sleeping, and counts no more: others' work still holds the time still."""
    ended = threading.Event()
    real = time.monotonic

    def sleeps(x: int) -> int:
        time.sleep(3600)
        ended.set()
        return x

    def works(x: int) -> int:
        until = real() + 0.05
        while real() < until:
            pass
        return x

    with virtual_time() as clock:
        with pytest.raises(NodeTimeout):
            Chain(a=node(sleeps, timeout=60.0))(x=1)
        assert clock.elapsed == pytest.approx(60)
        assert Chain(a=node(works, timeout=0.001))(x=1).a == 1
        assert clock.elapsed == pytest.approx(60)
        assert not ended.is_set()
    assert ended.wait(30), "the clock is gone: nobody would ever wake it"


@escalade.tool(name="kit.slow", side_effects="read")
def slow_tool(x: int) -> int:
    """Takes half an hour.

    x: anything.
    """
    time.sleep(1800)
    return x


def test_tools_in_threads_go_by_it() -> None:
    """Of a registry, too."""
    registry = escalade.Registry([slow_tool])
    with virtual_time() as clock:
        with escalade.scope():
            assert Chain(a=registry.get_tool("kit.slow"))(x=2).a == 2
        assert clock.elapsed == pytest.approx(1800)


@escalade.tool(name="kit.rare", side_effects="read", limits="1/min")
async def rare_tool(x: int) -> int:
    """May be used once a minute.

    x: anything.
    """
    return x


def test_windows_of_limits_go_by_it() -> None:
    """A window that is full is free again when it is over."""
    registry = escalade.Registry([rare_tool])
    tool = registry.get_tool("kit.rare")
    with virtual_time() as clock, escalade.scope():
        assert tool(x=1) == 1
        with pytest.raises(escalade.RateLimited):
            tool(x=1)
        clock.advance(61)
        assert tool(x=1) == 1


def test_it_says_when_it_is() -> None:
    """`start` is what `time.time` says at first."""
    with virtual_time(start=0.0) as clock:
        assert time.time() == pytest.approx(0.0, abs=1e-6)
        clock.advance(5)
        assert time.time() == pytest.approx(5.0)


async def test_not_inside_of_a_running_loop() -> None:
    """That one keeps real time."""
    with pytest.raises(RuntimeError, match="write the test as a plain function"), virtual_time():
        pass


def test_there_is_one_time() -> None:
    """It doesn't nest."""
    with virtual_time(), pytest.raises(RuntimeError, match="there is one time"), virtual_time():
        pass


STEP = 0.02
"""Real seconds between two things that happen, on a machine that wakes who sleeps in a third of that."""


@st.composite
def plans(draw: Any) -> list[list[int]]:
    """Branches of steps: each ends at another multiple of `STEP`."""
    moments = draw(st.permutations(range(1, 9)))
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    rest = iter(moments)
    return [sorted(next(rest) for _ in range(size)) for size in sizes if size]


def built(plan: list[list[int]], step: float, late: list[float]) -> FanOut:
    """Notes how late each nap ended, in seconds after it should have, counted from the first one's beginning."""
    began: list[float] = []

    def nap(before: int, end: int) -> Any:
        async def work(x: int) -> dict[str, int]:
            began.append(time.monotonic())
            await asyncio.sleep((end - before) * step)
            late.append(time.monotonic() - began[0] - end * step)
            return {}

        return work

    def chain(ends: list[int]) -> Chain:
        pairs = zip([0, *ends], ends, strict=False)
        return Chain(**{f"s{k}": nap(before, end) for k, (before, end) in enumerate(pairs)})

    return FanOut({f"b{k}": chain(ends) for k, ends in enumerate(plan)})


def told(plan: list[list[int]], step: float, late: list[float]) -> list[tuple[str, str]]:
    heard: list[events.Event] = []
    with escalade.scope(listen=heard.append):
        built(plan, step, late)(x=1)
    return [(type(event).__name__, event.path) for event in heard]


def really_told(plan: list[list[int]]) -> list[tuple[str, str]]:
    """In real time. Where naps end so late that the next one's end is near, the steps are longer than that."""
    step = STEP
    while True:
        late: list[float] = []
        heard = told(plan, step, late)
        if max(late) < step / 3:
            return heard
        assert step < 2, f"a nap ended {max(late):.1f} s late"
        step *= 2


@settings(max_examples=12, deadline=None)
@given(plan=plans())
def test_the_order_is_the_real_one(plan: list[list[int]]) -> None:
    """The events of a run in virtual time are those of a real one, in the same order, every time."""
    with virtual_time():
        virtual = told(plan, STEP, [])
    with virtual_time():
        assert told(plan, STEP, []) == virtual
    assert really_told(plan) == virtual
