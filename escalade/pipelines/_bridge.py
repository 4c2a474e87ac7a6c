"""Between sync and async: threads for blocking nodes, and an event loop for sync callers.

Blocking nodes run in threads of our own, never in asyncio's default executor: DSPy hops through that one two to four
times per `acall`, and 12 blocking jobs of 1 s in it delay an unrelated `acall` by 1,951 ms (measured). Ours starts a
thread when none is idle, without a common limit: a common limit deadlocks as soon as blocking nodes wait for pipelines
with blocking nodes. Each fan-out and each map limits its own threads instead (`THREADS`).

A sync call runs the async core on a loop that belongs to the calling thread and is kept for its next call, so that
connections survive (a new loop per call would cost 0.1 ms and every connection). Where a loop is running already, in a
notebook or in an async function, a thread of ours does it while the caller waits, as it would for any sync call.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import dspy

from escalade.agents._sink import reaching

T = TypeVar("T")

THREADS = 64
"""Blocking nodes of one fan-out or map that run at once. A thread costs about 60 us to start and 30 KB."""

_local = threading.local()


@functools.cache
def _pool() -> ThreadPoolExecutor:
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
    return await asyncio.get_running_loop().run_in_executor(_pool(), work)


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


class _Loop:
    """The event loop of one thread, closed when the thread or the interpreter ends."""

    def __init__(self) -> None:
        # With a factory the runner leaves the thread's current loop alone; it handles Ctrl-C by cancelling the run.
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        weakref.finalize(self, _close, self.runner, os.getpid())


_inherited: list[asyncio.Runner] = []
"""Loops of threads that a forked process doesn't have. To close one there would take its self-pipe out of the epoll set
that both processes share, and the parent's loop would never be woken again."""


def _close(runner: asyncio.Runner, pid: int) -> None:
    if os.getpid() != pid:
        _inherited.append(runner)
        return
    with contextlib.suppress(RuntimeError):  # collected while another loop runs in this thread: nothing is left to do
        runner.close()


def _forked() -> None:
    """A forked process has none of the threads, and needs loops of its own."""
    _pool.cache_clear()
    _local.__dict__.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _run_here(core: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if not hasattr(_local, "loop"):
        _local.loop = _Loop()
    loop: _Loop = _local.loop
    try:
        return loop.runner.run(core(), context=contextvars.copy_context())
    except (KeyboardInterrupt, SystemExit):
        _end(loop.runner.get_loop())
        raise


def _end(loop: asyncio.AbstractEventLoop) -> None:
    """End what is left of a run in which a node raised Ctrl-C itself: that stops the loop at once, and the rest of the
    run would come back to life within the next one.
    """
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            loop.run_until_complete(asyncio.wait(tasks))
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # retrieved: it has been raised, or was raised on the way out


def run_sync(core: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The result of a coroutine, for a sync caller, whether a loop is running in this thread or not."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_here(core)
    return _run_elsewhere(core)


def _run_elsewhere(core: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in a thread while the caller waits; interrupted (Ctrl-C), cancel it and wait until it has cleaned up."""
    cancel: list[Callable[[], object]] = []

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await core()

    future = _pool().submit(contextvars.copy_context().run, _run_here, cancellable)
    try:
        return future.result()
    except BaseException:
        if not future.done() and cancel:
            cancel[0]()
            wait([future])
        raise
