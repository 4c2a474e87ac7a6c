"""Map: order, items as fields, flat memory, results as they finish."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escalade.errors import BadInput, NodeError
from escalade.pipelines.chain import Chain
from escalade.pipelines.map import Map
from tests._virtual import virtually
from tests.pipelines.offline import Gauge, no_task_left, offline_lm


async def square(x: int) -> int:
    return x * x


@given(items=st.lists(st.integers(), max_size=60), limit=st.integers(1, 9), seed=st.integers(0, 99))
def test_order_is_kept_and_concurrency_never_exceeded(items: list[int], limit: int, seed: int) -> None:
    """Results stand in the order of the items, whoever finishes first; at most `limit` are in work."""
    gauge, rng = Gauge(), random.Random(seed)

    async def work(x: int) -> int:
        with gauge.inside():
            await asyncio.sleep(rng.choice([0, 0, 0.0005]))
            return x * 2

    assert Map(work, over="xs", concurrency=limit)(xs=items).results == [x * 2 for x in items]
    assert gauge.most <= limit
    assert gauge.entered == len(items)


async def test_a_hundred_thousand_items_take_few_tasks() -> None:
    """Items are drawn when there is a place for them: no more tasks than places, from a generator of any length."""
    most, drawn, done = 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal drawn
        while drawn < 100_000:
            drawn += 1
            yield drawn

    async def work(x: int) -> int:
        nonlocal most, done
        if x % 1000 == 0:
            most = max(most, len(asyncio.all_tasks()))
            await asyncio.sleep(0)
        assert drawn - done <= 51
        done += 1
        return x

    result = await Map(work, over="xs", concurrency=50).acall(xs=items())
    assert len(result.results) == 100_000
    assert most <= 50 + 5


async def test_async_iterators_are_drawn_and_closed() -> None:
    """An async generator is a source too, and is closed when an item fails."""
    closed = []

    async def source() -> AsyncIterator[int]:
        try:
            for x in range(100):
                await asyncio.sleep(0)
                yield x
        finally:
            closed.append(True)

    async def work(x: int) -> int:
        return x if x < 50 else 1 // 0

    with no_task_left(), pytest.raises(ZeroDivisionError):
        await Map(work, over="xs", concurrency=2).acall(xs=source())
    assert closed == [True]


def test_other_inputs_are_shared() -> None:
    """Every worker sees the inputs besides the list."""
    assert Map(lambda x, y: x + y, over="xs")(xs=[1, 2], y=10).results == [11, 12]


def test_dicts_and_examples_are_spread() -> None:
    """An item with fields is handed over as those fields; `item=` hands it over whole."""
    rows: list[Any] = [
        {"a": 1, "b": 2},
        dspy.Example(a=3, b=4, label=0).with_inputs("a", "b"),
        dspy.Prediction(a=5, b=6),
    ]
    assert Map(lambda a, b: a * b, over="rows")(rows=rows).results == [2, 12, 30]
    assert Map(lambda row: row["a"], over="rows", item="row")(rows=rows[:1]).results == [1]


def test_a_predictor_maps_over_texts() -> None:
    """The one input field of a signature is the item."""
    with dspy.context(lm=offline_lm()):
        result = Map(dspy.Predict("text -> summary"), over="texts")(texts=["a", "b", "c"])
    assert [r.summary for r in result.results] == ["summary(a)", "summary(b)", "summary(c)"]


def test_a_map_is_a_step() -> None:
    """In a chain it takes the list from the step before, and hands on `results`."""
    chain = Chain(
        lambda text: {"xs": [int(n) for n in text.split()]},
        Map(square, over="xs"),
        lambda results: {"sum": sum(results)},
    )
    assert chain(text="1 2 3").sum == 14


@pytest.mark.parametrize(
    ("pipeline", "inputs", "message"),
    [
        (Map(square, over="xs"), {"ys": []}, "the call gave: ys"),
        (Map(square, over="xs"), {"xs": "text"}, "expected a list"),
        (Map(square, over="xs"), {"xs": 3}, "expected a list"),
        (Map(lambda a, b: 0, over="xs"), {"xs": [1]}, "which field is the item"),
        (Map(lambda a, b: 0, over="xs"), {"xs": [{"a": 1}]}, "the worker needs 'b'"),
    ],
)
def test_bad_input_is_refused_in_one_line(pipeline: Map, inputs: dict[str, Any], message: str) -> None:
    """A missing list, no list, or an item that fits no field: one sentence."""
    with pytest.raises(BadInput, match=message):
        pipeline(**inputs)
    with pytest.raises(BadInput, match="concurrency"):
        Map(square, concurrency=-1)


def test_the_failing_item_is_named() -> None:
    """The path of an item is its index."""
    with pytest.raises(NodeError) as caught:
        Chain(xs=Map(lambda x: 1 // x, over="xs"))(xs=[1, 1, 0, 1])
    assert caught.value.path == "xs[2]"


async def test_results_come_as_they_finish() -> None:
    """`as_completed` yields the quick ones first, with their index."""

    async def nap(x: float) -> float:
        await asyncio.sleep(x)
        return x

    found = [pair async for pair in Map(nap, over="xs").as_completed(xs=[0.15, 0.01, 0.08])]
    assert found == [(1, 0.01), (2, 0.08), (0, 0.15)]


async def test_as_completed_waits_for_its_reader() -> None:
    """A slow reader holds the workers back: no more results wait than places, so memory is flat."""
    started = 0

    async def work(x: int) -> int:
        nonlocal started
        started += 1
        return x

    taken = 0
    async with aclosing(Map(work, over="xs", concurrency=4).as_completed(xs=range(10_000))) as results:
        async for _ in results:
            taken += 1
            await asyncio.sleep(0.001)
            assert started - taken <= 9  # 4 at work, 4 waiting, 1 in hand
            if taken == 30:
                break


async def test_leaving_as_completed_early_cancels_the_rest_and_not_the_caller() -> None:
    """After a break nothing is in work, and the caller goes on."""

    async def nap(x: float) -> float:
        await asyncio.sleep(x)
        return x

    with no_task_left():
        async with aclosing(Map(nap, over="xs").as_completed(xs=[0.0, 5.0, 5.0])) as results:
            async for _ in results:
                break
        await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0


async def test_a_failure_arrives_after_what_came_before_it() -> None:
    """`as_completed` hands over the finished items and then raises."""

    async def work(x: int) -> int:
        await asyncio.sleep(0.01 * x)
        return 6 // (3 - x)

    seen = []
    with pytest.raises(ZeroDivisionError):
        async for index, _ in Map(work, over="xs").as_completed(xs=[0, 1, 2, 3]):
            seen.append(index)
    assert seen == [0, 1, 2]


@virtually
async def test_a_thousand_waiting_items_wait_together() -> None:
    """1,000 items of 50 ms take 50 ms."""

    async def nap(x: int) -> int:
        await asyncio.sleep(0.05)
        return x

    started = time.perf_counter()
    await Map(nap, over="xs").acall(xs=range(1000))
    assert time.perf_counter() - started == pytest.approx(0.05)
