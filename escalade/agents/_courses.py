"""One course of action for sync and async callers: a generator that yields what to do next, is sent what came of it,
and returns the outcome. What is decided on the way is written once; only the doing differs. A step may be several jobs
at once: `together`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

Step = TypeVar("Step")
Outcome = TypeVar("Outcome")
Result = TypeVar("Result")


def driven(course: Generator[Step, Any, Outcome], do: Callable[[Step], Any]) -> Outcome:
    """The outcome, after `do` has been called with each step. What `do` raises ends the course."""
    done: Any = None
    while True:
        try:
            step = course.send(done)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # the generator's declared return type
        done = do(step)


async def adriven(course: Generator[Step, Any, Outcome], do: Callable[[Step], Awaitable[Any]]) -> Outcome:
    """`driven`, on the event loop."""
    done: Any = None
    while True:
        try:
            step = course.send(done)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # the generator's declared return type
        done = await do(step)


async def together(jobs: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order. A mistake in one cancels the others and is raised as it is."""
    if len(jobs) == 1:
        return [await jobs[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    return [task.result() for task in tasks]
