"""A PostgreSQL server that processes of many hosts share: functions in it, each one transaction, and its clock.

Needs the extra `postgres`. Tables and functions are made in a schema of their own when they are first wanted, once,
whoever comes first; the role needs the right to do that once, and later those on the tables alone. Each store keeps a
few connections, made anew after a fork, and each session is set up by what it needs: a pooler between has to keep
sessions (pgbouncer: `pool_mode=session`).

Nothing is sent twice. What a server did not answer in time it doesn't do later either: functions that promise something
look at the clock before they commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.stores import postgres_wire as wire
from escalade.registry.stores.owners import after_fork

Ask = Callable[..., list[tuple[Any, ...]]]
"""The rows of a statement, whose values follow it."""

_SYNC_EVERY = 15.0
_MAKING = 10.0
"""Seconds in which the tables have to be made."""

_LATE = "ES001"
_NOT_OURS = {"22", "54"}
"""Classes of errors about what was handed in, too long or too large: no reason to leave the server alone."""

_SESSION = """
SET default_transaction_isolation = 'read committed'; SET bytea_output = 'hex'; SET extra_float_digits = 1
"""
"""What a database or a role may have set otherwise."""

_COMMON = """
CREATE OR REPLACE FUNCTION seconds_v() RETURNS float8 LANGUAGE sql VOLATILE
    AS 'SELECT extract(epoch FROM clock_timestamp())::float8';
CREATE OR REPLACE FUNCTION in_time_v(p_until float8) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF seconds_v() > p_until THEN RAISE EXCEPTION 'too late' USING ERRCODE = 'ES001'; END IF;
END $$;
"""

# In the tables, not by `to_regproc`: what that remembers isn't looked at anew within a transaction that waited.
_THERE = """
SELECT EXISTS (SELECT FROM pg_proc
    WHERE proname = $1 AND pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = $2))
"""


class Server:
    """One PostgreSQL database. All its errors are StoreUnavailable, but for a URL that is none (BadInput).

    `tables`: statements that make what is wanted, where it isn't there. Names of functions end with `_v`, for which a
    digest of all statements is put: versions of them live beside one another. `timeout`: seconds for one statement,
    with connecting where that is needed. `connections`: the most that are open at once. `create=False`: nothing is
    made, for those who may only look.
    """

    def __init__(
        self,
        url: str,
        tables: str,
        *,
        schema: str = "escalade",
        timeout: float = 1.0,
        connections: int = 2,
        create: bool = True,
    ) -> None:
        self._info = wire.checked(url)
        self._schema, self._timeout, self._most, self._create = _name(schema), timeout, connections, create
        self._version = hashlib.blake2b((_COMMON + tables).encode(), digest_size=5).hexdigest()
        self._tables = self._versioned(_COMMON + tables)
        self._inherited: list[Any] = []
        self._idle: list[wire.Connection] = []
        self._forked()
        after_fork(self)

    def _forked(self) -> None:
        """The parent's connections are kept and never touched again."""
        self._inherited.append(self._idle)
        self._idle, self._free = [], threading.BoundedSemaphore(self._most)
        self._offset, self._doubt, self._synced = 0.0, 0.0, -_SYNC_EVERY

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement, `$1` for the first value; it runs at once and whole, or not at all. Raises
        BadInput for text that PostgreSQL can't keep.
        """
        encoded = [wire.encoded(value) for value in values]
        with self._unavailable(), self._connection() as connection:
            return connection.run(self._versioned(sql), encoded, self._until())

    def call(self, function: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one of our functions."""
        return self.ask(_called(function, len(values)), *values)

    def promise(self, function: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a function that takes one more value: until when it may commit, by the server's clock."""
        self.now()
        sql, encoded = self._versioned(_called(function, len(values) + 1)), [wire.encoded(value) for value in values]
        with self._unavailable(), self._connection() as connection:
            until = self._until()
            return connection.run(sql, [*encoded, wire.encoded(until + self._offset + self._doubt)], until)

    @contextlib.contextmanager
    def transaction(self, begin: str = "BEGIN") -> Iterator[Ask]:
        """Several statements, of which all count or none. `begin`: statements without values that begin it.

        Raises StoreUnavailable; in the end, nobody knows then whether they count.
        """
        with self._unavailable(), self._connection() as connection:

            def ask(sql: str, *values: Any) -> list[tuple[Any, ...]]:
                encoded = [wire.encoded(value) for value in values]
                with self._unavailable():
                    return connection.run(self._versioned(sql), encoded, self._until())

            connection.say(begin, self._until())
            yield ask
            connection.say("COMMIT", self._until())

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, which no jump of our own moves."""
        if time.monotonic() - self._synced > _SYNC_EVERY:
            began = time.monotonic()
            ((seconds,),) = self.ask("SELECT seconds_v()")
            self._synced = time.monotonic()
            self._offset = seconds - (began + self._synced) / 2
            self._doubt = (self._synced - began) / 2
        return time.monotonic() + self._offset

    def close(self) -> None:
        """Close the connections; the next use opens others."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self) -> Iterator[wire.Connection]:
        """One for this thread, closed if anything goes wrong: nobody knows what state it is in then."""
        free = self._free
        if not free.acquire(timeout=self._timeout):
            raise wire.Failed("all connections are in use")
        try:
            connection = self._idle_one() or self._open()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
        finally:
            free.release()

    def _idle_one(self) -> wire.Connection | None:
        """One that the server hasn't closed meanwhile: it may have been started anew."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if connection.alive():
                    return connection
                connection.close()
        return None

    def _open(self) -> wire.Connection:
        until = self._until()
        connection = wire.connect(self._info, until)
        try:
            patience = f"SET statement_timeout = {max(1, round(self._timeout * 1000))}"
            connection.say(f'SET search_path = "{self._schema}"; {patience}; {_SESSION}', until)
            if self._create and not self._there(connection, until):
                self._make(connection, time.monotonic() + _MAKING)
        except BaseException:
            connection.close()
            raise
        return connection

    def _until(self) -> float:
        return time.monotonic() + self._timeout

    def _there(self, connection: wire.Connection, until: float) -> bool:
        values = [wire.encoded(f"made_{self._version}"), wire.encoded(self._schema)]
        ((made,),) = connection.run(_THERE, values, until)
        return bool(made)

    def _make(self, connection: wire.Connection, until: float) -> None:
        """All of it or nothing, by one process; the others wait until it is there."""
        connection.say(f"BEGIN; SET LOCAL statement_timeout = {round(_MAKING * 1000)}", until)
        connection.run("SELECT pg_advisory_xact_lock(hashtextextended(current_setting('search_path'), 0))", [], until)
        if not self._there(connection, until):
            made = f"CREATE FUNCTION made_{self._version}() RETURNS int LANGUAGE sql AS 'SELECT 1'"
            connection.say(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"; {self._tables}; {made}', until)
        connection.say("COMMIT", until)

    def _versioned(self, sql: str) -> str:
        return re.sub(r"_v\(", f"_{self._version}(", sql)

    @contextlib.contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except wire.Failed as error:
            if error.code == _LATE:  # or is it the server's clock that was set?
                self._synced = -_SYNC_EVERY
            if error.code[:2] in _NOT_OURS:
                raise BadInput(f"PostgreSQL can't keep this: {error}") from None
            raise StoreUnavailable(f"the PostgreSQL store can't be used: {error}", 1.0) from None


def has_table(url: str, table: str, *, schema: str = "escalade", timeout: float = 5.0) -> bool:
    """Is it there? Makes nothing. Raises StoreUnavailable, BadInput."""
    server = Server(url, "", schema=schema, timeout=timeout, create=False)
    try:
        return bool(server.ask("SELECT to_regclass($1) IS NOT NULL", table)[0][0])
    finally:
        server.close()


def _called(function: str, values: int) -> str:
    marks = ", ".join(f"${number}" for number in range(1, values + 1))
    return f"SELECT * FROM {function}_v({marks})"  # noqa: S608 - our own names


def array(items: Iterable[Any]) -> str:
    """As PostgreSQL writes them."""
    return "{" + ",".join('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items) + "}"


def _name(schema: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema) is None:
        raise BadInput(f"schema: expected letters, digits and _, at most 63 of them, got {schema!r}")
    return schema
