"""Between sync and async: threads for blocking nodes (`agents._threads`), and an event loop for sync callers.

The threads have no common limit; each fan-out and each map limits its own instead (`THREADS`).

A sync call runs the async core on a loop that belongs to the calling thread and is kept for its next call, so that
connections survive (a new loop per call would cost 0.1 ms and every connection). Where a loop is running already, in a
notebook or in an async function, a thread of ours does it while the caller waits, as it would for any sync call.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

from escalade.agents._threads import pool

T = TypeVar("T")

THREADS = 64
"""Blocking nodes of one fan-out or map that run at once. A thread costs about 60 us to start and 30 KB."""

_local = threading.local()


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
    """A forked process needs loops of its own."""
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

    future = pool().submit(contextvars.copy_context().run, _run_here, cancellable)
    try:
        return future.result()
    except BaseException:
        if not future.done() and cancel:
            cancel[0]()
            wait([future])
        raise
