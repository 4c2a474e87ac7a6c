"""Events: typed, ordered, complete; streams that can be left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import dspy
import pytest

from escalade import events, scopes
from escalade.pipelines.chain import Chain
from escalade.pipelines.events import (
    Event,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunStarted,
    Settled,
    ToolCalled,
    ToolDenied,
)
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.registry.opening import scope
from tests.pipelines.offline import no_task_left

ENDED = (NodeFinished, NodeFailed, NodeCancelled)


async def nap(seconds: float = 0.0) -> float:
    await asyncio.sleep(seconds)
    return seconds


def pay(amount: int) -> Any:
    """A step that pays and says so, as the guard does."""

    def step() -> None:
        here = scopes.require()
        here.purse.reserve(amount).settle(amount)
        events.emit(here, Settled, resource="m@1", cost=amount)

    return step


def nested() -> Chain:
    return Chain(a=FanOut(left=nap, right=Chain(x=nap, y=lambda: 1)), b=Map(nap, over="xs", item="seconds"))


def test_every_node_starts_and_ends_once() -> None:
    """Each path has one start and one end, inside those of its parent; the run's events are around them all."""
    seen: list[Event] = []
    with scope(listen=seen.append):
        nested()(xs=[0.0, 0.0])
    assert isinstance(seen[0], RunStarted)
    assert isinstance(seen[-1], RunFinished)
    started = [e.path for e in seen if isinstance(e, NodeStarted)]
    ended = [e.path for e in seen if isinstance(e, ENDED)]
    paths = ["a", "a/left", "a/right", "a/right/x", "a/right/y", "b", "b[0]", "b[1]"]
    assert sorted(started) == sorted(ended) == paths
    at = {(type(e), e.path): i for i, e in enumerate(seen)}
    for path in paths:
        parent = path.rpartition("[")[0] or path.rpartition("/")[0]
        if parent:
            assert at[NodeStarted, parent] < at[NodeStarted, path] < at[NodeFinished, path] < at[NodeFinished, parent]


def test_events_are_numbered_in_the_order_of_their_delivery() -> None:
    """From 64 threads at once, the numbers that a listener sees only grow."""
    seen: list[Event] = []

    def work(x: int) -> None:
        for _ in range(20):
            events.emit(scopes.current(), ToolCalled, tool=f"t{x}")

    with scope(listen=seen.append) as outer:
        Map(work, over="xs")(xs=range(64))
    numbers = [e.seq for e in seen]
    assert numbers == sorted(set(numbers))
    assert {e.run_id for e in seen} == {outer.run_id}
    calls = [e for e in seen if isinstance(e, ToolCalled)]
    assert len(calls) == 64 * 20
    assert all(e.path == f"[{e.tool[1:]}]" for e in calls)  # the path of the node that emitted, also in a thread


def test_costs_are_those_of_each_node() -> None:
    """Branches that spend at the same time from one purse are told apart; parents cost what is in them."""
    seen: list[Event] = []
    with scope(budget="1.00", listen=seen.append) as outer:
        outer.purse.reserve(7).settle(7)
        Chain(f=FanOut({f"b{i}": pay(100 + i) for i in range(20)}), g=pay(5))()
    cost = {e.path: e.cost for e in seen if isinstance(e, (NodeFinished, RunFinished))}
    assert [cost[f"f/b{i}"] for i in range(20)] == [100 + i for i in range(20)]
    assert cost["f"] == sum(100 + i for i in range(20))
    assert cost[""] == cost["f"] + 5 == sum(e.cost for e in seen if isinstance(e, Settled)) == int(outer.spent) - 7


def test_failures_and_cancellations_are_told() -> None:
    """The failed node, the cancelled sibling, and their parents, each with its end."""
    seen: list[Event] = []

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("boom")

    with scope(listen=seen.append), pytest.raises(ValueError, match="boom"):
        Chain(a=FanOut(bad=fails, slow=lambda: nap(5)))()
    ends = {e.path: e for e in seen if isinstance(e, ENDED)}
    assert isinstance(ends["a/slow"], NodeCancelled)
    assert isinstance(ends["a/bad"], NodeFailed)
    assert ends["a/bad"].error == ends["a"].error == "ValueError: boom"
    assert isinstance(seen[-1], RunFailed)


def test_timeouts_are_told() -> None:
    """A node that exceeds its timeout failed by NodeTimeout."""
    seen: list[Event] = []
    with scope(listen=seen.append), pytest.raises(TimeoutError):
        Chain(a=node(nap, timeout=0.02))(seconds=1.0)
    failed = [e for e in seen if isinstance(e, NodeFailed)]
    assert [e.error for e in failed] == ["NodeTimeout: no result within its timeout of 0.02 s"]


async def test_a_cancelled_run_says_so() -> None:
    """Cancelled from outside, the nodes and the run end as cancelled."""
    seen: list[Event] = []
    async with scope(listen=seen.append):
        run = asyncio.create_task(Chain(a=nap).acall(seconds=5.0))
        await asyncio.sleep(0.02)
        run.cancel()
        await asyncio.wait([run])
    assert [type(e) for e in seen] == [RunStarted, NodeStarted, NodeCancelled, RunCancelled]


def test_calls_are_numbered_in_evaluate() -> None:
    """The rows of an Evaluate share a run id; their call numbers tell them apart, in DSPy's threads too."""
    seen: list[Event] = []
    rows = [dspy.Example(question=str(i)).with_inputs("question") for i in range(12)]
    chain = Chain(answer=lambda question: f"{question}!", verdict=nap)
    with scope(listen=seen.append) as outer:
        outer_run = outer.run_id
        dspy.Evaluate(devset=rows, metric=lambda *_: 1.0, num_threads=4, display_progress=False)(chain)
    per_call = Counter(e.call for e in seen)
    assert len(per_call) == 12
    assert set(per_call.values()) == {6}  # run started, two nodes started and finished, run finished
    assert {e.run_id for e in seen} == {outer_run}


def test_a_listener_that_fails_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the other listeners are told, and the run goes on."""
    seen: list[Event] = []

    def bad(event: Event) -> None:
        raise ValueError("not my day")

    with scope(listen=[bad, seen.append]):
        assert Chain(a=lambda: 1)().a == 1
    assert len(seen) == 4
    assert "not my day" in caplog.text


def test_without_listeners_no_event_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, nothing is made."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an event was built")

    monkeypatch.setattr(events, "send", fail)
    with scope(budget="1.00"):
        Chain(a=nested(), b=pay(1))(xs=[0.0])
    nested()(xs=[0.0])


def test_events_become_flat_dicts() -> None:
    """`as_dict` is a row for a line of JSON, and events can't be changed."""
    seen: list[Event] = []
    with scope(listen=seen.append):
        Chain(a=lambda: 1)()
    row = seen[1].as_dict()
    assert row["event"] == "NodeStarted"
    assert (row["path"], row["seq"], row["call"]) == ("a", seen[1].seq, seen[1].call)
    with pytest.raises(AttributeError):
        seen[1].path = "b"  # type: ignore[misc]


@pytest.mark.parametrize("scoped", [False, True])
async def test_a_stream_ends_with_the_result(scoped: bool) -> None:
    """`stream` yields the run's events in order and last the result, with a scope or without."""
    heard: list[Event] = []

    async def follow() -> list[Event]:
        return [event async for event in nested().stream(xs=[0.0])]

    if scoped:
        async with scope(listen=heard.append):
            streamed = await follow()
        assert heard == streamed  # the scope's own listeners are told too
    else:
        streamed = await follow()
    assert [e.seq for e in streamed] == sorted(e.seq for e in streamed)
    assert isinstance(streamed[0], RunStarted)
    assert isinstance(streamed[-1], RunFinished)
    assert streamed[-1].result.results == [0.0]
    assert len({e.run_id for e in streamed}) == 1


async def test_events_of_threads_reach_the_stream_in_order() -> None:
    """Blocking nodes emit from their threads; nothing is lost, nothing overtakes."""

    def work(x: int) -> int:
        time.sleep(0.001 * (x % 3))
        return x

    streamed = [e async for e in Map(work, over="xs", concurrency=16).stream(xs=range(100))]
    assert len(streamed) == 202
    assert [e.seq for e in streamed] == sorted(e.seq for e in streamed)


async def test_a_stream_raises_what_the_run_raises() -> None:
    """After its last event, RunFailed, the stream raises the failure itself."""
    seen: list[Event] = []
    with no_task_left(), pytest.raises(ZeroDivisionError):
        async for event in Chain(a=lambda: 1 // 0).stream():
            seen += [event]
    assert [type(e) for e in seen] == [RunStarted, NodeStarted, NodeFailed, RunFailed]


@pytest.mark.parametrize("closing", [True, False])
async def test_leaving_a_stream_early_cancels_the_run_and_not_the_caller(closing: bool) -> None:
    """After `break` the run is cancelled, at once with `aclosing`; the caller goes on, unlike after DSPy's."""
    cancelled = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    pipeline = FanOut(a=slow, b=Chain(c=slow))
    with no_task_left():
        if closing:
            async with aclosing(pipeline.stream()) as stream:
                async for event in stream:
                    if isinstance(event, NodeStarted):
                        break
            assert cancelled.is_set()
        else:
            async for event in pipeline.stream():
                if isinstance(event, NodeStarted) and event.path == "b/c":
                    break
            await asyncio.wait_for(cancelled.wait(), 20)
        await asyncio.sleep(0.02)
    assert asyncio.current_task().cancelling() == 0


async def test_cancelling_the_reader_cancels_the_run() -> None:
    """The task that reads a stream is cancelled: so is the run, and nothing else."""
    with no_task_left():

        async def read() -> None:
            async for _ in Chain(a=nap).stream(seconds=5.0):
                pass

        reader = asyncio.create_task(read())
        await asyncio.sleep(0.02)
        reader.cancel()
        await asyncio.wait([reader])
        assert reader.cancelled()
        await asyncio.sleep(0.02)


def test_a_pipeline_that_a_function_calls_is_part_of_the_run() -> None:
    """A function node that calls another pipeline: its nodes stand under the function's path, in the same call."""
    seen: list[Event] = []
    inner = Chain(x=lambda: 1)
    with scope(listen=seen.append):
        Chain(outer=lambda: inner().x)()
    assert [e.path for e in seen if isinstance(e, NodeStarted)] == ["outer", "outer/x"]
    assert len({e.call for e in seen}) == 1


def test_a_listener_may_listen_to_what_it_causes() -> None:
    """A listener that emits from within is not locked out by itself."""
    seen: list[str] = []

    def echo(event: Event) -> None:
        seen.append(type(event).__name__)
        if isinstance(event, NodeStarted):
            events.emit(scopes.current(), ToolCalled, tool="echo")

    done = threading.Event()

    def run() -> None:
        with scope(listen=echo):
            Chain(a=lambda: 1)()
        done.set()

    threading.Thread(target=run, daemon=True).start()
    assert done.wait(5)
    assert seen.count("ToolCalled") == 1


def test_what_a_listener_emits_comes_after_what_it_heard() -> None:
    """For every listener, also for those who come after it and have not heard yet what it was told."""
    heard: list[list[int]] = [[], [], []]

    def listener(number: int) -> Callable[[Event], None]:
        def hear(event: Event) -> None:
            heard[number].append(event.seq)
            if isinstance(event, (NodeStarted, ToolCalled)) and number < 2:
                kind = ToolCalled if isinstance(event, NodeStarted) else ToolDenied
                events.emit(scopes.current(), kind, tool="echo")

        return hear

    with scope(listen=[listener(0), listener(1), listener(2)]):
        Chain(a=lambda: 1)()
    assert heard[0] == heard[1] == heard[2] == sorted(heard[0])
    assert len(heard[0]) == 4 + 2 + 4
