"""Structured concurrency: no task outlives its parent, the caller stays whole, whatever happens and whenever."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

import pytest

from escalade.errors import BadInput, NodeError
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from tests.pipelines.offline import no_task_left


async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def deep(width: int, rng: random.Random, ended: list[int]) -> FanOut:
    """Depth 4: fan-out of chains of maps of fan-outs."""

    async def leaf(x: int) -> int:
        try:
            await asyncio.sleep(rng.uniform(0, 0.01))
        finally:
            ended.append(x)
        return x

    inner = FanOut(a=leaf, b=node(leaf, timeout=1.0))
    return FanOut({f"b{i}": Chain(first=leaf, then=Map(inner, over="xs", item="x")) for i in range(width)})


async def lifetime(pipeline: Any) -> float:
    """Seconds that it takes here and now, if nobody cancels it."""
    began = time.perf_counter()
    await pipeline.acall(x=0, xs=[1, 2, 3])
    return time.perf_counter() - began


async def test_cancelled_at_random_times_nothing_is_left() -> None:
    """Cancelled 100 times at a random moment of its life: no task alive after it, the canceller not cancelled."""
    rng = random.Random(7)
    outcomes = {"cancelled": 0, "done": 0}
    usual = statistics.median([await lifetime(deep(4, rng, [])) for _ in range(5)])
    for _ in range(100):
        ended: list[int] = []
        with no_task_left():
            run = asyncio.create_task(deep(4, rng, ended).acall(x=0, xs=[1, 2, 3]))
            await asyncio.sleep(rng.uniform(0, 4 * usual))
            run.cancel()
            await asyncio.wait([run])
            count = len(ended)
        outcomes["cancelled" if run.cancelled() else "done"] += 1
        await asyncio.sleep(0)
        assert len(ended) == count  # nothing went on behind our back
    assert asyncio.current_task().cancelling() == 0
    assert min(outcomes.values()) > 5, outcomes


@pytest.mark.parametrize("kind", ["fan_out", "bounded", "map"])
async def test_a_failing_branch_cancels_its_siblings(kind: str) -> None:
    """The error is out within 50 ms of its cause, and the nine siblings that would sleep for 5 s are cancelled."""
    cancelled = 0

    async def work(x: int) -> None:
        nonlocal cancelled
        if x == 3:
            await asyncio.sleep(0.02)
            raise ValueError("boom")
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    branches = {f"b{i}": Chain(lambda x, i=i: {"x": i}, work) for i in range(10)}
    pipeline: Any = (
        Map(work, over="x") if kind == "map" else FanOut(branches, concurrency=10 if kind == "bounded" else None)
    )
    started = asyncio.get_running_loop().time()
    with no_task_left(), pytest.raises(ValueError, match="boom") as caught:
        await pipeline.acall(x=range(10) if kind == "map" else 0)
    assert asyncio.get_running_loop().time() - started < 0.5
    assert cancelled == 9
    assert isinstance(caught.value, NodeError)
    assert caught.value.path in {"[3]", "b3/work"}


async def test_timeouts_around_a_failed_pipeline_still_work() -> None:
    """A failure leaves the caller's count of cancellations as it was: asyncio.timeout raises TimeoutError afterwards.

    Python's own TaskGroup gets this wrong up to 3.12.
    """

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("boom")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            with pytest.raises(ValueError, match="boom"):
                await FanOut(a=fails, b=lambda: None).acall()
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(1)
    assert asyncio.current_task().cancelling() == 0


async def test_an_outer_timeout_cancels_all() -> None:
    """`asyncio.timeout` around a pipeline ends everything in it."""
    with no_task_left(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await FanOut(a=Map(nap, over="xs"), b=Chain(x=lambda: nap(5))).acall(xs=[5.0, 5.0])


async def test_a_node_that_fails_while_it_is_cancelled_does_not_hide_the_cancellation() -> None:
    """Who cancelled the caller gets a cancelled task, not some error of a cleanup."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            raise ValueError("cleanup failed")

    run = asyncio.create_task(FanOut(a=stubborn, b=stubborn).acall())
    await asyncio.sleep(0.01)
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()


async def test_cancelled_before_it_began() -> None:
    """A pipeline that is cancelled before its first step runs nothing, and no coroutine is left unawaited."""
    ran = []

    async def step() -> None:
        ran.append(1)

    run = asyncio.create_task(FanOut({f"b{i}": step for i in range(80)}, concurrency=7).acall())
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    assert not ran


async def test_a_bad_branch_cancels_those_that_were_started() -> None:
    """When a later branch can't even be started, the earlier ones end too."""
    with no_task_left(), pytest.raises(NodeError, match="node 'b': it needs 'missing'"):
        await FanOut(a=lambda: nap(5), b=lambda missing: 0).acall()


async def test_cancelled_while_the_map_waits_for_a_place() -> None:
    """The feeder of a full map is cancelled like everything else."""
    with no_task_left():
        run = asyncio.create_task(Map(nap, over="xs", concurrency=2).acall(xs=[5.0] * 100))
        await asyncio.sleep(0.02)
        run.cancel()
        await asyncio.wait([run])
    assert run.cancelled()


def test_a_pipeline_is_no_node_of_itself() -> None:
    """Put into itself, at any depth, it says so when it is looked at."""
    inner = Chain(a=lambda x: x)
    outer = FanOut(b=inner)
    inner.steps["a"] = outer
    for use in (lambda: outer(x=1), inner.check):
        with pytest.raises(BadInput, match="is a node of itself"):
            use()
