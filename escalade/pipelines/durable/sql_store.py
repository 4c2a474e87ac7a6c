"""A store of runs in SQL: statements that mean the same to SQLite and to PostgreSQL.

Whoever changes a row does so in one statement that says what the row must be like, and learns from what it returns
whether it was: never by reading first and writing then, which another process may come between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, fields, replace
from typing import Any, Protocol

from escalade.pipelines.durable.store import (
    ENDED,
    CallRow,
    Entry,
    EventRow,
    Kept,
    RunRow,
    StepRow,
    TicketRow,
    Written,
)


class Rows(Protocol):
    """What a statement gave."""

    def fetchall(self) -> list[Any]: ...
    def fetchone(self) -> Any: ...


class Connection(Protocol):
    """An open transaction. Statements have `?` for each value."""

    def execute(self, sql: str, values: Sequence[Any] = ...) -> Rows: ...
    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> object: ...


class Database(Protocol):
    """Where the tables are."""

    def transaction(self) -> AbstractContextManager[Any]: ...
    def read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]: ...
    def close(self) -> None: ...


_RUN = tuple(field.name for field in fields(RunRow))
_RUNS = f"SELECT {', '.join(_RUN)} FROM runs"  # noqa: S608 - names of our own
_CREATE = (
    f"INSERT INTO runs ({', '.join(_RUN)}) VALUES ({', '.join('?' * len(_RUN))}) "  # noqa: S608
    "ON CONFLICT (run_id) DO NOTHING RETURNING run_id"
)
_ALL = f" RETURNING {', '.join(_RUN)}"
_STEP = "INSERT INTO steps (run_id, key, n, path, value) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_CALL = (
    "INSERT INTO calls (run_id, key, n, path, kind, resource, value, cost, at, state) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id, key, n) DO UPDATE SET value=excluded.value, "
    "cost=excluded.cost, at=excluded.at, state=excluded.state"
)
_EVENT = "INSERT INTO events (run_id, n, told) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_TICKET = tuple(f'"{field.name}"' for field in fields(TicketRow))
_TICKETS = f"SELECT {', '.join(_TICKET)} FROM tickets"  # noqa: S608
_ASK = f"INSERT INTO tickets ({', '.join(_TICKET)}) VALUES ({', '.join('?' * len(_TICKET))}) ON CONFLICT DO NOTHING"  # noqa: S608
_OWN = ("steps", "calls", "events", "tickets", "runs")

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, shape TEXT NOT NULL, inputs BLOB NOT NULL, digest TEXT NOT NULL,
    principal TEXT, tenant TEXT NOT NULL, budget BIGINT, deadline DOUBLE PRECISION, priority BIGINT NOT NULL,
    status TEXT NOT NULL, stopping BOOLEAN NOT NULL, turn BIGINT NOT NULL, attempts BIGINT NOT NULL,
    owner TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, started DOUBLE PRECISION NOT NULL,
    ended DOUBLE PRECISION NOT NULL, spent BIGINT NOT NULL, result BLOB, error TEXT, forked_from TEXT,
    keep_events BOOLEAN NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_status ON runs (status, created);
CREATE INDEX IF NOT EXISTS runs_created ON runs (created);
CREATE TABLE IF NOT EXISTS steps (
    run_id TEXT NOT NULL, key TEXT NOT NULL, n BIGINT NOT NULL, path TEXT NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (run_id, key)
);
CREATE TABLE IF NOT EXISTS calls (
    run_id TEXT NOT NULL, key TEXT NOT NULL, n BIGINT NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL,
    resource TEXT NOT NULL, value BLOB NOT NULL, cost BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,
    state TEXT NOT NULL, PRIMARY KEY (run_id, key, n)
);
CREATE TABLE IF NOT EXISTS events (
    run_id TEXT NOT NULL, n BIGINT NOT NULL, told BLOB NOT NULL, PRIMARY KEY (run_id, n)
);
CREATE TABLE IF NOT EXISTS tickets (
    ticket TEXT PRIMARY KEY, run_id TEXT NOT NULL, path TEXT NOT NULL, asked TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION, answer TEXT, "by" TEXT NOT NULL,
    answered DOUBLE PRECISION NOT NULL, parked BOOLEAN NOT NULL
);
CREATE INDEX IF NOT EXISTS tickets_run ON tickets (run_id);
CREATE TABLE IF NOT EXISTS shapes (digest TEXT PRIMARY KEY, told TEXT NOT NULL);
"""


class SqlStore:
    """A `Store` over a database that understands `SCHEMA`. `share`: what keeps a row that was read from changing
    until the transaction ends, "" where nobody else writes meanwhile.
    """

    remote = True

    def __init__(self, database: Database, *, share: str = "") -> None:
        self.database, self._share = database, share

    def create(self, run: RunRow, kept: Kept = Kept(), shape: str = "") -> RunRow:  # noqa: B008 - frozen
        with self.database.transaction() as connection:
            if connection.execute(_CREATE, astuple(run)).fetchone() is None:
                found = connection.execute(f"{_RUNS} WHERE run_id=?", (run.run_id,)).fetchone()
                return _run(found)
            if shape:
                connection.execute("INSERT INTO shapes VALUES (?, ?) ON CONFLICT DO NOTHING", (run.shape, shape))
            rows: tuple[Entry, ...] = (*kept.steps, *kept.calls)
            _keep(connection, [Written(run.run_id, 0, row) for row in rows])
        return run

    def get(self, run_id: str) -> RunRow | None:
        rows = self.database.read(f"{_RUNS} WHERE run_id=?", (run_id,))
        return _run(rows[0]) if rows else None

    def select(
        self,
        *,
        status: Sequence[str] = (),
        pipeline: str | None = None,
        tenant: str | None = None,
        since: float = 0.0,
        before: float | None = None,
        limit: int | None = None,
    ) -> list[RunRow]:
        where, values = ["created >= ?"], [since]
        for name, value in (("pipeline=?", pipeline), ("tenant=?", tenant), ("ended < ? AND ended > 0", before)):
            if value is not None:
                where.append(name)
                values.append(value)  # type: ignore[arg-type]
        if status:
            where.append(f"status IN ({_marks(status)})")
            values.extend(status)  # type: ignore[arg-type]
        sql = f"{_RUNS} WHERE {' AND '.join(where)} ORDER BY created DESC, run_id"
        sql += "" if limit is None else f" LIMIT {limit:d}"
        return [_run(row) for row in self.database.read(sql, (*values,))]

    def ready(self, limit: int) -> list[RunRow]:
        sql = f"{_RUNS} WHERE status='queued' ORDER BY priority DESC, created LIMIT {limit:d}"
        return [_run(row) for row in self.database.read(sql)]

    def shape(self, digest: str) -> str | None:
        rows = self.database.read("SELECT told FROM shapes WHERE digest=?", (digest,))
        return rows[0][0] if rows else None

    def begin(self, run_id: str, owner: str, now: float) -> RunRow | None:
        return self._change(
            "UPDATE runs SET status='running', attempts=attempts+1, owner=?, "
            "started=CASE WHEN started=0 THEN ? ELSE started END "
            "WHERE run_id=? AND status IN ('queued', 'running')",
            (owner, now, run_id),
        )

    def finish(self, run: RunRow) -> bool:
        sql = (
            "UPDATE runs SET status=?, result=?, error=?, spent=?, ended=?, stopping=? "
            "WHERE run_id=? AND attempts=? AND status='running'"
        )
        said = (run.status, run.result, run.error, run.spent, run.ended, False, run.run_id, run.attempts)
        return self._change(sql, said) is not None

    def correct(self, run_id: str, spent: int) -> None:
        sql = f"UPDATE runs SET spent=? WHERE run_id=? AND status IN ({_marks(ENDED)})"  # noqa: S608
        self._change(sql, (spent, run_id, *ENDED))

    def park(self, run_id: str, attempt: int, tickets: Sequence[str], spent: int, now: float) -> bool:
        sql = (
            "UPDATE runs SET status='waiting', spent=? "  # noqa: S608
            "WHERE run_id=? AND attempts=? AND status='running' AND NOT stopping AND NOT EXISTS ("
            f"SELECT 1 FROM tickets WHERE ticket IN ({_marks(tickets)}) AND (answer IS NOT NULL OR expires <= ?))"
        )
        with self.database.transaction() as connection:
            if connection.execute(sql + _ALL, (spent, run_id, attempt, *tickets, now)).fetchone() is None:
                return False
            parked = f"UPDATE tickets SET parked=(ticket IN ({_marks(tickets)})) WHERE run_id=?"  # noqa: S608
            connection.execute(parked, (*tickets, run_id))
        return True

    def queue(
        self, run_id: str, was: Sequence[str], *, attempt: int | None = None, shape: str | None = None
    ) -> RunRow | None:
        sql = (
            "UPDATE runs SET status='queued', turn=turn+1, error=NULL, ended=0, stopping=?, "  # noqa: S608
            f"shape=COALESCE(?, shape) WHERE run_id=? AND status IN ({_marks(was)})"
        )
        more, values = ("", ()) if attempt is None else (" AND attempts=?", (attempt,))
        return self._change(sql + more, (False, shape, run_id, *was, *values))

    def stop(self, run_id: str, now: float) -> RunRow | None:
        with self.database.transaction() as connection:
            connection.execute(
                "UPDATE runs SET status='cancelled', ended=? WHERE run_id=? AND status IN ('queued', 'waiting')",
                (now, run_id),
            )
            connection.execute("UPDATE runs SET stopping=? WHERE run_id=? AND status='running'", (True, run_id))
            row = connection.execute(f"{_RUNS} WHERE run_id=?", (run_id,)).fetchone()
        return None if row is None else _run(row)

    def stopped(self) -> list[str]:
        return [row[0] for row in self.database.read("SELECT run_id FROM runs WHERE status='running' AND stopping")]

    def due(self, now: float) -> list[str]:
        sql = (
            "SELECT DISTINCT r.run_id FROM runs r JOIN tickets t ON t.run_id=r.run_id WHERE r.status='waiting' "
            "AND t.parked AND (t.answer IS NOT NULL OR t.expires <= ?)"
        )
        return [row[0] for row in self.database.read(sql, (now,))]

    def kept(self, run_id: str) -> Kept:
        steps = self.database.read("SELECT key, n, path, value FROM steps WHERE run_id=? ORDER BY n", (run_id,))
        sql = "SELECT key, n, path, kind, resource, value, cost, at, state FROM calls WHERE run_id=? ORDER BY n"
        calls = self.database.read(sql, (run_id,))
        return Kept(
            tuple(StepRow(key, n, path, bytes(value)) for key, n, path, value in steps),
            tuple(CallRow(key, n, path, kind, name, bytes(v), *rest) for key, n, path, kind, name, v, *rest in calls),
        )

    def write(self, written: Sequence[Written]) -> set[tuple[str, int]]:
        mine = sorted({(one.run_id, one.attempt) for one in written})
        with self.database.transaction() as connection:
            gone = {pair for pair in mine if not self._is_last(connection, *pair)}
            _keep(connection, [one for one in written if (one.run_id, one.attempt) not in gone])
        return gone

    def _is_last(self, connection: Any, run_id: str, attempt: int) -> bool:
        sql = f"SELECT 1 FROM runs WHERE run_id=? AND attempts=? AND status='running'{self._share}"  # noqa: S608
        return connection.execute(sql, (run_id, attempt)).fetchone() is not None

    def events(self, run_id: str, after: int = 0) -> list[EventRow]:
        sql = "SELECT n, told FROM events WHERE run_id=? AND n>? ORDER BY n"
        return [EventRow(n, bytes(told)) for n, told in self.database.read(sql, (run_id, after))]

    def ask(self, ticket: TicketRow) -> TicketRow:
        with self.database.transaction() as connection:
            connection.execute(_ASK, astuple(ticket))
            row = connection.execute(f"{_TICKETS} WHERE ticket=?", (ticket.ticket,)).fetchone()
        return _ticket(row)

    def ticket(self, ticket: str) -> TicketRow | None:
        rows = self.database.read(f"{_TICKETS} WHERE ticket=?", (ticket,))
        return _ticket(rows[0]) if rows else None

    def tickets(self, run_id: str | None = None, *, waiting: bool = True) -> list[TicketRow]:
        where = ["1=1"] if run_id is None else ["run_id=?"]
        if waiting:
            where.append(
                "answer IS NULL AND run_id IN (SELECT run_id FROM runs WHERE status IN ('running', 'waiting'))"
            )
        sql = f"{_TICKETS} WHERE {' AND '.join(where)} ORDER BY created, ticket"
        return [_ticket(row) for row in self.database.read(sql, () if run_id is None else (run_id,))]

    def answer(self, ticket: str, answer: str, by: str, now: float) -> bool:
        sql = 'UPDATE tickets SET answer=?, "by"=?, answered=? WHERE ticket=? AND answer IS NULL RETURNING ticket'
        with self.database.transaction() as connection:
            return connection.execute(sql, (answer, by, now, ticket)).fetchone() is not None

    def delete(self, run_ids: Sequence[str]) -> None:
        with self.database.transaction() as connection:
            for table in _OWN:
                connection.executemany(f"DELETE FROM {table} WHERE run_id=?", [(one,) for one in run_ids])  # noqa: S608
            connection.execute("DELETE FROM shapes WHERE digest NOT IN (SELECT shape FROM runs)")

    def close(self) -> None:
        self.database.close()

    def _change(self, sql: str, values: tuple[Any, ...]) -> RunRow | None:
        with self.database.transaction() as connection:
            row = connection.execute(sql + _ALL, values).fetchone()
        return None if row is None else _run(row)


def _keep(connection: Any, written: Sequence[Written]) -> None:
    steps = [(w.run_id, *astuple(w.row)) for w in written if type(w.row) is StepRow]
    # A call that was begun and has ended at once is one row, as it is in the end.
    ends = {(w.run_id, w.row.key, w.row.n): w for w in written if type(w.row) is CallRow}
    calls = [(w.run_id, *astuple(w.row)) for w in ends.values()]
    events = [(w.run_id, *astuple(w.row)) for w in written if type(w.row) is EventRow]
    for sql, rows in ((_STEP, steps), (_CALL, calls), (_EVENT, events)):
        if rows:
            connection.executemany(sql, rows)


def _run(row: Sequence[Any]) -> RunRow:
    run = RunRow(*row)
    result = None if run.result is None else bytes(run.result)
    return replace(
        run, inputs=bytes(run.inputs), result=result, stopping=bool(run.stopping), keep_events=bool(run.keep_events)
    )


def _ticket(row: Sequence[Any]) -> TicketRow:
    return replace(TicketRow(*row), parked=bool(row[-1]))


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values)) or "NULL"
