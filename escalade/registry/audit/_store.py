"""Appending to the file: one transaction per batch, and a look over the shoulder in each."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from escalade.registry.audit import _schema
from escalade.registry.audit._tickets import Pending
from escalade.registry.audit.anchors import Checkpoint
from escalade.registry.audit.chain import link
from escalade.registry.audit.keys import Signer
from escalade.registry.audit.rows import now
from escalade.registry.stores.forks import calls
from escalade.registry.stores.persist import persist

CHUNKS = (128, 32, 8, 2, 1)
"""Rows per statement. Each statement gives the interpreter's lock away once and must queue for it again: 64 rows by
`executemany`, among 64 busy threads, wait for it 64 times (8 ms instead of 1 ms)."""
INSERT = {n: f"INSERT INTO entries VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * n)}" for n in CHUNKS}  # noqa: S608
PAGES = 4_000
"""Pages in the write-ahead log (16 MB) before it is carried over, which costs some 20 ms while callers wait."""


class Tampered(Exception):
    """The file is not the one that this process wrote to."""


class Store:
    """The file, as its one writer thread sees it. Not safe for several threads.

    `key`: signs checkpoints. `every`, `seconds`: a checkpoint after so many rows or so much time.
    """

    def __init__(self, path: Path, *, key: Signer | None, every: int, seconds: float, patience: float) -> None:
        self.path, self._key, self._every, self._seconds, self._patience = path, key, every, seconds, patience
        self._database = _schema.connect(path, patience)
        self._database.execute(f"PRAGMA wal_autocheckpoint={PAGES}")
        self._full: bool | None = None
        first = self._database.execute("SELECT body FROM entries WHERE seq = 1").fetchone()
        self.chain: str = json.loads(first[0])["chain"] if first else ""
        self.seq, self._hash = self._read_head()
        self.checkpoint = self._read_checkpoint()
        self._files = self._identities()
        self._checked = time.monotonic()

    @property
    def uncovered(self) -> int:
        """Rows after the last checkpoint."""
        return self.seq - (self.checkpoint.seq if self.checkpoint else 0)

    def due_in(self) -> float | None:
        """Seconds until the next checkpoint, None while there is nothing to check."""
        return max(0.0, self._checked + self._seconds - time.monotonic()) if self.uncovered else None

    def append(self, rows: Sequence[Pending], *, durable: bool, checkpoint: bool) -> Checkpoint | None:
        """All rows or none, in order; with a checkpoint when one is due or asked for, which is returned.

        `durable`: on the disk when this returns, else safe from a crash of the process but not of the machine. A
        transaction with a checkpoint is always durable: an anchor must never know more than the disk.

        Raises sqlite3.Error, OSError, Tampered; then nothing was written.
        """
        with calls.under_way():
            return self._appended(rows, durable=durable, checkpoint=checkpoint)

    def _appended(self, rows: Sequence[Pending], *, durable: bool, checkpoint: bool) -> Checkpoint | None:
        if self._identities() != self._files:
            raise Tampered(f"{self.path} is not the file that was opened: it was removed or replaced")
        due = checkpoint or self.uncovered + len(rows) >= self._every or self.due_in() == 0
        self._synchronise(full=durable or due)
        database = self._database
        persist(lambda: database.execute("BEGIN IMMEDIATE"), self._patience)
        try:
            seq, before = self._head()
            seq, before = self._insert(rows, seq, before)
            made = self._make_checkpoint(seq, before) if due else None
            database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise
        self.seq, self._hash = seq, before
        if made is not None:
            self.checkpoint, self._checked = made, time.monotonic()
        return made

    def close(self) -> None:
        """The last process to close carries the write-ahead log over into the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    def _insert(self, rows: Sequence[Pending], seq: int, before: bytes) -> tuple[int, bytes]:
        values: list[int | str | bytes] = []
        for number, row in enumerate(rows, seq + 1):
            before = link(before, number, row.at, row.event, row.call, row.body)
            values += (number, row.at, row.event, row.call, row.body, before)
        done, end = 0, 6 * len(rows)
        for size in CHUNKS:
            while end - done >= 6 * size:
                self._database.execute(INSERT[size], values[done : done + 6 * size])
                done += 6 * size
        return seq + len(rows), before

    def _head(self) -> tuple[int, bytes]:
        """The chain's end. Raises Tampered if it doesn't go on from what this process knows to be there."""
        seq, before = self._read_head()
        known: bytes | None = before
        if seq != self.seq:  # another process wrote, or somebody cut
            found = self._database.execute("SELECT hash FROM entries WHERE seq = ?", (self.seq,)).fetchone()
            known = found[0] if found else None
        if seq < self.seq or known != self._hash:
            raise Tampered(f"{self.path} was changed behind the log's back: run `escalade audit verify`")
        return seq, before

    def _read_head(self) -> tuple[int, bytes]:
        found = self._database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        if found is None:
            raise Tampered(f"{self.path} has no rows, not even its first")
        seq, before = found
        if not isinstance(before, bytes):
            raise Tampered(f"{self.path}: the hash of row {seq} is none")
        return int(seq), before

    def hash_at(self, seq: int) -> str | None:
        """The stored hash of a row, hex."""
        found = self._database.execute("SELECT hash FROM entries WHERE seq = ?", (seq,)).fetchone()
        return found[0].hex() if found and isinstance(found[0], bytes) else None

    def _read_checkpoint(self) -> Checkpoint | None:
        found = self._database.execute("SELECT body FROM checkpoints ORDER BY number DESC LIMIT 1").fetchone()
        return Checkpoint.from_json(found[0]) if found else None

    def _make_checkpoint(self, seq: int, head: bytes) -> Checkpoint | None:
        """Inside the transaction, so that checkpoints of several processes have one order. None if nothing is new."""
        last = self._read_checkpoint()
        if last is not None and last.seq >= seq:
            self.checkpoint = last
            return None
        made = Checkpoint(
            number=1 if last is None else last.number + 1,
            chain=self.chain,
            seq=seq,
            head=head.hex(),
            count=seq,
            previous="" if last is None else last.digest(),
            at=now(),
        ).signed(self._key)
        self._database.execute("INSERT INTO checkpoints VALUES (?, ?)", (made.number, made.to_json()))
        return made

    def _synchronise(self, *, full: bool) -> None:
        if full is not self._full:
            self._database.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._full = full

    def _identities(self) -> tuple[tuple[int, int], ...]:
        """Which files these are. SQLite writes on into a file that was deleted, and so to nowhere.

        Raises OSError where one is gone. 3 us per commit.
        """
        found = []
        for name in (self.path, f"{self.path}-wal"):
            status = os.stat(name)  # noqa: PTH116 - half the time of Path.stat
            found.append((status.st_dev, status.st_ino))
        return tuple(found)
