"""Requests in an SQLite file (WAL): they survive restarts and are shared by the processes of one host.

What decides who wins is one `UPDATE ... WHERE state = ...`: of all who try at once, one changes a row.

The file is created for its owner's eyes only. It names who asks and who decides, and holds arguments with the personal
data in them, for a person has to read what he decides about; secrets are not among it. `keep` seconds after a request
has expired its arguments are erased, from the write-ahead log, too, when the next request is opened or decided, or
by `forget(time.time())`; their digest, and who decided what and when, stay.
"""

from __future__ import annotations

import builtins
import dataclasses
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.approvals.requests import Request, State
from escalade.registry.stores.forks import calls
from escalade.registry.stores.owners import after_fork
from escalade.registry.stores.persist import persist

_FIELDS = [field.name for field in dataclasses.fields(Request)]
_INSERT = f"INSERT INTO requests VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608 - question marks only
_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS requests ({
    ", ".join(
        f"{name} {'REAL' if name in {'created', 'expires', 'decided_at', 'used_at'} else 'TEXT'} NOT NULL"
        for name in _FIELDS
    )
}, PRIMARY KEY (id)) STRICT;
CREATE INDEX IF NOT EXISTS requests_by_key ON requests (key);
PRAGMA user_version = {_VERSION};
"""


class SqliteRequests:
    """Requests in a file. `wait`: seconds for which it waits for another writer. `keep`: seconds for which arguments
    can be read after the request has expired, so that people can look at what they approved; a day by default.

    Raises BadInput for a file that is no such store (`create=False`: or isn't there), StoreUnavailable when it can't be
    read or written.
    """

    remote = True

    def __init__(self, path: str | Path, *, wait: float = 5.0, create: bool = True, keep: float = 86_400.0) -> None:
        self.path = Path(path)
        self._wait, self._keep = wait, keep
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: list[sqlite3.Connection] = []
        after_fork(self)
        if not create and not self.path.is_file():
            raise BadInput(f"{self.path}: there is no such store of approvals")
        with self._opened():
            pass

    def _forked(self) -> None:
        """SQLite doesn't survive a fork: the parent's connection is kept and never touched again."""
        if self._connection is not None:
            self._inherited.append(self._connection)
        self._connection, self._lock = None, threading.Lock()

    def open(self, request: Request) -> Request:
        """The newest live request of the same key, else this one."""
        live = (
            "SELECT * FROM requests WHERE key = ? AND expires > ? "
            "AND state IN ('pending', 'approved', 'denied') ORDER BY created DESC, rowid DESC LIMIT 1"
        )
        self.forget(request.created)
        with self._opened() as connection, _transaction(connection):
            row = connection.execute(live, (request.key, request.created)).fetchone()
            if row is not None:
                return Request(*row)
            connection.execute(_INSERT, dataclasses.astuple(request))
            return request

    def given(self, key: str, now: float) -> builtins.list[Request]:
        """Approved ones of this key, newest first: still good, or used."""
        given = (
            "SELECT * FROM requests WHERE key = ? AND (state = 'used' OR (state = 'approved' AND expires > ?)) "
            "ORDER BY created DESC, rowid DESC"
        )
        with self._opened() as connection:
            return [Request(*row) for row in connection.execute(given, (key, now))]

    def get(self, request_id: str) -> Request | None:
        """By its id."""
        with self._opened() as connection:
            row = connection.execute("SELECT * FROM requests WHERE id = ?", (request_id,)).fetchone()
        return None if row is None else Request(*row)

    def list(self) -> builtins.list[Request]:
        """All, oldest first."""
        with self._opened() as connection:
            rows = connection.execute("SELECT * FROM requests ORDER BY created, rowid").fetchall()
        return [Request(*row) for row in rows]

    def decide(self, request_id: str, state: State, by: str, reason: str, now: float) -> bool:
        """Approve or deny a pending one."""
        self.forget(now)
        return self._changed(
            "UPDATE requests SET state = ?, decided_by = ?, reason = ?, decided_at = ? "
            "WHERE id = ? AND state = 'pending' AND expires > ?",
            (state, by, reason, now, request_id, now),
        )

    def use(self, request_id: str, call_id: str, now: float) -> bool:
        """Spend an approval."""
        return self._changed(
            "UPDATE requests SET state = 'used', used_by = ?, used_at = ? "
            "WHERE id = ? AND state = 'approved' AND used_at = 0 AND expires > ?",
            (call_id, now, request_id, now),
        )

    def give_back(self, request_id: str, call_id: str) -> None:
        """What this call spent is approved again."""
        self._changed(
            "UPDATE requests SET state = 'approved', used_by = '', used_at = 0 "
            "WHERE id = ? AND state = 'used' AND used_by = ?",
            (request_id, call_id),
        )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None:
                with calls.under_way():
                    self._connection.close()
            self._connection = None

    def forget(self, now: float) -> None:
        """Erase the arguments of requests that are long over. `now`: seconds since the epoch."""
        old = "expires < ? AND arguments <> 'null'"
        values = (now - self._keep,)
        with self._opened() as connection:
            if connection.execute(f"SELECT 1 FROM requests WHERE {old} LIMIT 1", values).fetchone() is None:  # noqa: S608
                return
            with _transaction(connection):
                connection.execute(f"UPDATE requests SET arguments = 'null' WHERE {old}", values)  # noqa: S608
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # as far as nobody reads; the next time, the rest

    def _changed(self, update: str, values: tuple[object, ...]) -> bool:
        with self._opened() as connection, _transaction(connection):
            return connection.execute(update, values).rowcount == 1

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._lock, calls.under_way():
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except sqlite3.DatabaseError as error:
                if not isinstance(error, sqlite3.OperationalError):
                    raise BadInput(f"{self.path}: is no store of approvals ({error})") from None
                raise StoreUnavailable(f"the store of approvals can't be used: {error}") from None

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            try:
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise StoreUnavailable(f"the store of approvals can't be created: {error.strerror}") from None
        connection = sqlite3.connect(self.path, timeout=self._wait, isolation_level=None, check_same_thread=False)
        try:
            version = _version(connection, self.path)
            persist(lambda: connection.execute("PRAGMA journal_mode = WAL"), self._wait)
            connection.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
            connection.execute("PRAGMA synchronous = FULL")  # an approval that was given must not be lost
            if version == 0:
                connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Of the tables, 0 where there are none yet."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, _VERSION}:
        raise BadInput(f"{path}: is a store of version {version}; known to this program is {_VERSION}")
    if version and connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone() is None:
        raise BadInput(f"{path}: is no store of approvals, but another SQLite file")
    return version


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One writer at a time, from before the first look."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
