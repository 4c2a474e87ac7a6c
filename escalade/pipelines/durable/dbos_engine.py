"""The engine that executes runs in any number of processes: DBOS Transact over a SQLite file or PostgreSQL.

    Runs("sqlite:///var/runs.sqlite", engine="dbos", pipelines={"report": report})

DBOS keeps who is to execute which run, and hands each to one process; what runs do is in our own store (`execution`).
It has no recovery across processes, so that is done here, by a thread of each process that executes runs, every
`BEAT` seconds: it holds the slot of its process (`slots`), and takes over the runs of every slot that nobody holds any
more. So the runs of a process that died go on within about `BEAT` seconds in the other processes at a file, and within
`slots.GRACE` + `BEAT` seconds at PostgreSQL, where that process may just have lost its connection.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from escalade.errors import BadInput, EscaladeError, StoreUnavailable, UnknownName
from escalade.pipelines.durable import _dbos
from escalade.pipelines.durable.execution import Host, Interrupted, execute
from escalade.pipelines.durable.fair import Turns, rank
from escalade.pipelines.durable.memory_store import MemoryRuns
from escalade.pipelines.durable.queues import Admission, RunQueue, checked, queue_of
from escalade.pipelines.durable.slots import Slot, SlotLost, Slots, claim, open_slots
from escalade.pipelines.durable.sql_store import SqlStore
from escalade.pipelines.durable.store import RunRow
from escalade.registry.elsewhere import elsewhere

logger = logging.getLogger(__name__)

BEAT = 0.5
"""Seconds between two looks at slots, cancelled runs, answered questions."""
_HOUSEKEEPING = 20
"""Beats between two looks for runs that nobody has queued, and at what can be forgotten."""
_LOST = 5.0
"""Seconds for which a run may be ours and not be executed."""


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
        try:
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
            raise
        keeper = _Keeper(self, self._slots, slot)
        keeper.start()
        return _Post(slot, executor, keeper)

    def _put(self, run: RunRow) -> None:
        queue = queue_of(self.queues, run.pipeline)
        number = self._turns.take(queue, run.tenant)
        self.client.put(_work_id(run), queue, rank(run.priority, number), number)

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
            self.ended += 1
        except asyncio.CancelledError:
            if not await self._handed_back(run_id):
                raise  # it stays ours in the queue, for whoever takes over what we had
        finally:
            del self.active[work_id]

    async def _turn(self, work_id: str, run_id: str, number: int) -> None:
        host = self.host
        while True:
            try:
                run = await host.ask(partial(host.store.get, run_id))
                if run is None or _work_id(run) != work_id:
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
            _until(lambda: not self.active and not post.keeper.mine(), 5.0)
        post.keeper.stop()
        post.executor.close()
        with contextlib.suppress(StoreUnavailable):
            post.keeper.put_back(post.slot.name)
        post.slot.release()


@dataclass(frozen=True, slots=True)
class _Post:
    """What a process that executes runs has."""

    slot: Slot
    executor: _dbos.Executor
    keeper: _Keeper


class _Keeper:
    """The thread that looks after what is ours, and after what nobody has any more."""

    def __init__(self, engine: DbosEngine, slots: Slots, slot: Slot) -> None:
        self._engine, self._slots, self._slot = engine, slots, slot
        self._stop = threading.Event()
        self._lost: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="escalade-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        down, beats = False, 0
        while not self._stop.wait(BEAT):
            beats += 1
            try:
                self._beat(beats)
                down = False
            except SlotLost as error:
                logger.error("%s: it executes nothing any more", error)  # noqa: TRY400 - no traceback: it is no bug
                self._abandon()
                return
            except StoreUnavailable as error:
                if not down:
                    logger.warning("%s; trying again every %g s", error, BEAT)
                down = True
            except Exception:
                logger.exception("looking after runs failed; trying again every %g s", BEAT)

    def _beat(self, beats: int) -> None:
        self._slot.check()
        engine, store = self._engine, self._engine.host.store
        for run_id in store.stopped():
            engine.host.stop(run_id)
        for run_id in store.due(time.time()):
            run = store.queue(run_id, ("waiting",))
            if run is not None:
                engine.submit(run)
        self.take_over()
        self._put_back_lost()
        if beats % _HOUSEKEEPING == 0:
            self.queue_missing()
            engine.client.forget_finished(self._slot.name)

    def mine(self) -> list[_dbos.Taken]:
        """What this process has taken, by the queue's word."""
        return [one for one in self._engine.client.taken() if one.executor == self._slot.name]

    def take_over(self) -> int:
        """Queue again what dead processes had taken: how many runs."""
        others = {one.executor for one in self._engine.client.taken()} - {self._slot.name}
        found = 0
        for name in self._slots.abandoned(sorted(others)):
            held = self._slots.hold(name)  # so that only one of us does it, and nobody begins by that name meanwhile
            if held is not None:
                try:
                    found += self.put_back(name)
                finally:
                    held.release()
        if found:
            logger.info("took over %d runs of processes that died", found)
        return found

    def put_back(self, name: str) -> int:
        """Queue again what the process of that slot had taken."""
        taken = [one for one in self._engine.client.taken() if one.executor == name]
        self._engine.client.put_back(taken)
        return len(taken)

    def _put_back_lost(self) -> None:
        """Queue again what is ours by the queue's word, and nowhere here: its end could not be written."""
        engine, now = self._engine, time.monotonic()
        lost = [one for one in self.mine() if one.work_id not in engine.active]
        self._lost = {one.work_id: self._lost.get(one.work_id, now) for one in lost}
        engine.client.put_back([one for one in lost if now - self._lost[one.work_id] > _LOST])

    def queue_missing(self) -> int:
        """Queue runs that were accepted by a process that died before it could: how many they are."""
        engine = self._engine
        waiting = [run for run in engine.host.store.select(status=("queued",)) if run.created < time.time() - 5]
        missing = {_work_id(run) for run in waiting} - engine.client.known([_work_id(run) for run in waiting])
        for run in waiting:
            if _work_id(run) in missing:
                engine._put(run)
        return len(missing)

    def _abandon(self) -> None:
        """Another process has our name: what we had is its own now."""
        engine = self._engine
        engine.lost = True
        if engine._post is not None:
            engine._post.executor.stop_taking()
        for live in list(engine.host.live.values()):
            engine.host.supersede(live.run.run_id, live.run.attempts)


def _work_id(run: RunRow) -> str:
    return f"{run.turn}.{run.run_id}"


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
