"""The engine without an engine: asyncio tasks on a loop of its own, in one process.

Over a store in a file it is durable on one process: `recover()` takes up what the last one left. Two processes that
both did would execute everything twice, so the first to come holds a lock beside the file, for as long as it lives;
what others start or resume meanwhile, it takes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, StoreUnavailable
from escalade.pipelines.durable.execution import Host, Interrupted, execute
from escalade.pipelines.durable.slots import ServerLock
from escalade.pipelines.durable.store import RunRow
from escalade.registry.stores.owners import after_fork

logger = logging.getLogger(__name__)

CONCURRENCY = 100
"""Runs at once."""
POLL = 0.25
"""Seconds between looks at what other processes asked for: to cancel, to answer, to go on."""
_LONGEST = 30.0
"""Seconds between attempts at a run while its store is away."""


class Inline:
    """An `Engine` in this process. `concurrency`: runs at once; more wait, the larger priority first, then the older
    one. Raises BadInput.
    """

    def __init__(self, *, concurrency: int = CONCURRENCY) -> None:
        if not isinstance(concurrency, int) or concurrency < 1:
            raise BadInput(f"concurrency: expected runs at once, 1 or more, got {concurrency!r}")
        self.concurrency = concurrency
        self._host: Host | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, float, str, int]] = []
        self._known: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._slot: Slot | ServerLock | None = None
        self._closing = False
        after_fork(self)

    def _forked(self) -> None:
        """A child executes nothing until it is asked to, and then only if its parent doesn't."""
        self._loop = self._thread = None
        self._lock, self._waiting, self._known, self._tasks = threading.Lock(), [], {}, {}

    @property
    def host(self) -> Host:
        """What it was told by `attach`."""
        if self._host is None:
            raise BadInput("this engine belongs to no Runs yet: Runs(engine=Inline())")
        return self._host

    def attach(self, host: Host) -> None:
        """Raises BadInput for an engine that has a host already."""
        if self._host is not None:
            raise BadInput("an engine belongs to one Runs; make another one")
        self._host = host
        host.owner = host.owner or f"inline-{os.getpid()}"
        path, url = getattr(host.store, "path", None), getattr(host.store, "url", None)
        if path is not None:
            self._slot = Slot(Path(f"{path}.lock"))
        elif url is not None:
            self._slot = ServerLock(url, "inline")

    def submit(self, run: RunRow) -> None:
        """Execute it, unless another process executes: that one takes it from the store."""
        if self.mine():
            self._call(partial(self._add, run))

    def cancel(self, run_id: str) -> None:
        self.host.stop(run_id)

    def mine(self) -> bool:
        """Does this process execute the runs of the store? It does where no other one does yet."""
        return self._slot is None or self._slot.take()

    def recover(self) -> int:
        """Take up what the last process left: queued and running runs."""
        if not self.mine():
            return 0
        self._started()
        left = self.host.store.select(status=("queued", "running"))
        fresh = [run for run in left if run.run_id not in self._known]
        for run in fresh:
            self._call(partial(self._add, run))
        return len(fresh)

    def close(self, timeout: float | None = None) -> None:
        """Take no more; what is not finished within `timeout` seconds is put back and goes on when somebody recovers
        it.
        """
        with self._lock:
            loop, thread, self._thread = self._loop, self._thread, None
            self._closing = True
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._drain(timeout or 0.0), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join()
        if self._slot is not None:
            self._slot.give()

    def run(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._started())

    # -- on the loop

    def _add(self, run: RunRow) -> None:
        if self._closing or self._known.get(run.run_id, 0) >= run.turn:
            return
        self._known[run.run_id] = run.turn
        heapq.heappush(self._waiting, (-run.priority, run.created, run.run_id, run.turn))
        self._next()

    def _next(self) -> None:
        while self._waiting and len(self._tasks) < self.concurrency and not self._closing:
            *_, run_id, turn = heapq.heappop(self._waiting)
            if run_id in self._tasks:  # its last attempt is just ending
                self._later(run_id, turn)
                continue
            # Without a context of whoever started it: a run is the same in every process.
            task = contextvars.Context().run(asyncio.get_running_loop().create_task, self._attempts(run_id))
            self._tasks[run_id] = task
            task.add_done_callback(partial(self._over, run_id, turn))

    def _later(self, run_id: str, turn: int) -> None:
        self._tasks[run_id].add_done_callback(lambda _: self._again(run_id, turn))

    def _again(self, run_id: str, turn: int) -> None:
        heapq.heappush(self._waiting, (0, 0.0, run_id, turn))
        self._next()

    def _over(self, run_id: str, turn: int, task: asyncio.Task[None]) -> None:
        del self._tasks[run_id]
        if self._known.get(run_id) == turn:
            del self._known[run_id]
        if not task.cancelled() and task.exception() is not None:
            logger.error("an attempt at run %s broke", run_id, exc_info=task.exception())
        self._next()

    async def _attempts(self, run_id: str) -> None:
        pause = 1.0
        while True:
            try:
                await execute(self.host, run_id)
            except Interrupted as error:
                if error.retry_after > 0:
                    logger.warning("run %s goes on in %g s: %s", run_id, max(pause, error.retry_after), error)
                    await asyncio.sleep(max(pause, error.retry_after))
                    pause = min(_LONGEST, 2 * pause)
            else:
                return

    async def _watch(self) -> None:
        """What others have asked for."""
        while True:
            await asyncio.sleep(POLL)
            try:
                await self._look()
            except StoreUnavailable as error:
                logger.warning("the store of runs can't be asked what is to be done: %s", error)
                await asyncio.sleep(1.0)

    async def _look(self) -> None:
        host = self.host
        if host.live:
            for run_id in await host.ask(host.store.stopped):
                host.stop(run_id)
        for run_id in await host.ask(partial(host.store.due, time.time())):
            await host.ask(partial(host.store.queue, run_id, ("waiting",)))
        for run in await host.ask(partial(host.store.ready, 2 * self.concurrency)):
            self._add(run)
        if host.accounts.left:
            await host.ask_books(host.accounts.tidy)

    async def _drain(self, seconds: float) -> None:
        tasks = [*self._tasks.values()]
        if tasks and seconds:
            await asyncio.wait(tasks, timeout=seconds)
        await _cancelled(asyncio.all_tasks() - {asyncio.current_task()})

    # -- from any thread

    def _call(self, do: Callable[[], None]) -> None:
        self._started().call_soon_threadsafe(do, context=contextvars.Context())

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._closing:
                raise BadInput("this Runs is closed")
            if self._loop is None or self._thread is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop, self._watch), name="escalade-inline", daemon=True
                )
                self._thread.start()
                self._end = weakref.finalize(self, _stop, self._loop, self._thread, os.getpid())
            return self._loop


def _run(loop: asyncio.AbstractEventLoop, watch: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.set_event_loop(loop)
    watching = loop.create_task(watch())
    try:
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # of a node: its own affair
                logger.exception("a node wanted to end the process; the other runs go on")
            else:
                break
    finally:
        del watching
        loop.run_until_complete(_cancelled(asyncio.all_tasks(loop)))
        loop.close()


async def _cancelled(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel them, and wait until they have cleaned up."""
    left = [task for task in tasks if task is not None and task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    """The interpreter ends: runs are put back."""
    if os.getpid() == pid and thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5.0)


class Slot:
    """A lock beside a file, held by one process until it ends: the system lets go of it, however that happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._lock = threading.Lock()
        after_fork(self)

    def _forked(self) -> None:
        """The parent's lock is not the child's."""
        self._lock = threading.Lock()
        self.give()

    def take(self) -> bool:
        """Take it, or have it already; False when another process has it."""
        with self._lock:
            if self._file is not None:
                return True
            try:
                import fcntl
            except ImportError:  # a system without such locks: one process is the user's promise
                return True
            file = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(file)
                return False
            self._file = file
            return True

    def give(self) -> None:
        """Let go of it."""
        with self._lock, contextlib.suppress(OSError):
            if self._file is not None:
                os.close(self._file)
                self._file = None
