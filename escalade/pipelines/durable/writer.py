"""The one thread that writes what runs have finished: whatever is waiting is committed together.

A commit takes as long for a hundred rows as for one, and who waits for it is a coroutine, never an event loop. Rows are
written in the order in which they were handed in: what is in the store is always a beginning of what has happened. So
results of nodes need not be waited for (`put`): were one lost with the process, nothing that came after it would be
there either. What was paid is waited for (`write`, `awrite`).

While the store can't be written, everybody waits, at most `patience` seconds: a server that comes back within that time
was never missed. After that these attempts have failed: nothing more is kept of them, since there would be a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from escalade.errors import StoreUnavailable
from escalade.pipelines.durable.store import Store, Superseded, Written
from escalade.registry.stores.owners import after_fork

BATCH = 1000
"""Rows per commit."""
AHEAD = 10_000
"""Rows that may be on their way before those who hand in more have to wait."""
_PAUSE, _LONGEST = 0.05, 1.0
"""Seconds between attempts while the store can't be written."""

_logger = logging.getLogger(__name__)

Waiter = tuple[asyncio.AbstractEventLoop | None, "asyncio.Future[None] | Future[None]"]
Attempt = tuple[str, int]
Job = tuple[Attempt, Written | None, Waiter | None]


class Writer:
    """Writes to `store`, in a thread that ends with `close`. `gone`: told of each attempt that was superseded."""

    def __init__(
        self, store: Store, *, patience: float = 30.0, gone: Callable[[str, int], object] = lambda *_: None
    ) -> None:
        self._store, self._patience, self.gone = store, patience, gone
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._lost: set[Attempt] = set()
        after_fork(self)

    def _forked(self) -> None:
        self._queue, self._thread, self._lock = queue.SimpleQueue(), None, threading.Lock()

    @property
    def full(self) -> bool:
        """Do so many rows wait that more had better wait, too?"""
        return self._queue.qsize() > AHEAD

    def put(self, written: Written) -> None:
        """Hand it in, without waiting. Raises StoreUnavailable when an earlier row could not be written."""
        self._put((_of(written), written, None))

    def write(self, written: Written | Attempt) -> None:
        """Hand it in and wait until it is there, with all before it (an attempt: wait for what it has handed in).
        Raises StoreUnavailable, Superseded.
        """
        done: Future[None] = Future()
        self._put((_of(written), written if isinstance(written, Written) else None, (None, done)))
        done.result()

    async def awrite(self, written: Written | Attempt) -> None:
        """`write`, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._put((_of(written), written if isinstance(written, Written) else None, (loop, done)))
        await done

    def close(self) -> None:
        """Write what is there, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _put(self, job: Job) -> None:
        if job[0] in self._lost:
            raise _unavailable(self._error)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="escalade-runs", daemon=True)
                self._thread.start()
            self._queue.put(job)

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            batch: list[Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) == BATCH:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._commit(batch)
            if job is None:
                return

    def _commit(self, batch: Sequence[Job]) -> None:
        rows = [one for attempt, one, _ in batch if one is not None and attempt not in self._lost]
        gone = set[Attempt]()
        if rows:
            try:
                gone = self._written(rows)
            except BaseException as failure:  # noqa: BLE001 - whatever it is, those who wait must hear of it
                self._error = failure
                self._lost |= {_of(one) for one in rows}
        for run_id, attempt in gone:
            self.gone(run_id, attempt)
        _tell(batch, gone, self._lost, self._error)

    def _written(self, rows: Sequence[Written]) -> set[Attempt]:
        """Write, again and again while the store is away. Raises StoreUnavailable after `patience` seconds."""
        until, pause = time.monotonic() + self._patience, _PAUSE
        while True:
            try:
                return self._store.write(rows)
            except StoreUnavailable as error:
                if time.monotonic() >= until:
                    _logger.error("what %d runs have finished can't be kept: %s", len({r.run_id for r in rows}), error)  # noqa: TRY400
                    raise
                time.sleep(pause)
                pause = min(_LONGEST, 2 * pause)


def _of(written: Written | Attempt) -> Attempt:
    return (written.run_id, written.attempt) if isinstance(written, Written) else written


def _tell(batch: Sequence[Job], gone: set[Attempt], lost: set[Attempt], error: BaseException | None) -> None:
    """Wake those who wait: once per event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], BaseException | None]]] = defaultdict(list)
    for attempt, _, waiter in batch:
        if waiter is None:
            continue
        loop, done = waiter
        why: BaseException | None = None
        if attempt in gone:
            why = Superseded(f"another attempt at run {attempt[0]} has begun")
        elif attempt in lost:
            why = _unavailable(error)
        if isinstance(done, asyncio.Future) and loop is not None:
            loops[loop].append((done, why))
        elif isinstance(done, Future):
            _end(done, why)
    for loop, ends in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_end_all, ends)


def _unavailable(error: BaseException | None) -> StoreUnavailable:
    """One to raise: an exception object must not be raised by several threads."""
    return StoreUnavailable(f"what a run has finished can't be kept: {error}", _LONGEST)


def _end_all(ends: Sequence[tuple[asyncio.Future[None], BaseException | None]]) -> None:
    for done, why in ends:
        if not done.done():
            _end(done, why)


def _end(done: asyncio.Future[None] | Future[None], why: BaseException | None) -> None:
    if why is None:
        done.set_result(None)
    else:
        done.set_exception(why)


class Direct:
    """The same for a store in memory, which nobody waits for."""

    full = False

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, written: Written) -> None:
        """Raises Superseded."""
        if self._store.write([written]):
            raise Superseded(f"another attempt at run {written.run_id} has begun")

    def write(self, written: Written | Attempt) -> None:
        """Raises Superseded."""
        if isinstance(written, Written):
            self.put(written)

    async def awrite(self, written: Written | Attempt) -> None:
        """Raises Superseded."""
        self.write(written)

    def close(self) -> None:
        """Nothing to end."""
