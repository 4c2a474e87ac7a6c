"""The file: what is in it, and how it is opened, to write or to read."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from escalade.errors import BadInput
from escalade.registry.audit._book import FORMAT, genesis
from escalade.registry.stores.persist import persist

APPLICATION_ID = 0x45534144
"""`ESAD` in the header of the file."""

_said = ", ".join(
    f"json_extract(CAST(body AS TEXT), '$.{name}') AS {name}"
    for name in ("user", "tenant", "run", "resource", "version", "kind", "rule", "outcome", "error", "held", "cost")
)
TABLES = {
    "entries": "CREATE TABLE entries (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, event TEXT NOT NULL, "
    "call TEXT NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL)",
    "checkpoints": "CREATE TABLE checkpoints (number INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    "audit": f"CREATE VIEW audit AS SELECT seq, at, event, call, {_said} FROM entries",  # noqa: S608 - all constant
}
TABLES |= {
    f"{table}_{verb.lower()}": f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    for table in ("entries", "checkpoints")
    for verb in ("UPDATE", "DELETE")
}
"""The view is for people with a SQL prompt. The triggers stop accidents; what stops attackers is the chain."""

_MAGIC = b"SQLite format 3\0"


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """Open to write; made where there is none, for the owner's eyes only. Raises BadInput, OSError, sqlite3.Error."""
    check_path(path, may_be_new=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        persist(lambda: check_kind(database, path, may_be_new=True), patience)
        persist(lambda: database.execute("PRAGMA journal_mode=WAL"), patience)
        persist(lambda: database.execute("BEGIN IMMEDIATE"), patience)
        _create(database)
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open to read; what others commit stays visible. Raises BadInput, sqlite3.Error."""
    check_path(path, may_be_new=False)
    uri = path.absolute().as_uri()
    writable = path.with_name(path.name + "-wal").exists() or os.access(path.parent, os.W_OK)
    # On a medium that can't be written to SQLite must be told that nobody else writes either.
    mode = "mode=ro" if writable else "mode=ro&immutable=1"
    database = sqlite3.connect(f"{uri}?{mode}", uri=True, isolation_level=None, timeout=5)
    try:
        check_kind(database, path, may_be_new=False)
    except BaseException:
        database.close()
        raise
    return database


def check_path(path: Path, *, may_be_new: bool) -> None:
    """Raises BadInput where no file is or can be.

    The file is not opened: to close a file gives up all locks that this process has on it, those of SQLite's own
    connections too, and another process would then remove the write-ahead log under them.
    """
    if path.is_dir():
        raise BadInput(f"audit log {path}: it is a folder")
    if not path.exists() and not (may_be_new and path.parent.is_dir()):
        missing = path if path.parent.is_dir() else path.parent
        raise BadInput(f"audit log {path}: there is no {missing}")


def check_kind(database: sqlite3.Connection, path: Path, *, may_be_new: bool) -> None:
    """Raises BadInput for a file that is no audit log, sqlite3.Error for one that is damaged."""
    try:
        kind = database.execute("PRAGMA application_id").fetchone()[0]
        things = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise BadInput(f"{path} is no audit log: it is no SQLite file") from None
        raise
    if kind != APPLICATION_ID and (things or not may_be_new):
        raise BadInput(f"{path} is no audit log: it is a database of something else")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise BadInput(f"{path} is an audit log of format {version}; this release knows format {FORMAT}")


def _create(database: sqlite3.Connection) -> None:
    """Tables and the first row, where there are none yet. Inside a transaction."""
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return
    database.execute(f"PRAGMA application_id={APPLICATION_ID}")
    database.execute(f"PRAGMA user_version={FORMAT}")
    for statement in TABLES.values():
        database.execute(statement)
    database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", genesis())
