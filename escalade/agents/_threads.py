"""Threads for programs and functions that block, called from an event loop.

They run in threads of our own, never in asyncio's default executor: DSPy hops through that one two to four times per
`acall`, and 12 blocking jobs of 1 s in it delay an unrelated `acall` by 1,951 ms (measured). Ours starts a thread when
none is idle, without a common limit: a common limit deadlocks as soon as blocking nodes wait for pipelines with
blocking nodes. Whoever starts many limits his own.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import dspy

from escalade.agents._sink import reaching

T = TypeVar("T")


@functools.cache
def pool() -> ThreadPoolExecutor:
    """The threads, which one process shares."""
    return ThreadPoolExecutor(max_workers=100_000, thread_name_prefix="escalade-node")


async def in_thread(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    """Run a blocking function in a thread, with this task's context (DSPy's settings, the scope).

    Cancelled, it stops waiting at once; the thread can't be stopped and ends by itself, which is why the node's scope
    is closed then: what the thread still tries to use through the guard is refused.
    """
    context = contextvars.copy_context()
    if dspy.settings.get("send_stream") is not None:
        return await _in_speaking_thread(functools.partial(_call, function, args, kwargs))
    work = functools.partial(context.run, _call, function, args, kwargs)
    return await asyncio.get_running_loop().run_in_executor(pool(), work)


async def _in_speaking_thread(work: Callable[[], T]) -> T:
    """Run it in a thread of anyio's: from those alone DSPy sends tokens."""
    import anyio

    def speaking() -> T:
        reaching.loop = True
        return work()

    limiter = anyio.CapacityLimiter(1)  # of its own: those who run the nodes have limited them already
    return await anyio.to_thread.run_sync(speaking, abandon_on_cancel=True, limiter=limiter)


def _call(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    try:
        return function(*args, **kwargs)
    except StopIteration as stop:  # a future can't carry it, and its waiter would wait for ever
        raise RuntimeError("a node raised StopIteration") from stop


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)  # a forked process has none of the threads
