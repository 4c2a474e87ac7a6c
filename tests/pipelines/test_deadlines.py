"""A scope's deadline reaches all that nodes do: models, tools, threads, pauses of retries, waits for places."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dspy
import pytest

import escalade
from escalade import (
    Chain,
    DeadlineExceeded,
    FanOut,
    Gateway,
    Group,
    Ledger,
    Map,
    NodeRetry,
    NodeTimeout,
    SimModel,
    World,
    node,
)

LATE = 3.0
"""Seconds beyond a deadline that a loaded machine is forgiven. What is waited for takes 5 s and more."""


@contextmanager
def soon(seconds: float) -> Iterator[None]:
    """The block ends within this time, and not much before."""
    began = time.perf_counter()
    yield
    assert 0.5 * seconds <= time.perf_counter() - began <= seconds + LATE


def slow_model() -> Any:
    models = {"slow": SimModel(skill=1.0, latency=5.0, price_in="1", price_out="1")}
    return Gateway(World(models).as_models()).lm("slow")


class Asks(dspy.Module):  # type: ignore[misc]
    """Asks a model, async."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> Any:
        return await self.predict.acall(question=question)


def asks(question: str) -> Any:
    """Asks a model, blocking a thread."""
    return dspy.Predict("question -> answer")(question=question)


@pytest.mark.parametrize("target", [Asks(), asks], ids=["async", "thread"])
@pytest.mark.parametrize(
    "wrap", [lambda target: target, lambda target: node(target, retry=3)], ids=["plain", "retried"]
)
async def test_models_end_with_the_deadline(target: Any, wrap: Callable[[Any], Any]) -> None:
    """The request is given up when time is up, at any depth, and its money is settled."""
    ledger = Ledger()
    with dspy.context(lm=slow_model()), soon(0.2), pytest.raises(DeadlineExceeded):
        with escalade.scope(budget="1.00", deadline=0.2, ledger=ledger) as scope:
            await FanOut(a=Chain(b=wrap(target))).acall(question="q")
    assert await _settled(scope)


async def _settled(scope: Any) -> bool:
    for _ in range(1000):
        if scope.purse.held == 0:
            return True
        await asyncio.sleep(0.01)
    return False


def test_a_node_in_a_thread_passes_its_timeout_on() -> None:
    """What it asks a model is given up with the node, so that the thread ends too; each attempt has its own time."""
    ended: list[tuple[str, float]] = []
    over = threading.Event()

    def asking(question: str) -> Any:
        began = time.perf_counter()
        try:
            return asks(question)
        except BaseException as error:
            ended.append((type(error).__name__, time.perf_counter() - began))
            if len(ended) == 2:
                over.set()
            raise

    with dspy.context(lm=slow_model()), escalade.scope(budget="1.00"), pytest.raises(NodeTimeout):
        Chain(a=node(asking, timeout=0.5, retry=NodeRetry(1, base=0.001)))(question="q")
    assert over.wait(10.0)
    assert [name for name, _ in ended] == ["DeadlineExceeded"] * 2
    assert all(seconds < 0.5 + LATE for _, seconds in ended)


@pytest.mark.parametrize("threaded", [True, False])
async def test_tools_end_with_the_deadline(threaded: bool) -> None:
    """A governed tool is given up with the deadline of the scope around the pipeline."""

    @escalade.tool()
    async def search(text: str) -> str:
        """Search."""
        await asyncio.sleep(9.0)
        return text

    tool = escalade.Registry([search], name="found").get_tool("search")

    async def waits(text: str) -> Any:
        return await tool.acall(text=text)

    def blocks(text: str) -> Any:
        return tool(text=text)

    with soon(0.2), pytest.raises(DeadlineExceeded), escalade.scope(deadline=0.2):
        await Chain(a=Map(blocks if threaded else waits, over="texts")).acall(texts=["a"])


async def test_pauses_and_places_end_with_the_deadline() -> None:
    """A retry's pause that would outlast it isn't begun; who waits for a place in a group waits no longer."""

    async def fails(x: int) -> int:
        raise ConnectionError("gone")

    with soon(0.0), pytest.raises(ConnectionError), escalade.scope(deadline=3.0):
        await Chain(a=node(fails, retry=NodeRetry(5, base=20.0, cap=20.0))).acall(x=1)

    async def holds(x: int) -> int:
        await asyncio.sleep(5.0)
        return x

    made = node(holds, group=Group("deadlines", 1))
    with soon(0.15), pytest.raises(DeadlineExceeded), escalade.scope(deadline=0.15):
        await Map(made, over="xs").acall(xs=[1, 2, 3])


async def test_a_tighter_deadline_inside_is_the_inner_ones() -> None:
    """A scope that a node opens narrows for what is in it, and for nobody else."""
    left: dict[str, float] = {}

    async def looks(x: int) -> int:
        left["inner"] = escalade.scopes.require().time_left()
        return x

    inner = Chain(a=looks)

    async def narrows(x: int) -> int:
        with escalade.scope(deadline=1.0):
            await inner.acall(x=x)
        left["outer"] = escalade.scopes.require().time_left()
        return x

    with escalade.scope(deadline=50.0):
        await Chain(b=node(narrows, retry=1)).acall(x=1)
    assert left["inner"] <= 1.0
    assert 40.0 < left["outer"] <= 50.0
