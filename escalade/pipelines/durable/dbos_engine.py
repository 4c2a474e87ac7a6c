"""The engine that executes runs in any number of processes: DBOS Transact over a SQLite file or PostgreSQL.

    Runs("sqlite:///var/runs.sqlite", engine="dbos", pipelines={"report": report})

DBOS keeps who is to execute which run, and hands each to one process; what runs do is in our own store (`execution`).
It has no recovery across processes, so that is done by a thread of each process that executes runs (`keeper`): it holds
the slot of its process (`slots`), and takes over the runs of every slot that nobody holds any more. So the runs of a
process that died go on in another one within about a second at a file, and within about `slots.GRACE` + 1 seconds at
PostgreSQL, where that process may just have lost its connection.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from escalade.errors import BadInput, EscaladeError, StoreUnavailable, UnknownName
from escalade.pipelines.durable import _dbos
from escalade.pipelines.durable.execution import Host, Interrupted, execute
from escalade.pipelines.durable.fair import Turns, rank
from escalade.pipelines.durable.keeper import Keeper, work_id_of
from escalade.pipelines.durable.memory_store import MemoryRuns
from escalade.pipelines.durable.queues import Admission, RunQueue, checked, queue_of
from escalade.pipelines.durable.slots import FileSlot, Slot, Slots, claim, open_slots, shared
from escalade.pipelines.durable.sql_store import SqlStore
from escalade.pipelines.durable.store import RunRow
from escalade.registry.elsewhere import elsewhere
from escalade.registry.stores.owners import after_fork


class DbosEngine:
    """An `Engine`. `url`: where the queue is, sqlite:///PATH (a file of its own beside it) or postgresql://...

    `workers`: 1 to execute runs in this process, 0 to leave that to others (`escalade worker`). `concurrency`: runs at
    once, of the queue `default`; `queues`: others. `name`: of this process; by default a slot of its host. `version`:
    of the application: runs are executed by processes of the version that they were started by. `poll`: seconds between
    two looks into a queue. Raises BadInput.
    """

    def __init__(
        self,
        url: str,
        *,
        workers: int = 1,
        concurrency: int = 8,
        queues: Mapping[str, RunQueue] | None = None,
        name: str | None = None,
        version: str | None = None,
        poll: float = 0.1,
    ) -> None:
        if workers not in {0, 1}:
            raise BadInput(f"workers: expected 1 to execute runs in this process, or 0 for none, got {workers!r}")
        self.url, self.workers, self.queues = url, workers, checked(queues, concurrency)
        self._name, self._version, self._poll = name, version or _dbos.VERSION, poll
        self._slots: Slots = open_slots(url)
        self._lock = threading.RLock()
        self._client: _dbos.Client | None = None
        self._post: _Post | None = None
        self._closing = False
        self.lost, self.handed_back, self.ended = False, 0, 0
        self.serves: tuple[str, ...] = (*self.queues,)
        self._host: Host | None = None
        self.active: dict[str, asyncio.Task[None]] = {}
        self._inherited: list[object] = []
        after_fork(self)

    def _forked(self) -> None:
        """A child has neither threads nor connections of its parent, which goes on: it executes nothing."""
        self._inherited += [self._client, self._post]  # kept, and never touched again: closing them would be heard
        self._client = self._post = None
        self._lock, self.active, self.workers = threading.RLock(), {}, 0

    def becomes_worker(
        self, *, name: str | None = None, concurrency: int | None = None, serves: Sequence[str] = ()
    ) -> None:
        """Before it starts: it executes runs, whatever was said. `serves`: of these queues alone. Raises BadInput."""
        for queue in serves:
            if queue not in self.queues:
                raise UnknownName("queue", queue, list(self.queues))
        self.workers, self._name, self.serves = 1, name or self._name, (*serves,) or self.serves
        if concurrency is not None:
            for queue in self.serves:
                self.queues[queue] = replace(self.queues[queue], concurrency=concurrency)

    # -- the port

    def attach(self, host: Host) -> None:
        """Told of the store and the rest. Starts nothing."""
        if self._host is not None:
            raise BadInput("an engine belongs to one Runs; make another one")
        if not isinstance(host.store, SqlStore) or isinstance(host.store, MemoryRuns):
            raise BadInput("runs in memory are executed by the engine 'inline'; the engine 'dbos' needs Runs(url)")
        self._host, self._turns = host, Turns(host.store.database)
        self._admission = Admission(self.url, self.queues)

    def submit(self, run: RunRow) -> None:
        """Have the run executed, here or elsewhere. Idempotent by run and turn. Raises StoreUnavailable."""
        self._put(run)
        if self.workers:
            self.start()

    def cancel(self, run_id: str) -> None:
        """End its execution, if it is here; the process that has it looks by itself."""
        self.host.stop(run_id)

    def recover(self) -> int:
        """Execute runs from now on, also those that dead processes left: how many they are."""
        if not self.workers:
            return 0
        keeper = self.start().keeper
        return keeper.take_over() + keeper.queue_missing()

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more; finish what runs within `timeout` seconds, hand back the rest, end. Further calls do
        nothing.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
        if self._post is not None:
            self._drain(self._post, timeout or 0.0)
        if self._client is not None:
            self._client.close()
        self._slots.close()

    # -- executing

    @property
    def host(self) -> Host:
        if self._host is None:
            raise BadInput("the engine belongs to no Runs: Runs(url, engine=engine)")
        return self._host

    @property
    def client(self) -> _dbos.Client:
        with self._lock:
            if self._client is None:
                self._client = _dbos.Client(_queue_at(self.url), self._version)
            return self._client

    def start(self) -> _Post:
        """Execute runs from now on. Raises BadInput, StoreUnavailable."""
        with self._lock:
            if self._closing:
                raise BadInput("this engine was closed")
            if self._post is None:
                self._post = self._posted(claim(self._slots, self._name))
                atexit.register(_close, weakref.ref(self))
            return self._post

    def _posted(self, slot: Slot) -> _Post:
        self.host.owner = slot.name
        beside = None
        try:
            beside = self._beside_no_inline()
            executor = _dbos.Executor(
                self.client.url,
                self._work,
                name=slot.name,
                queues={queue: self.queues[queue].concurrency for queue in self.serves},
                version=self._version,
                poll=self._poll,
            )
        except BaseException:
            slot.release()
            if beside is not None:
                beside.release()
            raise
        keeper = Keeper(self, self._slots, slot)
        keeper.start()
        return _Post(slot, executor, keeper, beside)

    def _beside_no_inline(self) -> FileSlot | None:
        """A share of the lock that the engine `inline` holds alone. Raises BadInput."""
        path = getattr(self.host.store, "path", None)
        if path is None:
            return None
        share = shared(Path(f"{path}.lock"))
        if share is None:
            raise BadInput(
                f"a process with the engine 'inline' executes the runs of {Path(path).name!r}: end it first, or let it "
                "have the engine 'dbos', too"
            )
        return share

    def stop_taking(self) -> None:
        """Take nothing more from the queue."""
        if self._post is not None:
            self._post.executor.stop_taking()

    def _put(self, run: RunRow) -> None:
        queue = queue_of(self.queues, run.pipeline)
        number = self._turns.take(queue, run.tenant)
        self.client.put(work_id_of(run), queue, rank(run.priority, number), number)

    async def _work(self, work_id: str, number: int) -> None:
        """One turn of a run, until it has ended, or this process is asked to."""
        run_id = work_id.partition(".")[2]
        before, task = self.active.get(work_id), cast("asyncio.Task[None]", asyncio.current_task())
        if before is not None:  # it was taken for lost, and is not
            await asyncio.wait([before])
            return
        self.active[work_id] = task
        try:
            await self._turn(work_id, run_id, number)
        except asyncio.CancelledError:
            if self.lost or not await self._handed_back(run_id):
                raise  # it stays ours in the queue, for whoever takes over what we had
        else:
            if self.lost:  # what has our name now has our work, too
                raise asyncio.CancelledError
            self.ended += 1
        finally:
            del self.active[work_id]

    async def _turn(self, work_id: str, run_id: str, number: int) -> None:
        host = self.host
        while True:
            try:
                run = await host.ask(partial(host.store.get, run_id))
                if run is None or work_id_of(run) != work_id:
                    return  # deleted, or a later turn has been queued
                queue = queue_of(self.queues, run.pipeline)
                await self._admission.wait(queue)
                await elsewhere(partial(self._turns.begun, queue, number))
                await execute(host, run_id)
            except (Interrupted, StoreUnavailable) as error:
                await asyncio.sleep(getattr(error, "retry_after", None) or 1.0)
            else:
                return

    async def _handed_back(self, run_id: str) -> bool:
        """Queue a run again that this process has begun and won't end: somebody else takes it up at once."""
        host = self.host
        with contextlib.suppress(EscaladeError):
            run = await host.ask(partial(host.store.get, run_id))
            if run is None or run.status != "queued":
                return run is not None and run.status != "running"
            await elsewhere(partial(self._put, run))
            self.handed_back += 1
            return True
        return False

    def _drain(self, post: _Post, timeout: float) -> None:
        post.executor.stop_taking()
        _until(lambda: not self.active, timeout)
        for task in list(self.active.values()):
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(task.cancel)
        with contextlib.suppress(StoreUnavailable):
            # An end that is written to the queue need not be taken over from us.
            _until(lambda: not self.active and (self.lost or not post.keeper.mine()), 5.0)
        post.keeper.stop()
        post.executor.close()
        with contextlib.suppress(StoreUnavailable):
            if not self.lost:
                post.keeper.put_back(post.slot.name)
        post.slot.release()
        if post.beside is not None:
            post.beside.release()


@dataclass(frozen=True, slots=True)
class _Post:
    """What a process that executes runs has."""

    slot: Slot
    executor: _dbos.Executor
    keeper: Keeper
    beside: FileSlot | None


def _queue_at(url: str) -> str:
    """A file of its own, which has its own writers; in PostgreSQL a schema."""
    return f"{url}.queue" if url.startswith("sqlite:") else url


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)


def _close(engine: weakref.ref[DbosEngine]) -> None:
    found = engine()
    if found is not None:
        found.close()
