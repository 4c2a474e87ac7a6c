"""Whose turn it is: tenants share the workers of a queue evenly, however much one of them has queued.

Each queued run gets a number, and the least is run first. A tenant's runs are numbered one after the other; a tenant
that comes (or comes back) starts at the number that is being run just now. So every tenant that has runs waiting gets
as many of them run as any other, one that was away gains nothing by it, and nobody waits for ever. (Start-time fair
queueing: Goyal, Vin, Cheng, SIGCOMM 1996; all runs count alike.) Priorities stand above: of a higher one, all are run
before the first of a lower one.
"""

from __future__ import annotations

import contextlib
import threading

from escalade.errors import StoreUnavailable
from escalade.pipelines.durable.sql_store import Database

LEVELS = 16
"""Priorities that are told apart: -8 to 7; what lies outside counts as the nearest."""

_NUMBERS = 2**31 // LEVELS - 1

_TABLE = (
    "CREATE TABLE IF NOT EXISTS turns (queue TEXT, tenant TEXT, number BIGINT NOT NULL, PRIMARY KEY (queue, tenant))"
)
_LATEST = (
    "INSERT INTO turns (queue, tenant, number) VALUES (?, ?, ?) "
    "ON CONFLICT (queue, tenant) DO UPDATE SET number = excluded.number WHERE turns.number < excluded.number"
)


class Turns:
    """The numbers, beside the runs. Methods block, and raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._made = False
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, queue: str, tenant: str) -> int:
        """The number of a tenant's next run."""
        self._make()
        with self._database.transaction() as connection:
            connection.execute(_LATEST, (queue, f"/{tenant}", 0))
            row = connection.execute(
                "UPDATE turns SET number = 1 + CASE WHEN number > b.running THEN number ELSE b.running END "
                "FROM (SELECT COALESCE(max(number), 0) AS running FROM turns WHERE queue=? AND tenant='') AS b "
                "WHERE queue=? AND tenant=? RETURNING number",
                (queue, queue, f"/{tenant}"),
            ).fetchone()
        return int(row[0])

    def begun(self, queue: str, number: int) -> None:
        """A run of that number is being run now."""
        with self._lock:
            if number <= self._running.get(queue, 0):
                return
            self._running[queue] = number
        self._make()
        with self._database.transaction() as connection:
            connection.execute(_LATEST, (queue, "", number))

    def _make(self) -> None:
        if self._made:
            return
        with contextlib.suppress(StoreUnavailable):  # somebody else makes it just now; or whoever asks next is told
            with self._database.transaction() as connection:
                connection.execute(_TABLE)
            self._made = True


def rank(priority: int, number: int) -> int:
    """Where a run stands in its queue, from 1, the least first. `priority`: larger first."""
    level = LEVELS // 2 - 1 - max(-LEVELS // 2, min(LEVELS // 2 - 1, priority))
    return 1 + level * (_NUMBERS + 1) + min(number, _NUMBERS - 1)
