"""What a durable run has finished is not run again: each node asks the scope's journal by the path of its step."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import dspy
import pytest

import escalade
from escalade import Chain, FanOut, Group, Map, NodeRetry, events, node, scopes


class Kept:
    """A journal in a dict, for nodes alone."""

    def __init__(self) -> None:
        self.steps: dict[tuple[str | int, ...], Any] = {}

    async def step(
        self,
        path: list[str | int],
        work: Callable[[], Awaitable[Any]],
        fields: Mapping[str, Any] | None = None,
        reused: Callable[[], object] | None = None,
    ) -> Any:
        assert isinstance(fields, dict)
        if tuple(path) in self.steps:
            if reused is not None:
                reused()
        else:
            self.steps[tuple(path)] = await work()
        return self.steps[tuple(path)]


class Ran:
    """Counts its runs, and fails while it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.broken = False

    async def __call__(self, x: int) -> int:
        self.count += 1
        if self.broken:
            raise ValueError("broken")
        return x + 1


def run(pipeline: Any, journal: Any, heard: list[events.Event] | None = None, **inputs: Any) -> Any:
    listen = () if heard is None else (heard.append,)
    with escalade.scope(budget="1.00") as scope:
        durable = dataclasses.replace(scope, journal=journal, listeners=listen)
        with dspy.context(**{scopes.KEY: durable}):
            return pipeline(**inputs)


def test_finished_nodes_of_an_interrupted_run_are_reused() -> None:
    """After a failure, a second execution with the same journal runs only what had not finished."""
    first, second, journal = Ran(), Ran(), Kept()
    pipeline = Chain(a=first, x=lambda a: a, b=second)
    second.broken = True
    with pytest.raises(ValueError, match="broken"):
        run(pipeline, journal, x=1)
    second.broken = False
    heard: list[events.Event] = []
    assert run(pipeline, journal, heard, x=1).b == 3
    assert (first.count, second.count) == (1, 2)
    reused = [event.path for event in heard if isinstance(event, events.NodeReused)]
    assert reused == ["a", "x"]
    assert {event.source for event in heard if isinstance(event, events.NodeReused)} == {"journal"}
    started = [event.path for event in heard if isinstance(event, events.NodeStarted)]
    assert started == ["b"], "what is reused does not start"


def test_steps_are_known_by_their_path() -> None:
    """Nested pipelines, branches and items of a map have paths of their own, whatever order they finish in."""
    journal = Kept()

    async def half(x: int) -> float:
        return x / 2

    pipeline = Chain(many=FanOut(one=Map(half, over="xs"), two=lambda xs: len(xs) * 2))
    run(pipeline, journal, xs=[1, 2])
    assert set(journal.steps) == {
        ("many",),
        ("many", "one"),
        ("many", "one", 0),
        ("many", "one", 1),
        ("many", "two"),
    }
    run(pipeline, journal, xs=[1, 2])
    assert len(journal.steps) == 5


def test_a_function_that_calls_a_pipeline_twice_is_one_node() -> None:
    """The nodes of the two calls have the same paths, so they are not kept; the function's result is."""
    journal, inner = Kept(), Chain(y=lambda x: x + 1)

    async def twice(x: int) -> list[int]:
        return [(await inner.acall(x=x)).y, (await inner.acall(x=x * 10)).y]

    assert run(Chain(twice), journal, x=1).twice == [2, 11]
    assert set(journal.steps) == {("twice",)}


def test_what_a_node_came_to_is_kept_and_not_how() -> None:
    """After retries and with a fallback, the node's result is kept under its own path; it is reused without them."""
    broken, journal = Ran(), Kept()
    broken.broken = True
    steady = Ran()
    made = node(broken, retry=NodeRetry(1, base=0.001, on=ValueError), fallback=steady, cache=5.0, once=True)
    pipeline = Chain(a=made, b=node(lambda a: a * 2, group=Group("journaled", 1)))
    for _ in range(2):
        assert run(pipeline, journal, x=1).b == 4
    assert (broken.count, steady.count) == (2, 1)
    assert set(journal.steps) == {("a",), ("b",)}
