"""Appending to the book: one transaction per batch, and a look over the shoulder in each."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from escalade.registry.audit._book import Book, Line, Tampered
from escalade.registry.audit._tickets import Pending
from escalade.registry.audit.anchors import Checkpoint
from escalade.registry.audit.chain import link
from escalade.registry.audit.keys import Signer
from escalade.registry.audit.rows import now


class Store:
    """The log, as its one writer thread sees it. Not safe for several threads.

    `name`: of the book, in messages. `key`: signs checkpoints. `every`, `seconds`: a checkpoint after so many rows or
    so much time.
    """

    def __init__(self, book: Book, name: str, *, key: Signer | None, every: int, seconds: float) -> None:
        self._book, self._name, self._key, self._every, self._seconds = book, name, key, every, seconds
        self._tried: tuple[int, bytes, Sequence[Pending]] | None = None
        with book.turn(durable=False):
            first = book.first()
            self.chain: str = json.loads(first)["chain"] if first else ""
            self.seq, self._hash = self._read_head()
            self.checkpoint = self._read_checkpoint()
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

        Raises Tampered, and what the book's store raises. Nothing was written then; or, where a server's answer to the
        commit was lost, nobody knows, until the next call finds out: what was written is not written again.
        """
        due = checkpoint or self.uncovered + len(rows) >= self._every or self.due_in() == 0
        with self._book.turn(durable=durable or due):
            seq, before = self._head()
            rows = self._unwritten(rows)
            lines = _linked(rows, seq, before)
            if lines:
                self._book.write(lines)
                seq, before = lines[-1][0], lines[-1][5]
            made = self._make_checkpoint(seq, before) if due else None
            self._tried = (seq, before, rows)
        self._tried = None
        self.seq, self._hash = seq, before
        if made is not None:
            self.checkpoint, self._checked = made, time.monotonic()
        return made

    def close(self) -> None:
        """Close the book."""
        self._book.close()

    def _unwritten(self, rows: Sequence[Pending]) -> Sequence[Pending]:
        """Without those that the last commit has kept, whose answer was lost."""
        if self._tried is not None:
            seq, head, tried = self._tried
            kept = self._book.hash_at(seq) == head
            for row in tried:
                row.written |= kept
            self._tried = None
        return [row for row in rows if not row.written]

    def _head(self) -> tuple[int, bytes]:
        """The chain's end. Raises Tampered if it doesn't go on from what this process knows to be there."""
        seq, before = self._read_head()
        known: object = before
        if seq != self.seq:  # another process wrote, or somebody cut
            known = self._book.hash_at(self.seq)
        if seq < self.seq or known != self._hash:
            raise Tampered(f"{self._name} was changed behind the log's back: run `escalade audit verify`")
        return seq, before

    def _read_head(self) -> tuple[int, bytes]:
        found = self._book.head()
        if found is None:
            raise Tampered(f"{self._name} has no rows, not even its first")
        seq, before = found
        if not isinstance(before, bytes):
            raise Tampered(f"{self._name}: the hash of row {seq} is none")
        return seq, before

    def hash_at(self, seq: int) -> str | None:
        """The stored hash of a row, hex."""
        with self._book.turn(durable=False):
            found = self._book.hash_at(seq)
        return found.hex() if isinstance(found, bytes) else None

    def _read_checkpoint(self) -> Checkpoint | None:
        found = self._book.last_checkpoint()
        return Checkpoint.from_json(found) if found else None

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
        self._book.write_checkpoint(made.number, made.to_json())
        return made


def _linked(rows: Sequence[Pending], seq: int, before: bytes) -> list[Line]:
    """The rows as they go on from the chain's end."""
    lines: list[Line] = []
    for number, row in enumerate(rows, seq + 1):
        before = link(before, number, row.at, row.event, row.call, row.body)
        lines.append((number, row.at, row.event, row.call, row.body, before))
    return lines
