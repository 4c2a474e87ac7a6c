"""Sessions in a SQLite file, for several processes of one host; what is deleted is overwritten."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable

from escalade.agents.sessions.store import Kept, Key
from escalade.registry.stores.sqlite import Database

_SCHEMA = """
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS sessions (
    tenant TEXT NOT NULL, user TEXT NOT NULL, id TEXT NOT NULL,
    version TEXT NOT NULL, data BLOB NOT NULL, expires REAL,
    PRIMARY KEY (tenant, user, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_expires ON sessions (expires) WHERE expires IS NOT NULL;
"""


class SqliteSessions:
    """A `SessionStore` in a file, readable by its owner only. `now`: wall clock, seconds. `patience`: seconds to wait
    for other writers. Raises StoreUnavailable.

    What is deleted is gone from the file, and from its journal too, as soon as no other process is reading.
    """

    remote = True

    def __init__(
        self, path: str | os.PathLike[str], *, now: Callable[[], float] = time.time, patience: float = 5.0
    ) -> None:
        self.database = Database(path, _SCHEMA, patience=patience)
        self._now = now

    def load(self, key: Key) -> Kept | None:
        rows = self.database.read(
            "SELECT data, version FROM sessions WHERE tenant = ? AND user = ? AND id = ? "
            "AND (expires IS NULL OR expires > ?)",
            (*key, self._now()),
        )
        return Kept(*rows[0]) if rows else None

    def save(self, key: Key, data: bytes, *, version: str, ttl: float | None) -> bool:
        expires = None if ttl is None else self._now() + ttl
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE expires <= ?", (self._now(),))  # anybody's
            if version:
                changed = connection.execute(
                    "UPDATE sessions SET data = ?, version = ?, expires = ? "
                    "WHERE tenant = ? AND user = ? AND id = ? AND version = ?",
                    (data, uuid.uuid4().hex, expires, *key, version),
                )
            else:
                changed = connection.execute(
                    "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?, ?, ?, ?)", (*key, uuid.uuid4().hex, data, expires)
                )
            return changed.rowcount == 1

    def delete(self, key: Key) -> bool:
        return self._delete("tenant = ? AND user = ? AND id = ?", key) > 0

    def forget(self, tenant: str, user: str | None = None) -> int:
        if user is None:
            return self._delete("tenant = ?", (tenant,))
        return self._delete("tenant = ? AND user = ?", (tenant, user))

    def sweep(self) -> int:
        return self._delete("expires <= ?", (self._now(),))

    def ids(self, tenant: str, user: str) -> list[str]:
        rows = self.database.read(
            "SELECT id FROM sessions WHERE tenant = ? AND user = ? AND (expires IS NULL OR expires > ?) ORDER BY id",
            (tenant, user, self._now()),
        )
        return [row[0] for row in rows]

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self.database.close()

    def _delete(self, where: str, values: tuple[object, ...]) -> int:
        with self.database.transaction() as connection:
            gone = connection.execute(f"DELETE FROM sessions WHERE {where}", values).rowcount  # noqa: S608 - our own
        self.database.read("PRAGMA wal_checkpoint(TRUNCATE)")  # the journal has older pages
        return gone
