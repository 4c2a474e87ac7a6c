"""Groups: so many nodes at once, over tasks, loops and threads; fair, by priority, within the deadline."""

from __future__ import annotations

import asyncio
import copy
import itertools
import pickle
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import escalade
from escalade import BadInput, Chain, DeadlineExceeded, FanOut, Group, Map, events, node
from tests._virtual import virtually
from tests.pipelines.offline import Gauge, no_task_left

_numbers = itertools.count()


def new_group(limit: int) -> Group:
    return Group(f"group {next(_numbers)}", limit)


async def waiting(group: Group, many: int) -> None:
    """Until so many wait in line."""
    for _ in range(1000):
        if group.queue.waiting(group.name) == many:
            return
        await asyncio.sleep(0)
    raise AssertionError(many)


@virtually
async def test_a_group_limits_over_pipelines() -> None:
    """Three pipelines at once, one limit; who had to wait is told."""
    group, gauge = new_group(2), Gauge()
    heard: list[events.Event] = []

    async def work(x: int) -> int:
        with gauge.inside():
            await asyncio.sleep(0.01)
            return x

    one = Map(node(work, group=group), over="xs")
    two = FanOut({f"b{i}": node(work, group=group.name) for i in range(5)})
    three = Chain(a=node(one, name="inner"))
    with escalade.scope(listen=heard.append):
        await asyncio.gather(one.acall(xs=[1, 2, 3]), two.acall(x=1), three.acall(xs=[1, 2]))
    assert gauge.entered == 10
    assert gauge.most == 2
    queued = [event for event in heard if isinstance(event, events.NodeQueued)]
    assert 5 <= len(queued) <= 8
    assert all(event.seconds > 0 for event in queued)
    assert group.queue.waiting(group.name) == 0


def test_a_group_limits_over_threads_and_loops() -> None:
    """Sync calls in threads, each with a loop of its own, and blocking nodes."""
    group, gauge = new_group(3), Gauge()

    def work(x: int) -> int:
        with gauge.inside():
            time.sleep(0.003)
            return x

    pipeline = Map(node(work, group=group), over="xs")
    threads = [threading.Thread(target=pipeline, kwargs={"xs": list(range(6))}) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (gauge.entered, gauge.most) == (36, 3)


@settings(max_examples=25, deadline=None)
@given(
    limit=st.integers(1, 4),
    plan=st.lists(
        st.tuples(st.integers(-2, 2), st.floats(0, 0.003), st.sampled_from(["ok", "fail", "cancel", "timeout"])),
        min_size=1,
        max_size=30,
    ),
)
def test_the_limit_is_never_passed(limit: int, plan: list[tuple[int, float, str]]) -> None:
    """However nodes end: all places are free after it."""
    group, gauge = new_group(limit), Gauge()

    async def run() -> None:
        async def work(seconds: float, end: str) -> None:
            with gauge.inside():
                await asyncio.sleep(seconds)
                if end == "fail":
                    raise ValueError(end)

        tasks = []
        for priority, seconds, end in plan:
            timeout = 0.001 if end == "timeout" else None
            pipeline = Chain(a=node(work, group=group, priority=priority, timeout=timeout))
            tasks.append(asyncio.ensure_future(pipeline.acall(seconds=seconds, end=end)))
            if end == "cancel":
                asyncio.get_running_loop().call_later(seconds, tasks[-1].cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
    assert gauge.now == 0
    assert gauge.most <= limit
    assert not group.queue._inside
    assert not group.queue._waiting


@virtually
async def test_higher_priority_first_then_first_come() -> None:
    """Those who wait go in by priority; within one, in the order in which they came."""
    group, gate = new_group(1), asyncio.Event()
    order: list[str] = []

    async def work(name: str) -> None:
        order.append(name)
        await gate.wait()

    async def call(name: str, priority: Any) -> None:
        await Chain(a=node(work, group=group, priority=priority)).acall(name=name)

    tasks = [asyncio.ensure_future(call("first", None))]
    await asyncio.sleep(0.01)
    coming = [("b1", "batch"), ("u1", None), ("h1", 5), ("u2", "interactive"), ("b2", -1), ("h2", 5), ("h9", 9)]
    for name, priority in coming:
        tasks.append(asyncio.ensure_future(call(name, priority)))
        await waiting(group, len(tasks) - 1)
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "h9", "h1", "h2", "u1", "u2", "b1", "b2"]


@virtually
async def test_the_priority_around_counts() -> None:
    """A block's priority, or an outer node's, is that of the nodes in it."""
    group, gate = new_group(1), asyncio.Event()
    order: list[str] = []

    async def work(name: str) -> None:
        order.append(name)
        await gate.wait()

    plain = Chain(a=node(work, group=group))

    async def batch() -> None:
        with escalade.priority("batch"):
            await plain.acall(name="batch")

    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(plain.acall(name="first"))]
    await asyncio.sleep(0.01)
    lifted = Chain(outer=node(plain, priority=7))
    for call in (batch(), plain.acall(name="usual"), lifted.acall(name="lifted")):
        tasks.append(asyncio.ensure_future(call))
        await waiting(group, len(tasks) - 1)
    gate.set()
    await asyncio.gather(*tasks)
    assert order == ["first", "lifted", "usual", "batch"]


@virtually
async def test_waiting_ends_with_the_deadline() -> None:
    """Who waits for a place has nothing begun when the deadline comes, and leaves the line."""
    group = new_group(1)
    ran: list[float] = []

    async def work(seconds: float) -> None:
        ran.append(seconds)
        await asyncio.sleep(seconds)

    pipeline = Chain(a=node(work, group=group))
    holder = asyncio.ensure_future(pipeline.acall(seconds=0.2))
    await asyncio.sleep(0.01)
    began = time.perf_counter()
    with pytest.raises(DeadlineExceeded), escalade.scope(deadline=0.05):
        await pipeline.acall(seconds=0.0)
    assert time.perf_counter() - began < 0.15
    assert group.queue.waiting(group.name) == 0
    await holder
    assert ran == [0.2]


@virtually
async def test_the_timeout_begins_with_the_place() -> None:
    """Waiting isn't counted against the node's own timeout; and retries give the place up while they pause."""
    group = new_group(1)
    calls: list[int] = []

    async def work(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.05)
        if calls.count(x) == 1 and x == 0:
            raise ConnectionError("gone")
        return x

    made = node(work, group=group, timeout=0.5, retry=escalade.NodeRetry(1, base=0.06, cap=0.06))
    results = await Map(made, over="xs").acall(xs=list(range(4)))
    assert results.results == [0, 1, 2, 3]
    assert calls.count(0) == 2
    assert calls[1] != 0


async def test_a_node_inside_of_its_own_group_is_refused() -> None:
    """It would wait for a place that only its own end gives back."""
    group = new_group(2)
    inner = Chain(b=node(lambda x: x, group=group))
    with no_task_left(), pytest.raises(BadInput, match="a node around this one has a place in it") as caught:
        await Chain(a=node(inner, group=group)).acall(x=1)
    assert getattr(caught.value, "path", "") == "a/b"
    assert not group.queue._inside


def test_a_group_is_known_by_name() -> None:
    """The same name is the same group; another limit is refused; copies and pickles are the same group."""
    group = new_group(2)
    assert Group(group.name, 2).queue is group.queue
    assert copy.deepcopy(group).queue is group.queue
    assert pickle.loads(pickle.dumps(group)).queue is group.queue
    with pytest.raises(BadInput, match="has a limit of 2 in this process, not 3"):
        Group(group.name, 3)
    for name, limit in (("", 1), ("g", 0), ("g", True), ("g", 1.5)):
        with pytest.raises(BadInput, match="group"):
            Group(name, limit)  # type: ignore[arg-type]
