"""The one thread that writes. It takes what is waiting, however much that is, and commits it together.

One commit to the disk takes some 4 ms whether it holds one row or a hundred: 64 callers who wait share it.

When a commit fails, nothing of it was written, as far as anybody knows. A use that was waiting for its intent is
refused, and its row dropped. What has happened already (outcomes, denials, uses that did not wait) can't be refused: it
is kept and written later.
Until then every new use is refused at once.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from escalade.errors import AuditUnavailable
from escalade.registry.audit._book import Tampered
from escalade.registry.audit._store import Store
from escalade.registry.audit._tickets import CHECKPOINT, FLUSH, Pending, Ticket, finish
from escalade.registry.audit.anchors import Checkpoint
from escalade.registry.audit.rows import DENIED, GAP, INTENT, canonical, now

BATCH = 512
"""Rows per commit: more would make those at its front wait for those at its end."""
LINGER = 0.002
"""Seconds that rows nobody waits for may wait for company. A killed process loses those of so long ago."""
COMPANY = 0.0015
"""Seconds that rows may wait for those who were written with the last ones."""
PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between attempts while the file can't be written."""

_log = logging.getLogger("escalade.audit")


class Writer:
    """`capacity`: denials kept while the file can't be written; of more only the number is kept, for a gap row."""

    def __init__(self, store: Store, capacity: int, announce: Callable[[Checkpoint], None]) -> None:
        self._store, self._capacity, self._announce = store, capacity, announce
        self.queue: queue.SimpleQueue[Pending] = queue.SimpleQueue()  # may be put into from a finalizer, too
        self.down: AuditUnavailable | None = None
        self.kept: deque[Pending] = deque()
        self.lost = 0
        self.failures = 0
        self._pause, self._again_at = PAUSE, 0.0
        self._kept_denials = self._down_since = 0
        self._closing, self._crowd = False, 0
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-writer", daemon=True)
        self._thread.start()

    @property
    def seq(self) -> int:
        """The last row that is written."""
        return self._store.seq

    @property
    def ident(self) -> int | None:
        """Of the thread, which must never wait for itself (a finalizer that ends a use may run in it)."""
        return self._thread.ident

    @property
    def unrecorded(self) -> int:
        """Rows of what has happened that are not in the file."""
        return self.queue.qsize() + len(self.kept) + self.lost

    def close(self, timeout: float) -> None:
        """Write what is there, take a last checkpoint, end. What can't be written stays in `kept`."""
        self.queue.put(Pending(CHECKPOINT))  # first: the thread ends once it has seen `_closing` and an empty queue
        self._closing = True
        self._hurry.set()
        self.queue.put(Pending(FLUSH))  # wakes it
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._drain_while_down()  # what came too late for it

    def release(self) -> None:
        """Close the file: after the last reader, so that the write-ahead log can be carried over into it."""
        if not self._thread.is_alive():
            self._store.close()

    def _run(self) -> None:
        while True:
            closing = self._closing  # looked at before the queue: what was put before is taken now
            batch = self._gather()
            if batch or self.down is not None or self._store.due_in() == 0:
                self._write(batch)
            if closing and (self.down is not None or (self.queue.empty() and not self.kept)):
                self._drain_while_down()
                return

    def _gather(self) -> list[Pending]:
        """The next batch: what is kept first, for the order; empty when only time has passed."""
        if self.down is not None:
            self._hurry.wait(max(0.0, self._again_at - time.monotonic()))
            self._drain_while_down()
        batch: list[Pending] = []
        while self.kept and len(batch) < BATCH:
            batch.append(self.kept.popleft())
        if not batch and self.down is None:
            try:
                batch.append(self.queue.get(not self._closing, self._store.due_in()))
            except queue.Empty:
                return []
            self._drain(batch)
            if not self._closing:
                self._linger(batch)
        self._drain(batch)
        return [row for row in batch if row.ticket is None or not row.ticket.abandoned]

    def _linger(self, batch: list[Pending]) -> None:
        """Wait a moment for more rows, if more can be expected.

        Those who were woken by the last commit come back in a moment. Without them they would be split in two halves
        that take turns, with commits half as large.
        """
        if all(row.ticket is None for row in batch):
            time.sleep(LINGER)
            return
        until = time.perf_counter() + COMPANY
        while len(batch) + self.queue.qsize() < self._crowd and time.perf_counter() < until:
            time.sleep(0.0001)

    def _drain(self, batch: list[Pending]) -> None:
        """Add what is in the queue, as far as it fits."""
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH:
                batch.append(self.queue.get_nowait())

    def _drain_while_down(self) -> None:
        """Refuse and keep what came meanwhile, so that nobody waits for a file that is not there, or is closed."""
        came: list[Pending] = []
        while not self.queue.empty():
            came.append(self.queue.get())
        self._keep(came, self.down or AuditUnavailable("the audit log is closed"))

    def _write(self, batch: list[Pending]) -> None:
        rows = [row for row in batch if row.event not in {CHECKPOINT, FLUSH}]
        tickets = [row.ticket for row in batch if row.ticket is not None]
        if self.down is not None:  # also what is tried when there is nothing else to write
            rows.append(Pending(GAP, now(), "", canonical({"denials": self.lost, "since_us": self._down_since})))
        forced = any(row.event == CHECKPOINT for row in batch)
        try:
            made = self._store.append(rows, durable=bool(tickets), checkpoint=forced)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread that others wait for
            self._failed(batch, error)
            return
        if self.down is not None:
            _log.warning("audit: the log can be written again")
            self.down, self.lost, self._pause = None, 0, PAUSE
            self._kept_denials = sum(row.event == DENIED for row in self.kept)
        self._crowd = len(tickets) + self.queue.qsize()
        finish(tickets)
        if made is not None:
            self._announce(made)

    def _failed(self, batch: list[Pending], error: Exception) -> None:
        self.failures += 1
        retry = None if isinstance(error, Tampered) else self._pause
        if self.down is None:
            self._down_since = now()
            _log.error("audit: the log can't be written, every use is refused: %s", error)
        self.down = AuditUnavailable("the use can't be recorded, so it does not happen", retry, str(error))
        self._again_at = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        older, self.kept = self.kept, deque()
        self._kept_denials = 0
        self._keep(batch, self.down)
        self._keep(list(older), self.down)

    def _keep(self, rows: list[Pending], error: AuditUnavailable | None) -> None:
        """What may be refused is refused and forgotten; what has happened is kept."""
        refused: list[Ticket] = []
        told: list[Ticket] = []
        for row in rows:
            if row.ticket is not None and row.event in {INTENT, CHECKPOINT, FLUSH}:
                refused.append(row.ticket)
            elif row.event == DENIED and self._kept_denials >= self._capacity:
                self.lost += 1
            elif row.event not in {CHECKPOINT, FLUSH}:
                self._kept_denials += row.event == DENIED
                self.kept.append(row)
            if row.ticket is not None and row.event not in {INTENT, CHECKPOINT, FLUSH}:
                told.append(row.ticket)
                row.ticket = None
        finish(refused, error)
        finish(told)
