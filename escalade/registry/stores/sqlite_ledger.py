"""Budgets in a SQLite file, for several processes of one host."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence

from escalade.money import money_or_none
from escalade.registry.budgets import Budget
from escalade.registry.ledger import Crossing, period_end
from escalade.registry.stores.owners import Owner, after_fork, here
from escalade.registry.stores.shared import Change, Held, OnDeath, Row, SharedLedger, as_budget, as_crossing
from escalade.registry.stores.sqlite import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, "limit" INTEGER NOT NULL, period TEXT NOT NULL, warn REAL NOT NULL, brake REAL NOT NULL,
    ends REAL NOT NULL, settled INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0,
    overrun INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, run TEXT NOT NULL, what TEXT NOT NULL, amount INTEGER NOT NULL,
    accounts TEXT NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started TEXT NOT NULL, seen REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crossings (
    account TEXT NOT NULL, level TEXT NOT NULL, ends REAL NOT NULL, used INTEGER NOT NULL, "limit" INTEGER,
    owner TEXT NOT NULL, told INTEGER NOT NULL, PRIMARY KEY (account, level)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (at REAL NOT NULL, was TEXT, now TEXT NOT NULL, by TEXT NOT NULL);
"""
_ACCOUNT = 'SELECT name, "limit", period, warn, brake, ends, settled, held, overrun FROM accounts'
_NEW = (
    'INSERT INTO accounts (name, "limit", period, warn, brake, ends) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO '
)
_SET = 'SELECT name, "limit", period, warn, brake FROM accounts WHERE name=?'
_CLAIM = (
    'INSERT INTO crossings (account, level, ends, used, "limit", owner, told) VALUES (?, ?, ?, ?, ?, ?, ?) '
    "ON CONFLICT (account, level) DO UPDATE SET ends=excluded.ends, used=excluded.used, "
    '"limit"=excluded."limit", owner=excluded.owner, told=excluded.told WHERE excluded.ends > crossings.ends'
)
_LEFT = (
    'SELECT account, level, used, "limit", ends FROM crossings '
    "WHERE NOT told AND ends > ? AND owner NOT IN (SELECT id FROM owners)"
)
_CHANGE = (
    'UPDATE SET "limit"=excluded."limit", warn=excluded.warn, brake=excluded.brake, '
    "ends=CASE WHEN period=excluded.period THEN ends ELSE excluded.ends END, period=excluded.period"
)
_HOLD = (
    "INSERT INTO holds (key, owner, run, what, amount, accounts, at) SELECT ?, id, ?, ?, ?, ?, ? FROM owners WHERE id=?"
)
_UPDATE = "UPDATE accounts SET ends=?, settled=?, held=?, overrun=? WHERE name=?"


class SqliteLedger(SharedLedger):
    """A ledger in a file: `escalade.scope(ledger=SqliteLedger("budgets.db", [Budget("tenant:acme", "50", "day")]))`.

    Several processes of one host may open the same file, and it outlives them all. Budgets that are given are set;
    those that are in the file stay. `patience`: seconds to wait for other writers. `durable`: wait for the disk at
    each transaction (see `stores.sqlite`). The rest as in `SharedLedger`. Raises StoreUnavailable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        budgets: Iterable[Budget] = (),
        *,
        listen: Callable[[Crossing], object] | None = None,
        now: Callable[[], float] | None = None,
        lease: float = 60.0,
        on_death: OnDeath = "settle",
        rest: float = 1.0,
        patience: float = 5.0,
        durable: bool = False,
    ) -> None:
        store = SqliteStore(path, patience=patience, durable=durable)
        super().__init__(store, budgets, listen=listen, now=now, lease=lease, on_death=on_death, rest=rest)


class SqliteStore:
    """A `Store` in a SQLite file."""

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 5.0, durable: bool = False) -> None:
        self.database = Database(path, _SCHEMA, patience=patience, durable=durable)
        self._owner = Owner()
        self.beat()
        after_fork(self)

    def _forked(self) -> None:
        self._owner = Owner()

    def now(self) -> float:
        return time.time()

    def set_budget(self, budget: Budget, now: float, *, replace: bool = True, by: str = "") -> None:
        said = (budget.account, int(money_or_none(budget.limit) or 0), budget.period, budget.warn, budget.brake)
        with self.database.transaction() as connection:
            was = connection.execute(_SET, (budget.account,)).fetchone()
            if was == said:
                return
            connection.execute(_NEW + (_CHANGE if replace else "NOTHING"), (*said, period_end(budget.period, now)))
            if replace:
                connection.execute("DELETE FROM crossings WHERE account=?", (budget.account,))
                before = None if was is None else json.dumps(was)
                connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (now, before, json.dumps(said), by))

    def changes(self) -> list[Change]:
        rows = self.database.read("SELECT at, was, now, by FROM changes ORDER BY rowid DESC")
        return [Change(at, None if was is None else as_budget(was), as_budget(said), by) for at, was, said, by in rows]

    def read(self, names: Sequence[str] | None, now: float) -> list[Row]:
        sql, values = (_ACCOUNT, ()) if names is None else (f"{_ACCOUNT} WHERE name IN ({_marks(names)})", tuple(names))
        rows = [Row(*row) for row in self.database.read(sql, values)]
        if all(now < row.ends for row in rows):
            return rows
        with self.database.transaction() as connection:  # a new period begins for everybody, and for good
            rows = _accounts(connection, [row.name for row in rows], now)
            connection.executemany(_UPDATE, [(r.ends, r.settled, r.held, r.overrun, r.name) for r in rows])
        return rows

    def reserve(
        self, key: str, names: Sequence[str], amount: int, now: float, run: str, what: str
    ) -> tuple[bool, list[Row]]:
        with self.database.transaction() as connection:
            rows = _accounts(connection, names, now)
            fits = len(rows) == len(names) and all(row.settled + row.held + amount <= row.limit for row in rows)
            if not fits:
                amount = 0  # a new period may have begun all the same
            else:
                hold = (key, run, what, amount, json.dumps([row.name for row in rows]), now, self._owner.id)
                if connection.execute(_HOLD, hold).rowcount != 1:  # we were taken for dead
                    self._register(connection)
                    connection.execute(_HOLD, hold)
            changed = [(row.ends, row.settled, row.held + amount, row.overrun, row.name) for row in rows]
            connection.executemany(_UPDATE, changed)
        return fits, rows

    def settle(self, key: str, actual: int, now: float) -> list[Row] | None:
        with self.database.transaction() as connection:
            found = connection.execute(
                "DELETE FROM holds WHERE key=? AND owner=? RETURNING amount, accounts", (key, self._owner.id)
            ).fetchall()
            if not found:
                return None
            amount, names = found[0]
            return _book(connection, json.loads(names), amount, actual, now)

    def forget(self, name: str) -> None:
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM accounts WHERE name=? AND held=0", (name,))
            connection.execute(
                "DELETE FROM crossings WHERE account=? AND account NOT IN (SELECT name FROM accounts)", (name,)
            )

    def beat(self) -> None:
        with self.database.transaction() as connection:
            self._register(connection)

    def _register(self, connection: sqlite3.Connection) -> None:
        owner = self._owner
        values = (owner.id, owner.host, owner.pid, owner.started, time.time())
        connection.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?, ?)", values)

    def sweep(self, now: float, lease: float, on_death: OnDeath) -> list[Held]:
        with self.database.transaction() as connection:
            host, clock = here(), time.time()
            owners = [Owner(*row) for row in connection.execute("SELECT * FROM owners")]
            dead = [(o.id,) for o in owners if o.id != self._owner.id and o.dead(clock, lease, host)]
            connection.executemany("DELETE FROM owners WHERE id=?", dead)
            ended = _helds(connection.execute("SELECT * FROM holds WHERE owner NOT IN (SELECT id FROM owners)"))
            for held in ended:
                connection.execute("DELETE FROM holds WHERE key=?", (held.key,))
                _book(connection, held.accounts, held.amount, held.amount if on_death == "settle" else 0, now)
        return ended

    def claim(self, crossing: Crossing) -> bool:
        limit = None if crossing.limit is None else int(crossing.limit)
        row = (crossing.ends, int(crossing.used), limit, self._owner.id)
        with self.database.transaction() as connection:
            if connection.execute(_CLAIM, (crossing.account, crossing.level, *row, 0)).rowcount != 1:
                return False
            if crossing.level == "brake":  # it is late for a warning
                connection.execute(_CLAIM, (crossing.account, "warn", *row, 1))
        return True

    def told(self, crossing: Crossing) -> None:
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE crossings SET told=1 WHERE account=? AND level=? AND owner=?",
                (crossing.account, crossing.level, self._owner.id),
            )

    def inherit(self, now: float) -> list[Crossing]:
        if not self.database.read(_LEFT, (now,)):
            return []
        with self.database.transaction() as connection:
            left = connection.execute(_LEFT, (now,)).fetchall()
            connection.executemany(
                "UPDATE crossings SET owner=? WHERE account=? AND level=?",
                [(self._owner.id, account, level) for account, level, *_ in left],
            )
        return [as_crossing(*row) for row in left]

    def held(self) -> list[Held]:
        return _helds(self.database.read("SELECT * FROM holds ORDER BY at"))

    def close(self) -> None:
        self.database.close()


def _book(connection: sqlite3.Connection, names: Sequence[str], amount: int, actual: int, now: float) -> list[Row]:
    """Settle a hold of `amount` on these accounts, as the memory ledger does: the accounts as they were before."""
    rows, changed = _accounts(connection, names, now), []
    for row in rows:
        others = row.held - amount
        fits = actual if actual <= amount else max(min(actual, row.limit - row.settled - others), 0)
        changed.append((row.ends, row.settled + fits, others, row.overrun + actual - fits, row.name))
    connection.executemany(_UPDATE, changed)
    return rows


def _accounts(connection: sqlite3.Connection, names: Sequence[str], now: float) -> list[Row]:
    found = connection.execute(f"{_ACCOUNT} WHERE name IN ({_marks(names)})", tuple(names))
    return [_rolled(Row(*row), now) for row in found]


def _rolled(row: Row, now: float) -> Row:
    """The account as of now: in a new period, nothing is settled, and what is held still is."""
    if now < row.ends:
        return row
    ends = period_end(row.period, now)
    return Row(row.name, row.limit, row.period, row.warn, row.brake, ends, 0, row.held, 0)


def _helds(rows: Iterable[tuple[str, str, str, str, int, str, float]]) -> list[Held]:
    return [Held(key, owner, run, what, amount, tuple(json.loads(names)), at)
            for key, owner, run, what, amount, names, at in rows]  # fmt: skip


def _marks(names: Sequence[str]) -> str:
    return ", ".join("?" * len(names))
