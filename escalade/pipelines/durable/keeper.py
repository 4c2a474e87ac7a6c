"""What a process that executes runs over DBOS does besides: it looks after its runs, and after those of the dead."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from dataclasses import replace
from typing import Protocol

from escalade.errors import StoreUnavailable
from escalade.pipelines.durable import _dbos
from escalade.pipelines.durable.execution import Host
from escalade.pipelines.durable.slots import Slot, SlotLost, Slots
from escalade.pipelines.durable.store import RunRow

logger = logging.getLogger(__name__)

BEAT = 0.5
"""Seconds between two looks at slots, cancelled runs, answered questions."""
DEATHS = 30
"""Attempts beyond one for each turn, after which a run counts as the cause of its processes' deaths, and has failed."""
_HOUSEKEEPING = 20
"""Beats between two looks for runs that nobody has queued, and at what can be forgotten."""
_LOST = 5.0
"""Seconds for which a run may be ours and not be executed."""
_MANY = 500


class Executing(Protocol):
    """The engine that is looked after. `active`: what it executes, by work id. `lost`: has another process its slot?"""

    active: dict[str, asyncio.Task[None]]
    lost: bool

    @property
    def host(self) -> Host: ...
    @property
    def client(self) -> _dbos.Client: ...
    def submit(self, run: RunRow) -> None: ...
    def stop_taking(self) -> None: ...


class Keeper:
    """The thread that looks after what is ours, and after what nobody has any more."""

    def __init__(self, engine: Executing, slots: Slots, slot: Slot) -> None:
        self._engine, self._slots, self._slot = engine, slots, slot
        self._stop = threading.Event()
        self._lost: dict[str, float] = {}
        self._stranded: set[str] = set()
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
        if self._slot.check():
            self._leave_what_was_taken_over()
        engine, store = self._engine, self._engine.host.store
        for run_id in store.stopped():
            engine.host.stop(run_id)
        for run_id in store.due(time.time()):
            run = store.queue(run_id, ("waiting",))
            if run is not None:
                engine.submit(run)
        self.take_over()
        self._put_back_lost()
        engine.host.accounts.tidy()
        if beats % _HOUSEKEEPING == 0:
            self.queue_missing()
            self._queue_stranded()
            engine.client.forget_finished(self._slot.name)

    def _leave_what_was_taken_over(self) -> None:
        """The server had let go of our lock; had that lasted, others would have taken us for dead."""
        theirs = {one.work_id for one in self._engine.client.taken() if one.executor != self._slot.name}
        for live in list(self._engine.host.live.values()):
            if work_id_of(live.run) in theirs:
                self._engine.host.supersede(live.run.run_id, live.run.attempts)

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
        for one in taken:
            self._end_if_deadly(one)
        self._engine.client.put_back(taken)
        return len(taken)

    def _end_if_deadly(self, taken: _dbos.Taken) -> None:
        """A run that ends every process that executes it would end them all, one after the other, for ever."""
        store, accounts = self._engine.host.store, self._engine.host.accounts
        run = store.get(taken.work_id.partition(".")[2])
        if run is None or run.status != "running" or max(run.attempts - run.turn, run.attempts // 10) < DEATHS:
            return
        told = {"kind": "WorkerDied", "message": f"its process died {run.attempts - run.turn + 1} times", "path": ""}
        logger.error("run %s has failed: %s", run.run_id, told["message"])
        accounts.end(replace(run, status="failed", error=json.dumps(told), ended=time.time()))

    def _put_back_lost(self) -> None:
        """Queue again what is ours by the queue's word, and nowhere here: its end could not be written."""
        engine, now = self._engine, time.monotonic()
        lost = [one for one in self.mine() if one.work_id not in engine.active]
        self._lost = {one.work_id: self._lost.get(one.work_id, now) for one in lost}
        engine.client.put_back([one for one in lost if now - self._lost[one.work_id] > _LOST])

    def queue_missing(self) -> int:
        """Queue runs that were accepted by a process that died before it could: how many they are."""
        engine = self._engine
        waiting = {work_id_of(run): run for run in engine.host.store.ready(_MANY) if run.created < time.time() - 5}
        missing = waiting.keys() - engine.client.known([*waiting])
        for work_id in missing:
            engine.submit(waiting[work_id])
        return len(missing)

    def _queue_stranded(self) -> None:
        """Queue runs again that nobody executes, though the store says so: their execution broke."""
        engine, store = self._engine, self._engine.host.store
        running = {work_id_of(run): run for run in store.select(status=("running",), limit=_MANY)}
        stranded = running.keys() - engine.client.unfinished([*running])
        for work_id in stranded & self._stranded:
            run = running[work_id]
            queued = store.queue(run.run_id, ("running",), attempt=run.attempts)
            if queued is not None:
                engine.submit(queued)
        self._stranded = stranded

    def _abandon(self) -> None:
        """Another process has our name: what we had is its own now."""
        engine = self._engine
        engine.lost = True
        engine.stop_taking()
        for live in list(engine.host.live.values()):
            engine.host.supersede(live.run.run_id, live.run.attempts)


def work_id_of(run: RunRow) -> str:
    """What a turn of a run is called in the queue."""
    return f"{run.turn}.{run.run_id}"
