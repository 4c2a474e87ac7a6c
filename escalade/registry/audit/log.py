"""AuditLog: the recorder whose record can be checked."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal

from escalade.errors import AuditIncomplete, AuditUnavailable, BadInput, StoreUnavailable
from escalade.registry.audit import rows
from escalade.registry.audit._book import Tampered
from escalade.registry.audit._courier import Courier, last_arrived
from escalade.registry.audit._shelf import open_book
from escalade.registry.audit._store import Store
from escalade.registry.audit._tickets import CHECKPOINT, FLUSH, Pending, Ticket
from escalade.registry.audit._writer import Writer
from escalade.registry.audit.anchors import Anchor, Checkpoint, as_anchor
from escalade.registry.audit.keys import Signer, load_key
from escalade.registry.secrets import Secret
from escalade.registry.stores.addresses import shown
from escalade.scopes import Entry

Wait = Literal["full", "batch"]
WRITES: Mapping[str, Wait] = MappingProxyType(
    {"read": "batch", "model": "batch", "write": "full", "irreversible": "full", "denied": "full"}
)
"""Who waits for the disk, unless said otherwise: all but tools that only read, and models."""

_LOOK = 0.001
"""Seconds between looks at a queue that is full."""

_log = logging.getLogger("escalade.audit")


@dataclass(frozen=True, slots=True)
class Health:
    """How the log is doing. `ok`: everything that happened is recorded or about to be, and every anchor has it.

    `down`: why new uses are refused, "" when they are not. `queued`: rows on their way. `kept`: rows of what has
    happened that wait for the file to come back. `lost`: denials that are only counted. `failures`: commits that
    failed. `rows`: in the file. `undelivered`: checkpoints that some anchor lacks. `anchors`: the error of each that
    has one.
    """

    down: str
    queued: int
    kept: int
    lost: int
    failures: int
    rows: int
    undelivered: int
    anchors: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return not (self.down or self.kept or self.lost or self.anchors)


class AuditLog:
    """A `Recorder` whose rows are chained by hashes and vouched for by anchors: in a SQLite file, or in PostgreSQL.

        with AuditLog("audit.sqlite", anchors=["/mnt/worm/audit.anchor"], key="env:AUDIT_KEY") as log:
            with escalade.scope(recorder=log, ...):
                ...

    `path`: of the file, for the processes of one host, or `postgresql://user:password@host/database` for those of many.
    `anchors`: paths, functions, or `Anchor`s. `key`: signs checkpoints, a reference (`env:NAME`, `file:PATH`).
    `synchronous`: who waits until his row is on the disk: "full" (all), "batch" (nobody), or what to change in
    `WRITES`, by side effects (read, write, irreversible), "model", "denied". Rows that nobody waits for are written
    within milliseconds; a killed process loses the last few, a power cut those since the last one that was waited for
    (of a PostgreSQL server, none).
    `checkpoint_rows`, `checkpoint_seconds`: a checkpoint after so many rows, or so long after one that has none.
    `capacity`: rows in the queue before callers are held back. `patience`: seconds until a use that can't be
    recorded is refused. `pepper`: keys the digests of arguments and results, a reference; without it, whoever reads the
    log can tell by trying whether a guessed argument was the one.

    Several processes may write to one log, each with an AuditLog of its own, opened after a fork: it is one chain.

    Its own `path` is an address without the password. Raises BadInput (a path or key that can't be used, an anchor of
    another log), AuditUnavailable (the log can't be opened, or doesn't lead to what an anchor holds).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        anchors: Sequence[Anchor | Callable[[Checkpoint], object] | str | os.PathLike[str]] = (),
        key: str | Signer | None = None,
        synchronous: Wait | Mapping[str, Wait] = WRITES,
        checkpoint_rows: int = 1_000,
        checkpoint_seconds: float = 60.0,
        capacity: int = 10_000,
        patience: float = 5.0,
        pepper: Secret | str | None = None,
    ) -> None:
        self._where = os.fspath(path)
        self.path: Path | str = shown(path) if "://" in self._where else Path(path)
        self._patience, self._capacity = patience, capacity
        self._waits = _waits(synchronous)
        self._pepper = b"" if pepper is None else Secret.of(pepper).reveal().encode()
        if min(checkpoint_rows, checkpoint_seconds, capacity, patience) <= 0:
            raise BadInput("checkpoint_rows, checkpoint_seconds, capacity and patience are above 0")
        places = [as_anchor(anchor) for anchor in ([anchors] if isinstance(anchors, str | os.PathLike) else anchors)]
        signer = load_key(key) if isinstance(key, str) else key
        if signer is not None:
            signer.sign(b"")  # a key that can only verify is told now, not with the first checkpoint
        store = self._opened(signer, checkpoint_rows, checkpoint_seconds)
        try:
            arrived = [self._arrived(place, store) for place in places]
        except BaseException:
            store.close()
            raise
        self._couriers = [Courier(place, self._where, number) for place, number in zip(places, arrived, strict=True)]
        self._pid, self._mark, self._closed = os.getpid(), secrets.token_hex(4), False
        self._closing = threading.Lock()
        self._writer = Writer(store, capacity, self._announce)
        if store.checkpoint is not None:  # what a crash kept from an anchor
            self._announce(store.checkpoint)
        self._event(rows.OPENED, {"pid": self._pid, "writer": self._mark})
        atexit.register(self.close)

    # ---- the Recorder protocol

    def intent(self, entry: Entry) -> None:
        """Record that a use is about to happen; on the disk when this returns, for those who wait.

        Raises AuditUnavailable: then it must not happen. Waiting blocks the thread, an event loop too: coroutines
        take `aintent`.
        """
        ticket = self.submit(entry)
        if ticket is not None:
            ticket.wait(self._patience)

    def outcome(self, entry: Entry) -> None:
        """Record how it ended. Never raises: what can't be written is kept, tried again, and told by `health`.

        Waits for the disk where the intent did, but not in an event loop: nothing has to be held back any more, and a
        lost outcome leaves an intent that `verify` calls unfinished.
        """
        self._told(rows.OUTCOME, entry, self._waits_for(entry))

    def denied(self, entry: Entry) -> None:
        """Record that the guard said no. Like `outcome`: never raises, and doesn't wait in an event loop."""
        self._told(rows.DENIED, entry, self._waits["denied"] == "full")

    def submit(self, entry: Entry) -> Ticket | None:
        """`intent` in two halves: hand it over, then `ticket.wait(seconds)` or `await ticket.wait_async(seconds)`.

        None for a use that doesn't wait. Raises AuditUnavailable.
        """
        until = time.monotonic() + self._patience
        while self._full(until):
            time.sleep(_LOOK)
        return self._handed_over(entry)

    def digest(self, value: Any) -> str:
        """What stands in a row for arguments or a result."""
        return rows.digest(value, self._pepper)

    # ---- everything else

    async def aintent(self, entry: Entry) -> None:
        """`intent` for coroutines: waits without blocking the event loop."""
        until = time.monotonic() + self._patience
        while self._full(until):  # noqa: ASYNC110 - the queue is taken from by a thread
            await asyncio.sleep(_LOOK)
        ticket = self._handed_over(entry)
        if ticket is not None:
            await ticket.wait_async(self._patience)

    def flush(self, timeout: float | None = None) -> None:
        """Return when all that was recorded before is on the disk. Raises AuditUnavailable."""
        self._request(FLUSH, timeout)

    def checkpoint(self, timeout: float | None = None) -> None:
        """Make a checkpoint now, on the disk; the anchors get it next. Raises AuditUnavailable."""
        self._request(CHECKPOINT, timeout)

    def health(self) -> Health:
        """How it is doing, at this moment."""
        writer = self._writer
        return Health(
            down="" if writer.down is None else writer.down.reason,
            queued=writer.queue.qsize(),
            kept=len(writer.kept),
            lost=writer.lost,
            failures=writer.failures,
            rows=writer.seq,
            undelivered=max((courier.missing for courier in self._couriers), default=0),
            anchors={repr(courier.anchor): courier.error for courier in self._couriers if courier.error},
        )

    def close(self) -> None:
        """Write what is waiting, make a last checkpoint, bring it to the anchors. At exit this happens by itself.

        Raises AuditIncomplete if something that happened is not in the log, or a checkpoint not at its anchor.
        """
        with self._closing:
            if self._closed or os.getpid() != self._pid:
                return
            self._event(rows.CLOSED, {"writer": self._mark})
            self._closed = True
            atexit.unregister(self.close)
            self._writer.close(2 * self._patience)
            for courier in self._couriers:
                courier.close(self._patience)
            self._writer.release()
        unrecorded = self._writer.unrecorded
        undelivered = sum(courier.missing for courier in self._couriers)
        if unrecorded or undelivered:
            why = [self.health().down, *(courier.error for courier in self._couriers)]
            raise AuditIncomplete(
                f"audit log {self.path}: {unrecorded} rows are not recorded, {undelivered} checkpoints not delivered: "
                f"{'; '.join(filter(None, why))}",
                unrecorded=unrecorded,
                undelivered=undelivered,
            )

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"AuditLog({str(self.path)!r})"

    def _opened(self, key: Signer | None, every: int, seconds: float) -> Store:
        import sqlite3

        try:
            book = open_book(self._where, self._patience)
            try:
                return Store(book, str(self.path), key=key, every=every, seconds=seconds)
            except BaseException:
                book.close()
                raise
        except (sqlite3.Error, OSError, ValueError, Tampered, StoreUnavailable) as error:
            if isinstance(error, BadInput):
                raise
            raise AuditUnavailable(f"audit log {self.path} can't be opened: {error}") from error

    def _arrived(self, anchor: Anchor, store: Store) -> int:
        """The number of the anchor's newest checkpoint. To write on after a log that was cut would hide the cut."""
        last = last_arrived(anchor, store.chain)
        if last is not None and store.hash_at(last.seq) != last.head:
            raise AuditUnavailable(f"{self.path} doesn't lead to what {anchor!r} holds: run `escalade audit verify`")
        return last.number if last else 0

    def _announce(self, checkpoint: Checkpoint) -> None:
        for courier in self._couriers:
            courier.notify(checkpoint)

    def _waits_for(self, entry: Entry) -> bool:
        kind = entry.side_effects or ("model" if entry.kind == "model" else "write")
        return self._waits.get(kind, "full") == "full"

    def _row(self, event: str, entry: Entry, ticket: Ticket | None) -> Pending:
        call = entry.call_id.encode("ascii", "backslashreplace").decode().replace("\0", r"\x00")
        return Pending(event, rows.now(), call, rows.body_of(entry, event, self._mark), ticket)

    def _event(self, event: str, said: dict[str, int | str]) -> None:
        self._writer.queue.put(Pending(event, rows.now(), "", rows.canonical(dict(said))))

    def _told(self, event: str, entry: Entry, wait: bool) -> None:  # noqa: FBT001 - private, two callers
        writer = self._writer
        if self._closed or os.getpid() != self._pid:
            _log.error("audit: %s of %s came after the log was closed and is lost", event, entry.call_id)
            writer.lost += 1
            return
        wait = wait and writer.down is None and not _in_loop() and threading.get_ident() != writer.ident
        ticket = Ticket() if wait else None
        writer.queue.put(self._row(event, entry, ticket))
        if ticket is not None:
            _wait_quietly(ticket, self._patience)

    def _check_up(self) -> None:
        if os.getpid() != self._pid:
            raise AuditUnavailable("the audit log was opened before the fork: open one in each process")
        if self._closed:
            raise AuditUnavailable("the audit log is closed")
        down = self._writer.down
        if down is not None:
            raise down.again()

    def _full(self, until: float) -> bool:
        """Does the caller have to wait for room in the queue? Raises AuditUnavailable: it is down, or it is `until`."""
        self._check_up()
        if self._writer.queue.qsize() < self._capacity:
            return False
        if time.monotonic() > until:
            raise AuditUnavailable(f"the audit log has {self._capacity} rows to write and takes no more", 1.0)
        return True

    def _handed_over(self, entry: Entry) -> Ticket | None:
        ticket = Ticket() if self._waits_for(entry) else None
        self._writer.queue.put(self._row(rows.INTENT, entry, ticket))
        return ticket

    def _request(self, event: str, timeout: float | None) -> None:
        self._check_up()
        ticket = Ticket()
        self._writer.queue.put(Pending(event, ticket=ticket))
        ticket.wait(self._patience if timeout is None else timeout)


def _waits(given: Wait | Mapping[str, Wait]) -> dict[str, Wait]:
    wanted = dict.fromkeys(WRITES, given) if isinstance(given, str) else {**WRITES, **given}
    if set(wanted) != set(WRITES) or not set(wanted.values()) <= {"full", "batch"}:
        raise BadInput(f'synchronous: "full", "batch", or either for some of {", ".join(WRITES)}; got {given!r}')
    return wanted


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _wait_quietly(ticket: Ticket, timeout: float) -> None:
    """What has happened is written in the end, whether anybody waits or not."""
    if not ticket.done:
        ticket._lock.acquire(timeout=timeout)
