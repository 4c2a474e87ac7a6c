"""A log in PostgreSQL: two tables, to which rows are added and nothing else.

A commit takes three round trips: begin, lock and look at the chain's end; add rows; commit. Who writes holds the lock,
an advisory one: the role needs SELECT and INSERT on the tables and no more. A process that stops in the middle is cut
off by the server after `patience`. Each commit is on the server's disk: one that forgot rows when it died would be a
chain that was cut.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from escalade.errors import BadInput
from escalade.registry.audit._book import Line, Unreadable, genesis
from escalade.registry.stores.addresses import shown
from escalade.registry.stores.postgres import Ask, Server, array

_REFUSAL = "BEGIN RAISE EXCEPTION 'the audit log is append-only'; END"
_GUARDED = ("audit_checkpoints", "audit_entries")

TABLES = f"""
CREATE TABLE IF NOT EXISTS audit_entries (
    seq bigint PRIMARY KEY, at bigint NOT NULL, event text NOT NULL, call text NOT NULL, body bytea NOT NULL,
    hash bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS audit_checkpoints (number bigint PRIMARY KEY, body text NOT NULL);
CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $${_REFUSAL}$$;
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
    EXECUTE FUNCTION append_only();
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    EXECUTE FUNCTION append_only();
"""
"""The triggers stop accidents; what stops attackers is the chain."""

_TURN = """
BEGIN; SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = {};
SELECT pg_advisory_xact_lock(hashtextextended(current_setting('search_path') || ' audit', 0))
"""
_WRITE = """
INSERT INTO audit_entries
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[], $6::bytea[])
"""
_MOMENT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_SELECT = "SELECT seq, at, event, call, body, hash FROM audit_entries"
PAGE = 2_000
"""Rows that are read at once."""

_GUARDS = """
SELECT c.relname || '.' || t.tgname, t.tgtype = 58 AND t.tgenabled IN ('O', 'A') AND p.prosrc = $1
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND c.oid IN ('audit_entries'::regclass, 'audit_checkpoints'::regclass)
UNION ALL SELECT c.relname || '.' || r.rulename, false FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
WHERE c.oid IN ('audit_entries'::regclass, 'audit_checkpoints'::regclass)
"""
"""Triggers and rules, and whether they are ours; 58: before each statement that updates, deletes or truncates."""


class PostgresBook:
    """The tables, to write. All raise StoreUnavailable."""

    def __init__(self, url: str, patience: float) -> None:
        self.server = Server(url, TABLES, timeout=patience, connections=1)
        self._begin = _TURN.format(max(1, round(patience * 1000)))
        self._ask: Ask = self.server.ask
        with self.turn(durable=True):
            if self.head() is None and self.last_checkpoint() is None:
                self.write([genesis()])

    @contextlib.contextmanager
    def turn(self, *, durable: bool) -> Iterator[None]:  # it always is
        with self.server.transaction(self._begin) as self._ask:
            yield

    def first(self) -> bytes | None:
        body: bytes | None = self._one("SELECT body FROM audit_entries WHERE seq = 1")
        return body

    def head(self) -> tuple[int, object] | None:
        found = self._ask("SELECT seq, hash FROM audit_entries ORDER BY seq DESC LIMIT 1")
        return (found[0][0], found[0][1]) if found else None

    def hash_at(self, seq: int) -> object | None:
        digest: object | None = self._one("SELECT hash FROM audit_entries WHERE seq = $1", seq)
        return digest

    def write(self, lines: Sequence[Line]) -> None:
        seqs, ats, events, called, bodies, hashes = zip(*lines, strict=True)
        self._ask(_WRITE, *map(array, (seqs, ats, events, called, map(_hex, bodies), map(_hex, hashes))))

    def last_checkpoint(self) -> str | None:
        body: str | None = self._one("SELECT body FROM audit_checkpoints ORDER BY number DESC LIMIT 1")
        return body

    def write_checkpoint(self, number: int, body: str) -> None:
        self._ask("INSERT INTO audit_checkpoints VALUES ($1, $2)", number, body)

    def close(self) -> None:
        self.server.close()

    def _one(self, sql: str, *values: Any) -> Any:
        found = self._ask(sql, *values)
        return found[0][0] if found else None


def _hex(data: bytes) -> str:
    return f"\\x{data.hex()}"


@contextlib.contextmanager
def reading_tables(url: str) -> Iterator[PostgresReading]:
    """The tables, to read; SELECT on them is enough. Raises BadInput without them, Unreadable, StoreUnavailable."""
    server = Server(url, "", timeout=30.0, connections=1, create=False)
    try:
        with server.transaction(_MOMENT) as ask:
            if not ask("SELECT to_regclass('audit_entries') IS NOT NULL")[0][0]:
                raise BadInput(f"audit log {shown(url)}: there is none in schema 'escalade'")
            if not ask("SELECT to_regclass('audit_checkpoints') IS NOT NULL")[0][0]:
                raise Unreadable("there is no table audit_checkpoints")
            yield PostgresReading(ask)
    finally:
        server.close()


class PostgresReading:
    """The tables as they stood at one moment."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def lines(self, first: int, since: int | None = None) -> Iterator[Line]:
        later, values = ("", ()) if since is None else ("AND at >= $3", (since,))
        found: Any = self._ask(f"{_SELECT} WHERE seq >= $1 {later} ORDER BY seq LIMIT $2", first, PAGE, *values)
        while found:
            yield from found
            last = found[-1][0]
            found = self._ask(f"{_SELECT} WHERE seq > $1 {later} ORDER BY seq LIMIT $2", last, PAGE, *values)

    def last(self, n: int, events: Sequence[str] = ()) -> list[Line]:
        of_these = "WHERE event = ANY ($2::text[])" if events else ""
        found: Any = self._ask(f"{_SELECT} {of_these} ORDER BY seq DESC LIMIT $1", n, *([array(events)] * bool(events)))
        return list(found)

    def checkpoints(self, after: int = 0) -> Iterator[tuple[int, str]]:
        query = "SELECT number, body FROM audit_checkpoints WHERE number > $1 ORDER BY number LIMIT $2"
        found: Any = self._ask(query, after, PAGE)
        while found:
            yield from found
            found = self._ask(query, found[-1][0], PAGE)

    def amiss(self) -> list[str]:
        found: dict[str, bool] = dict(self._ask(_GUARDS, _REFUSAL))
        ours = {f"{table}.append_only" for table in _GUARDED}
        return sorted(name for name in ours | set(found) if name not in ours or not found.get(name))
