"""A log in a SQLite file: what is in it is made by `_schema`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from escalade.registry.audit import _schema
from escalade.registry.audit._book import Line, Tampered, Unreadable
from escalade.registry.stores.forks import calls
from escalade.registry.stores.persist import persist

CHUNKS = (128, 32, 8, 2, 1)
"""Rows per statement. Each statement gives the interpreter's lock away once and must queue for it again: 64 rows by
`executemany`, among 64 busy threads, wait for it 64 times (8 ms instead of 1 ms)."""
INSERT = {n: f"INSERT INTO entries VALUES {', '.join(['(?, ?, ?, ?, ?, ?)'] * n)}" for n in CHUNKS}  # noqa: S608
PAGES = 4_000
"""Pages in the write-ahead log (16 MB) before it is carried over, which costs some 20 ms while callers wait."""

_LINES = "SELECT seq, at, event, call, body, hash FROM entries"


class SqliteBook:
    """The file, to write. All but `turn` raise sqlite3.Error; that raises OSError and Tampered, too."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path, self._patience = path, patience
        self._database = _schema.connect(path, patience)
        self._database.execute(f"PRAGMA wal_autocheckpoint={PAGES}")
        self._full: bool | None = None
        self._files = self._identities()

    @contextlib.contextmanager
    def turn(self, *, durable: bool) -> Iterator[None]:
        with calls.under_way():
            if self._identities() != self._files:
                raise Tampered(f"{self.path} is not the file that was opened: it was removed or replaced")
            self._synchronise(full=durable)
            database = self._database
            persist(lambda: database.execute("BEGIN IMMEDIATE"), self._patience)
            try:
                yield
                database.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
                raise

    def first(self) -> bytes | None:
        found = self._database.execute("SELECT body FROM entries WHERE seq = 1").fetchone()
        return found[0] if found else None

    def head(self) -> tuple[int, object] | None:
        found = self._database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return found if found is None else (int(found[0]), found[1])

    def hash_at(self, seq: int) -> object | None:
        found = self._database.execute("SELECT hash FROM entries WHERE seq = ?", (seq,)).fetchone()
        return found[0] if found else None

    def write(self, lines: Sequence[Line]) -> None:
        done = 0
        for size in CHUNKS:
            while len(lines) - done >= size:
                self._database.execute(INSERT[size], list(chain.from_iterable(lines[done : done + size])))
                done += size

    def last_checkpoint(self) -> str | None:
        found = self._database.execute("SELECT body FROM checkpoints ORDER BY number DESC LIMIT 1").fetchone()
        return found[0] if found else None

    def write_checkpoint(self, number: int, body: str) -> None:
        self._database.execute("INSERT INTO checkpoints VALUES (?, ?)", (number, body))

    def close(self) -> None:
        """The last process to close carries the write-ahead log over into the file."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

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


@contextlib.contextmanager
def reading_file(path: Path) -> Iterator[SqliteReading]:
    """The file, to read, also where nothing can be written. Raises BadInput, Unreadable."""
    try:
        database = _schema.connect_read_only(path)
    except sqlite3.Error as error:
        raise Unreadable(str(error)) from error
    try:
        database.execute("BEGIN")  # one state of the file for all that follows
        yield SqliteReading(database)
    finally:
        database.close()


class SqliteReading:
    """The file as it stood at one moment."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def lines(self, first: int, since: int | None = None) -> Iterator[Line]:
        if since is None:
            return self._rows(f"{_LINES} WHERE seq >= ? ORDER BY seq", first)
        return self._rows(f"{_LINES} WHERE seq >= ? AND at >= ? ORDER BY seq", first, since)

    def last(self, n: int, events: Sequence[str] = ()) -> list[Line]:
        of_these = f"WHERE event IN ({', '.join('?' * len(events))})" if events else ""
        return list(self._rows(f"{_LINES} {of_these} ORDER BY seq DESC LIMIT ?", *events, n))

    def checkpoints(self, after: int = 0) -> Iterator[tuple[int, str]]:
        return self._rows("SELECT number, body FROM checkpoints WHERE number > ? ORDER BY number", after)

    def amiss(self) -> list[str]:
        found = dict(self._rows("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"))
        return [
            name for name in sorted(set(found) | set(_schema.TABLES)) if found.get(name) != _schema.TABLES.get(name)
        ]

    def _rows(self, query: str, *values: int | str) -> Iterator[Any]:
        try:
            yield from self._database.execute(query, values)
        except sqlite3.DatabaseError as error:
            raise Unreadable(str(error)) from error
