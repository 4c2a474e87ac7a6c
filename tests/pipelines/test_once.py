"""Calls that are made once, in pipelines: each node is a step, each item of a Map too; a further attempt is none."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import dspy
import pytest

import escalade
from escalade.pipelines.chain import Chain
from escalade.pipelines.fan_out import FanOut
from escalade.pipelines.map import Map
from escalade.pipelines.node import node
from escalade.registry.idempotency import step_path
from escalade.registry.journal import Journal


class Outbox:
    """What was sent. `send` and `asend`: tools that are used once."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.seconds = 0.0
        outbox = self

        @escalade.tool(once=True)
        def send(text: str) -> int:
            """Send."""
            time.sleep(outbox.seconds)
            outbox.sent.append(text)
            return len(outbox.sent)

        @escalade.tool(once=True)
        async def asend(text: str) -> int:
            """Send."""
            outbox.sent.append(text)
            return len(outbox.sent)

        registry = escalade.Registry([send, asend], name="outbox")
        self.send, self.asend = registry.get_tool("send"), registry.get_tool("asend")


@pytest.fixture
def outbox() -> Outbox:
    """Anew for each test."""
    return Outbox()


class Sender(dspy.Module):
    """A module that sends twice, as an agent that repeats itself does."""

    def __init__(self, tool: Any) -> None:
        super().__init__()
        self.tool = tool

    async def aforward(self, text: str) -> Any:
        await self.tool.acall(text=text)
        return dspy.Prediction(number=await self.tool.acall(text=text))


LISTENERS: list[list[Any]] = [[], [lambda event: None]]


@pytest.mark.parametrize("listen", LISTENERS, ids=["short way", "long way"])
@pytest.mark.parametrize(
    ("make", "calls"),
    [
        (lambda send, asend: Chain(a=Sender(asend), b=Sender(asend)), 2),
        (lambda send, asend: FanOut(a=Sender(asend), b=Sender(asend), join=Sender(asend)), 3),
        (lambda send, asend: FanOut({f"n{i}": Sender(asend) for i in range(9)}, concurrency=2), 9),
        (lambda send, asend: FanOut({f"n{i}": lambda text: send(text=text) for i in range(9)}), 9),
        (lambda send, asend: FanOut(a=node(Sender(asend), timeout=9.0), b=node(Sender(asend), budget="1")), 2),
        (lambda send, asend: Chain(Map(Sender(asend), over="again"), Map(Sender(asend), over="again")), 8),
        (lambda send, asend: FanOut(x=Chain(Sender(asend)), y=Chain(Sender(asend)), z=FanOut(y=Sender(asend))), 3),
    ],
)
@pytest.mark.parametrize("way", ["sync", "async"])
async def test_each_node_is_a_step(outbox: Outbox, make: Any, calls: int, listen: list[Any], way: str) -> None:
    """Two nodes, or two items, that make the same call are two calls; what one node repeats is one."""
    pipeline = make(outbox.send, outbox.asend)
    inputs = {"text": "hello", "again": [{}] * 4}
    with escalade.scope(listen=listen):
        await _run(pipeline, inputs, way)
        assert outbox.sent == ["hello"] * calls
        await _run(pipeline, inputs, way)
        assert outbox.sent == ["hello"] * calls, "the same node in the same run is the same step"
    with escalade.scope(listen=listen):
        await _run(pipeline, inputs, way)
    assert outbox.sent == ["hello"] * calls * 2


async def _run(pipeline: Any, inputs: dict[str, Any], way: str) -> None:
    await (pipeline.acall(**inputs) if way == "async" else asyncio.to_thread(pipeline, **inputs))


async def test_items_of_a_map_are_told_apart_by_place(outbox: Outbox) -> None:
    """Two equal items are two calls, from a list as from a generator; a map within a map counts anew in each item."""

    async def note(text: str) -> int:
        sent: int = await outbox.asend.acall(text=text)
        return sent

    def drawn() -> Iterator[str]:
        yield from ["same"] * 5

    with escalade.scope():
        assert sorted((await Map(note, over="texts").acall(texts=["same"] * 5)).results) == [1, 2, 3, 4, 5]
        again = await Map(note, over="texts", concurrency=2).acall(texts=drawn())
        assert sorted(again.results) == [1, 2, 3, 4, 5], "the same places of the same run"
    with escalade.scope():
        await Map(Map(note, over="texts"), over="pages").acall(pages=[{"texts": ["same"] * 2}] * 3)
    assert len(outbox.sent) == 5 + 6


def test_stragglers_in_a_node_are_attempts(outbox: Outbox) -> None:
    """`dspy.Parallel(timeout=...)` in a node starts a slow item again: one call for each node, not for each attempt."""
    outbox.seconds, started = 1.6, []
    lock = threading.Lock()

    class Slow(dspy.Module):
        def forward(self, text: str) -> int:
            with lock:
                started.append(tuple(step_path()))
            sent: int = outbox.send(text=text)
            return sent

    class Batch(dspy.Module):
        def forward(self, text: str) -> Any:
            done = dspy.Parallel(num_threads=2, timeout=1, disable_progress_bar=True)([(Slow(), {"text": text})])
            return dspy.Prediction(done=done)

    journal = Journal()
    with escalade.scope(recorder=journal):
        FanOut(a=Batch(), b=Batch())(text="hello")
        until = time.monotonic() + 5
        while len(journal.entries()) < 4 and time.monotonic() < until:
            time.sleep(0.05)
    assert sorted(started) == [("a",), ("a",), ("b",), ("b",)], "each item was started again"
    assert outbox.sent == ["hello"] * 2


def test_an_attempt_that_failed_is_made_again(outbox: Outbox) -> None:
    """A node that is run again after a failure does not repeat what it had done before."""
    tries: list[int] = []

    async def shaky(text: str) -> int:
        await outbox.asend.acall(text=text)
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return len(tries)

    pipeline = Chain(FanOut(shaky=shaky))
    with escalade.scope():
        for _ in range(2):
            with pytest.raises(ValueError, match="not yet"):
                pipeline(text="hello")
        assert pipeline(text="hello").shaky == 3
    assert outbox.sent == ["hello"]


async def test_steps_of_users_and_of_nodes_nest() -> None:
    """The path goes from the outermost name to the innermost, through threads, and each node leaves it as it was."""

    class Deep(dspy.Module):
        async def aforward(self) -> Any:
            with escalade.step("mine"):
                return dspy.Prediction(path=step_path())

    def blocking() -> list[Any]:
        return [step_path()]

    with escalade.scope(), escalade.step("outer"):
        fan = FanOut(a=Chain(Deep()), b=blocking)
        result = await fan.acall()
        assert result.a.path == ["outer", "a", "deep", "mine"]
        assert result.b == [["outer", "b"]]
        mapped = await Map(Deep(), over="xs").acall(xs=[{}, {}])
        assert [one.path for one in mapped.results] == [["outer", 0, "mine"], ["outer", 1, "mine"]]
        await Chain(Deep()).aforward()
        assert step_path() == ["outer"], "also for who calls it past dspy.Module"
    assert step_path() == []
