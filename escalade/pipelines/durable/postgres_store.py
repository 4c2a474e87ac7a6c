"""Runs in PostgreSQL, for the processes of many hosts."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from escalade.pipelines.durable.sql_store import SCHEMA, SqlStore
from escalade.registry.stores import postgres_wire as wire
from escalade.registry.stores.postgres import Server

_TOGETHER = 500
"""Rows that are sent in one statement."""
_ROW = re.compile(r"VALUES (\([?, ]+\))")


class PostgresRuns(SqlStore):
    """A `Store` in PostgreSQL, in tables of the schema "escalade". `timeout`: seconds for one statement. What was sent
    when the server went away may have been done: it is done again, which changes nothing. Raises StoreUnavailable,
    BadInput.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, connections: int = 4) -> None:
        super().__init__(PostgresDatabase(url, timeout=timeout, connections=connections), share=" FOR SHARE")
        self.url = url


class PostgresDatabase:
    """The tables of runs."""

    def __init__(self, url: str, *, timeout: float = 5.0, connections: int = 4) -> None:
        schema = SCHEMA.replace(" BLOB", " BYTEA").strip().rstrip(";")
        self._server, self._timeout = Server(url, schema, timeout=timeout, connections=connections), timeout

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_Transaction]:
        """All of the block or nothing. Raises StoreUnavailable."""
        with self._server._unavailable(), self._server._connection() as connection:
            connection.say("BEGIN", time.monotonic() + self._timeout)
            open_ = _Transaction(connection, self._timeout)
            try:
                yield open_
            except wire.Failed:
                raise
            except BaseException:
                connection.say("ROLLBACK", time.monotonic() + self._timeout)
                raise
            connection.say("COMMIT", time.monotonic() + self._timeout)

    def read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """The rows of one query, of one moment. Raises StoreUnavailable."""
        return self._server.ask(_numbered(sql), *values)

    def close(self) -> None:
        """Close the connections; the next use opens others."""
        self._server.close()


class _Rows:
    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None


class _Transaction:
    """An open transaction."""

    def __init__(self, connection: wire.Connection, timeout: float) -> None:
        self._connection, self._timeout = connection, timeout

    def execute(self, sql: str, values: Sequence[Any] = ()) -> _Rows:
        until = time.monotonic() + self._timeout
        return _Rows(self._connection.run(_numbered(sql), [wire.encoded(value) for value in values], until))

    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Rows of one INSERT go together: a round trip each would cost more than all the rest."""
        rows, found = list(values), _ROW.search(sql)
        if found is None:
            for row in rows:
                self.execute(sql, row)
            return
        for at in range(0, len(rows), _TOGETHER):
            part = rows[at : at + _TOGETHER]
            many = f"VALUES {', '.join([found[1]] * len(part))}"
            self.execute(sql.replace(found[0], many, 1), [value for row in part for value in row])


def _numbered(sql: str) -> str:
    """`$1`, `$2`, ... for each `?`."""
    parts = sql.split("?")
    return "".join(part + (f"${number}" if number < len(parts) else "") for number, part in enumerate(parts, 1))
