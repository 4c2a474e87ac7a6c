"""Rate limits in a SQLite file, for several processes of one host."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable

from escalade.registry.limits import Taken, Window
from escalade.registry.stores.resting import Rest, opaque
from escalade.registry.stores.sqlite import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS uses (
    key TEXT NOT NULL, at REAL NOT NULL, id TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (key, at, id)
) WITHOUT ROWID;
"""
_SWEEP = 2_000
"""Uses after which old ones of all keys are forgotten."""


class SqliteLimiter:
    """A `RateLimiter` in a file: `Registry(tools, limiter=SqliteLimiter("limits.db"))`.

    Exact, as the one in memory: a log of the uses of each key. `now`: seconds of a clock that all processes of the host
    share and nobody sets; after a restart of the host all windows are empty. `patience`: seconds to wait for other
    writers; `rest`: seconds for which a file that failed is left alone. Raises StoreUnavailable.
    """

    remote = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        now: Callable[[], float] = time.monotonic,
        patience: float = 5.0,
        rest: float = 1.0,
    ) -> None:
        self.database = Database(path, _SCHEMA, patience=patience)
        self._now, self._rest, self._uses = now, Rest("rate limits", rest), 0
        self.wait(())

    def take_all(self, windows: tuple[Window, ...]) -> Taken | float:
        """Use them all once: `Taken` if each had room and was debited, else the seconds to wait, debiting none."""
        windows = opaque(windows)
        name, longest = uuid.uuid4().hex, _longest(windows)
        with self._rest.asking(), self.database.transaction() as connection:
            now = self._now()
            self._forget(connection, longest, now)
            wait = max((_wait(connection, window, now) for window in windows), default=0.0)
            if wait > 0.0:
                return wait
            rows = [(key, now, name, now + seconds) for key, seconds in longest.items()]
            connection.executemany("INSERT INTO uses VALUES (?, ?, ?, ?)", rows)
        return Taken(windows, now, name)

    def wait(self, windows: tuple[Window, ...]) -> float:
        """Seconds until all of them have room, as things are; 0 if they have. Debits none."""
        windows = opaque(windows)
        with self._rest.asking(), self.database.transaction() as connection:
            now = self._now()
            return max((_wait(connection, window, now) for window in windows), default=0.0)

    def give_back(self, taken: Taken) -> None:
        """Undo that use: it did not happen."""
        rows = [(key, taken.at, taken.id) for key in _longest(taken.windows)]
        with self._rest.asking(), self.database.transaction() as connection:
            connection.executemany("DELETE FROM uses WHERE key=? AND at=? AND id=?", rows)

    def _forget(self, connection: sqlite3.Connection, longest: dict[str, float], now: float) -> None:
        """Uses that no window looks at any more, and those of before the host's restart, which seem to come."""
        old = [(key, now - seconds, now) for key, seconds in longest.items()]
        connection.executemany("DELETE FROM uses WHERE key=? AND (at<=? OR at>?)", old)
        self._uses += 1
        if self._uses % _SWEEP == 0:
            connection.execute("DELETE FROM uses WHERE until<=? OR at>?", (now, now))


def _longest(windows: tuple[Window, ...]) -> dict[str, float]:
    """Each key with the seconds of its longest window: its uses are logged once."""
    longest: dict[str, float] = {}
    for key, limit in windows:
        longest[key] = max(limit.seconds, longest.get(key, 0.0))
    return longest


def _wait(connection: sqlite3.Connection, window: Window, now: float) -> float:
    """Seconds until the use that fills the window has left it."""
    key, limit = window
    row = connection.execute(
        "SELECT at FROM uses WHERE key=? AND at<=? ORDER BY at DESC LIMIT 1 OFFSET ?", (key, now, limit.calls - 1)
    ).fetchone()
    return 0.0 if row is None else max(0.0, float(row[0]) + limit.seconds - now)
