"""Async iterators over work in progress that can be left at any time.

The work runs in a task of its own and hands over through a queue; leaving the iterator cancels that task and waits for
it. So the cancellation never meets the caller's task, which is what DSPy's `streamify` does when it is left early.
"""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import AsyncGenerator, Coroutine
from typing import Any


class Pipe:
    """From any thread to one reader, in order: a listener for events. `put` waits while `ahead` items aren't taken
    yet. `on`: takes only items of these classes, () for all. `results`: as a listener, it is told what nodes return.
    `left`: the reader takes no more.
    """

    def __init__(self, ahead: int = 0, *, on: tuple[type, ...] = (), results: bool = False) -> None:
        self._items: collections.deque[Any] = collections.deque()
        self._ahead, self._on, self.left, self.results = ahead, on, False, results
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._ready, self._room = asyncio.Event(), asyncio.Event()

    def __call__(self, item: Any) -> None:
        if self.left or (self._on and not isinstance(item, self._on)):
            return
        self._items.append(item)
        if threading.get_ident() == self._thread:
            self._ready.set()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)

    async def put(self, item: Any) -> None:
        await self.room()
        self(item)

    async def room(self) -> None:
        """Wait, on any loop, while as many items as may be ahead aren't taken yet."""
        if len(self._items) < self._ahead or self.left:
            return
        if asyncio.get_running_loop() is self._loop:
            await self._until_room()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._until_room(), self._loop))

    async def _until_room(self) -> None:
        while len(self._items) >= self._ahead and not self.left:
            self._room.clear()
            await self._room.wait()

    def leave(self) -> None:
        """The reader takes no more: nobody waits for him, and nothing is kept for him."""
        self.left = True
        self._items.clear()
        self._room.set()

    async def more(self, task: asyncio.Task[Any]) -> bool:
        """Wait for an item; False when the task is done and all is taken."""
        while not self._items:
            if task.done():
                return False
            self._ready.clear()
            await self._ready.wait()
        return True

    def take(self) -> Any:
        self._room.set()
        return self._items.popleft()


async def carried(pipe: Pipe, work: Coroutine[Any, Any, Any]) -> AsyncGenerator[Any, None]:
    """What `work` puts into the pipe while it runs in a task of its own. Raises what it raises, after what came
    before.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: pipe._ready.set())
    try:
        while await pipe.more(task):
            yield pipe.take()
        await task
    finally:
        pipe.leave()
        if not task.done():
            await _drain(task)


async def _drain(task: asyncio.Task[Any]) -> None:
    """Cancel the task and wait until it is done, whatever it raises."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # retrieved: what it raised while it was being cancelled interests nobody
