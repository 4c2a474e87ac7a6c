"""Runs in memory: for scripts and tests. They end with the process; what they promise is otherwise the same."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

from escalade.pipelines.durable.sql_store import SCHEMA, SqlStore


class MemoryRuns(SqlStore):
    """A `Store` in memory."""

    remote = False

    def __init__(self) -> None:
        super().__init__(_Memory())


class _Memory:
    """SQLite without a file: the same statements, no second set of rules; 10 us each."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.executescript(SCHEMA)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """What is in it stays until it is collected."""
