"""The file: what is in it, and how it is opened, to write or to read."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from escalade.errors import BadInput
from escalade.registry.audit.chain import ZERO, link
from escalade.registry.audit.rows import GENESIS, canonical, now

APPLICATION_ID, VERSION = 0x45534144, 1
"""`ESAD` in the header of the file; the version of the tables."""

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
    check_kind(path, may_be_new=True)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        persist(lambda: database.execute("PRAGMA journal_mode=WAL"), patience)
        persist(lambda: database.execute("BEGIN IMMEDIATE"), patience)
        _create(database)
        database.execute("COMMIT")
        _check_version(database, path)
    except BaseException:
        database.close()
        raise
    return database


def persist(attempt: Callable[[], object], patience: float) -> None:
    """Call it again while the file is locked, for `patience` seconds.

    SQLite's own waiting sleeps up to 100 ms at a time, which starves one process among several; this looks again
    within a millisecond.
    """
    until = time.monotonic() + patience
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.0002 + secrets.randbelow(1000) / 1e6)
        else:
            return


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open to read; what others commit stays visible. Raises BadInput, sqlite3.Error."""
    check_kind(path, may_be_new=False)
    uri = path.absolute().as_uri()
    database = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None, timeout=5)
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        if path.with_name(path.name + "-wal").exists():
            raise
        database.close()  # a medium that can't be written to at all; nobody else writes either
        return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    return database


def check_kind(path: Path, *, may_be_new: bool) -> None:
    """Raises BadInput for what is no audit log."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        if may_be_new and path.parent.is_dir():
            return
        missing = path if path.parent.is_dir() else path.parent
        raise BadInput(f"audit log {path}: there is no {missing}") from None
    except OSError as error:
        raise BadInput(f"audit log {path}: {error.strerror}") from error
    if may_be_new and not head:
        return
    if not head.startswith(_MAGIC):
        raise BadInput(f"{path} is no audit log: it is no SQLite file")
    # New files have their header in the write-ahead log until it is carried over: zero then.
    if int.from_bytes(head[68:72], "big") not in {APPLICATION_ID, 0}:
        raise BadInput(f"{path} is no audit log: it is a database of something else")


def _create(database: sqlite3.Connection) -> None:
    """Tables and the first row, where there are none yet. Inside a transaction."""
    if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return
    database.execute(f"PRAGMA application_id={APPLICATION_ID}")
    database.execute(f"PRAGMA user_version={VERSION}")
    for statement in TABLES.values():
        database.execute(statement)
    body = canonical({"format": VERSION, "chain": secrets.token_hex(16), "hash": "sha256"})
    at = now()
    row = (1, at, GENESIS, "", body, link(ZERO, 1, at, GENESIS, "", body))
    database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    kind = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if kind != APPLICATION_ID:
        raise BadInput(f"{path} is no audit log: it is a database of something else")
    if version != VERSION:
        raise BadInput(f"{path} is an audit log of format {version}; this release writes format {VERSION}")
