"""The five graphs that every framework runs, and what each must return: a wrong sum is an error and not a figure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

Sleep = Callable[[float], Awaitable[None]]

sleep: list[Sleep] = [asyncio.sleep]
"""What every sleeping node awaits, looked up as it runs: the probes put something else here."""


async def nap(seconds: float) -> int:
    await sleep[0](seconds)
    return 1


class Peer:
    """A framework. Its graphs are built at their first call, which isn't timed, and kept."""

    package = ""
    """What `import` needs, "" for nothing."""
    note = ""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def kept(self, key: Any, build: Callable[[], Any]) -> Any:
        """A graph, built once."""
        if key not in self._kept:
            self._kept[key] = build()
        return self._kept[key]

    def around(self) -> AbstractContextManager[Any]:
        """Entered around each sample of a graph: what governs it, where there is such a thing."""
        return nullcontext()

    async def fan_out(self, n: int) -> int:
        """N nodes that return 1 at once; their sum."""
        raise NotImplementedError

    async def chain(self, n: int) -> int:
        """N nodes in a row that add 1 to 0."""
        raise NotImplementedError

    async def sleepers(self, n: int, seconds: float) -> int:
        """N nodes at once that `nap(seconds)`; their sum."""
        raise NotImplementedError

    async def small(self, i: int) -> int:
        """Three nodes, i, i + 1 and i + 2, and a join: their sum."""
        raise NotImplementedError

    async def unbalanced(self) -> int:
        """Two branches of two naps, 50 then 250 ms and 250 then 50 ms, and a join: 4. Ideally 300 ms."""
        raise NotImplementedError


class Bare(Peer):
    """asyncio itself."""

    async def fan_out(self, n: int) -> int:
        async def one() -> int:
            return 1

        return sum(await asyncio.gather(*[one() for _ in range(n)]))

    async def chain(self, n: int) -> int:
        async def more(x: int) -> int:
            return x + 1

        x = 0
        for _ in range(n):
            x = await asyncio.create_task(more(x))  # a task per step, as whoever isolates its nodes has
        return x

    async def sleepers(self, n: int, seconds: float) -> int:
        return sum(await asyncio.gather(*[nap(seconds) for _ in range(n)]))

    async def small(self, i: int) -> int:
        async def plus(k: int) -> int:
            return i + k

        return sum(await asyncio.gather(plus(0), plus(1), plus(2)))

    async def unbalanced(self) -> int:
        async def pair(first: float, second: float) -> int:
            return await nap(first) + await nap(second)

        return sum(await asyncio.gather(pair(0.05, 0.25), pair(0.25, 0.05)))


class TaskGroup(Bare):
    """A TaskGroup, which cancels the siblings of a node that fails."""

    async def fan_out(self, n: int) -> int:
        async def one() -> int:
            return 1

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(n)]
        return sum(task.result() for task in tasks)

    async def sleepers(self, n: int, seconds: float) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(nap(seconds)) for _ in range(n)]
        return sum(task.result() for task in tasks)
