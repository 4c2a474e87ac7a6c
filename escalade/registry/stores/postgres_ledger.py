"""Budgets in PostgreSQL, for processes of many hosts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple

from escalade.errors import BadInput
from escalade.money import Money, money_or_none
from escalade.registry.budgets import Budget
from escalade.registry.ledger import Crossing, period_end
from escalade.registry.stores.owners import Owner, after_fork, here
from escalade.registry.stores.postgres import Server, array
from escalade.registry.stores.postgres_tables import BUDGETS
from escalade.registry.stores.shared import Change, Held, OnDeath, Row, SharedLedger, as_budget, as_crossing

_MOST = 2**62
"""Nano-dollars: sums of them still fit into a bigint, beyond four billion dollars."""

_ACCOUNT = 'SELECT name, "limit", period, warn, brake, ends, settled, held, overrun FROM accounts'
_FORGET = (
    "WITH gone AS (DELETE FROM accounts WHERE name = $1 AND held = 0 RETURNING name) "
    "DELETE FROM crossings WHERE account IN (SELECT name FROM gone)"
)
_HOLD = "SELECT key, owner, run, what, amount, to_json(accounts)::text, at FROM holds"
_LEFT = """
UPDATE crossings c SET owner = $1 FROM (
    SELECT account, level, owner FROM crossings
    WHERE NOT told AND ends > $2 AND owner NOT IN (SELECT id FROM owners)) dead
WHERE c.account = dead.account AND c.level = dead.level AND c.owner = dead.owner AND NOT c.told
RETURNING c.account, c.level, c.used, c."limit", c.ends
"""


class PostgresLedger(SharedLedger):
    """A ledger in PostgreSQL: `escalade.scope(ledger=PostgresLedger("postgresql://me:pw@db/app", [Budget(...)]))`.

    `schema`: where its tables are. `timeout`: seconds for one statement. The rest as in `SharedLedger`; a reservation
    and its settlement are a statement each, and accounts that many processes use at once are locked for that long.
    Raises StoreUnavailable, BadInput for an address that is none.
    """

    def __init__(
        self,
        url: str,
        budgets: Iterable[Budget] = (),
        *,
        schema: str = "escalade",
        listen: Callable[[Crossing], object] | None = None,
        now: Callable[[], float] | None = None,
        lease: float = 60.0,
        on_death: OnDeath = "settle",
        rest: float = 1.0,
        timeout: float = 1.0,
    ) -> None:
        store = PostgresStore(url, schema=schema, timeout=timeout)
        super().__init__(store, budgets, listen=listen, now=now, lease=lease, on_death=on_death, rest=rest)


class PostgresStore:
    """A `Store` in PostgreSQL. One connection: a ledger asks one thing at a time."""

    def __init__(self, url: str, *, schema: str = "escalade", timeout: float = 1.0) -> None:
        self.server = Server(url, BUDGETS, schema=schema, timeout=timeout, connections=1)
        self._owner = Owner()
        self.beat()
        after_fork(self)

    def _forked(self) -> None:
        self._owner = Owner()

    def now(self) -> float:
        return self.server.now()

    def set_budget(self, budget: Budget, now: float, *, replace: bool = True, by: str = "") -> None:
        limit = int(money_or_none(budget.limit) or 0)
        if limit > _MOST:
            raise BadInput(f"budget {budget.account!r}: a ledger in PostgreSQL counts up to {Money(_MOST)}")
        said = (budget.account, limit, budget.period, budget.warn, budget.brake)
        self.server.call("set_budget", replace, *said, period_end(budget.period, now), now, json.dumps(said), by)

    def changes(self) -> list[Change]:
        rows = self.server.ask("SELECT at, was, now, by FROM changes ORDER BY id DESC")
        return [Change(at, None if was is None else as_budget(was), as_budget(said), by) for at, was, said, by in rows]

    def read(self, names: Sequence[str] | None, now: float) -> list[Row]:
        if names is None:
            rows = self.server.ask(_ACCOUNT)
        else:
            rows = self.server.ask(f"{_ACCOUNT} WHERE name = ANY ($1)", array(names))
        if any(now >= row[5] for row in rows):  # a new period begins for everybody, and for good
            rows = self.server.call("locked", array(row[0] for row in rows), *_clock(now))
        return [Row(*row) for row in rows]

    def reserve(
        self, key: str, names: Sequence[str], amount: int, now: float, run: str, what: str
    ) -> tuple[bool, list[Row]]:
        owner = astuple(self._owner)[:4]
        rows = self.server.promise("reserve", key, array(names), amount, *_clock(now), *owner, run, what)
        return bool(rows) and bool(rows[0][0]), [Row(*row[1:]) for row in rows]

    def settle(self, key: str, actual: int, now: float) -> list[Row] | None:
        return self._ended(key, self._owner.id, actual, now)

    def forget(self, name: str) -> None:
        self.server.ask(_FORGET, name)

    def beat(self) -> None:
        self.server.call("beat", *astuple(self._owner)[:4])

    def sweep(self, now: float, lease: float, on_death: OnDeath) -> list[Held]:
        host, clock, ended = here(), self.server.now(), []
        owners = [Owner(*row) for row in self.server.ask("SELECT id, host, pid, started, seen FROM owners")]
        for owner in owners:
            if owner.id == self._owner.id or not owner.dead(clock, lease, host):
                continue
            for held in _helds(self.server.ask(f"{_HOLD} WHERE owner = $1", owner.id)):
                booked = held.amount if on_death == "settle" else 0
                if self._ended(held.key, owner.id, booked, now) is not None:
                    ended.append(held)
            self.server.call("forget", owner.id)
        return ended

    def claim(self, crossing: Crossing) -> bool:
        limit = None if crossing.limit is None else int(crossing.limit)
        said = (crossing.account, crossing.level, crossing.ends, int(crossing.used), limit, self._owner.id)
        ((ours,),) = self.server.call("claim", *said)
        return bool(ours)

    def told(self, crossing: Crossing) -> None:
        said = (crossing.account, crossing.level, self._owner.id)
        self.server.ask("UPDATE crossings SET told = true WHERE account = $1 AND level = $2 AND owner = $3", *said)

    def inherit(self, now: float) -> list[Crossing]:
        return [as_crossing(*row) for row in self.server.ask(_LEFT, self._owner.id, now)]

    def held(self) -> list[Held]:
        return _helds(self.server.ask(f"{_HOLD} ORDER BY at"))

    def close(self) -> None:
        self.server.close()

    def _ended(self, key: str, owner: str, actual: int, now: float) -> list[Row] | None:
        rows = self.server.call("settle", key, owner, actual, *_clock(now))
        return [Row(*row) for row in rows] or None


def _clock(now: float) -> tuple[float, float, float]:
    """Now, and where a day and a month that begin now would end."""
    return now, period_end("day", now), period_end("month", now)


def _helds(rows: Iterable[tuple[str, str, str, str, int, str, float]]) -> list[Held]:
    return [Held(key, owner, run, what, amount, tuple(json.loads(names)), at)
            for key, owner, run, what, amount, names, at in rows]  # fmt: skip
