"""A SQLite file that several processes of one host write: WAL, one writer at a time, all or nothing.

Each process has one connection, made anew after a fork. Calls block the thread that makes them, about 50 us when the
file is free, and up to `patience` seconds while others write (`benchmarks/stores.py`); coroutines have them made in a
thread (`registry/elsewhere.py`). `durable=False` survives the death of processes; of the last moment before a power cut
it may lose a few transactions, never a part of one. `durable=True` waits for the disk (milliseconds).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from escalade.errors import StoreUnavailable
from escalade.registry.stores.forks import calls
from escalade.registry.stores.owners import after_fork
from escalade.registry.stores.persist import persist


class Database:
    """One file. All its errors are StoreUnavailable, which name the file and what SQLite said."""

    def __init__(
        self, path: str | os.PathLike[str], schema: str, *, patience: float = 5.0, durable: bool = False
    ) -> None:
        self.path, self._schema, self._patience, self._durable = Path(path), schema, patience, durable
        self._inherited: list[sqlite3.Connection] = []
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        after_fork(self)

    def _forked(self) -> None:
        """The parent's connection is kept and never touched again: closing it here would drop the parent's locks."""
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection, self._lock = None, threading.RLock()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing, with nobody else writing meanwhile. Not to be nested. Raises
        StoreUnavailable.
        """
        with self._lock, calls.under_way():
            connection = self._open()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo(connection)
                raise self._unavailable(error) from error
            except BaseException:
                self._undo(connection)
                raise

    def read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The rows of one query, of one moment. Raises StoreUnavailable."""
        with self._lock, calls.under_way():
            connection = self._open()
            try:
                return connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        with self._lock, calls.under_way():
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _undo(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:  # a connection in an unknown state is not used again
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        try:
            self._create()
            connection = sqlite3.connect(
                self.path, timeout=self._patience, isolation_level=None, check_same_thread=False
            )
            # Of several that open a new file at once all but one are told that it is locked, whatever their timeout.
            persist(lambda: connection.execute("PRAGMA journal_mode=WAL"), self._patience)
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
            connection.executescript(self._schema)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        if mode != "wal":
            raise StoreUnavailable(f"the store {self.path.name!r} can't be shared: it must be a file on a local disk")
        self._connection = connection
        return connection

    def _create(self) -> None:
        """For its owner's eyes only, as its journals then are: it names people, and may hold results of tools."""
        with contextlib.suppress(OSError):  # which SQLite tells better
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _unavailable(self, error: sqlite3.Error) -> StoreUnavailable:
        return StoreUnavailable(f"the store {self.path.name!r} can't be used: {error}", 1.0)
