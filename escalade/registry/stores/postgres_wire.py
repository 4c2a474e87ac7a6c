"""One connection to a PostgreSQL server, with a bound on everything: psycopg's libpq, which never blocks here.

The bound is ours: the server's own (`statement_timeout`) says nothing when it hangs. Looking up the name of a host is
the system's, and may take as long as it takes.
"""

from __future__ import annotations

import re
import selectors
import time
from collections.abc import Sequence
from typing import Any

from escalade.errors import BadInput

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)
_AS = {16: lambda text: text == b"t", 17: lambda text: bytes.fromhex(text[2:].decode()), 20: int, 21: int, 23: int,
       700: float, 701: float}  # fmt: skip
"""How values are read, by the number of their type: boolean, bytea, integers, floats; all others are text."""

Encoded = tuple[bytes | None, int]
"""A value, and whether it is as it is (1) or a text of it (0)."""


class Failed(Exception):
    """It did not work; the message says why, without addresses. `code`: PostgreSQL's own (SQLSTATE), "" for none."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def checked(url: str) -> str:
    """What libpq connects with. Raises BadInput: without the client, and for what is no URL of such a server."""
    try:
        from psycopg import Error
        from psycopg.conninfo import make_conninfo
    except ImportError:
        raise BadInput("a store in PostgreSQL needs its client: pip install 'escalade[postgres]'") from None
    expected = "expected postgresql://user:password@host:port/database"
    if not isinstance(url, str) or not url.startswith(("postgresql://", "postgres://")):
        raise BadInput(
            f"this is no address of a PostgreSQL server: {expected}"
        )  # it isn't shown: a password may be in it
    try:
        return make_conninfo(url, fallback_application_name="escalade", client_encoding="utf8")
    except Error:
        raise BadInput(
            f"this address of a PostgreSQL server can't be read: {expected}; write %40 for an @ in a password"
        ) from None


def connect(info: str, until: float) -> Connection:
    """A new connection. `until`: by the monotonic clock. Raises Failed."""
    from psycopg import pq

    made = pq.PGconn.connect_start(info.encode())
    waits = {pq.PollingStatus.READING: _READ, pq.PollingStatus.WRITING: _WRITE}
    wanted = pq.PollingStatus.WRITING
    try:
        while made.status != pq.ConnStatus.BAD and wanted in waits:
            _wait(made.socket, waits[wanted], until, "no connection in time")
            wanted = pq.PollingStatus(made.connect_poll())
    except BaseException:
        made.finish()
        raise
    if wanted != pq.PollingStatus.OK:
        said = made.get_error_message()
        made.finish()
        raise Failed(f"no connection: {_line(said)}")
    made.nonblocking = 1
    return Connection(made)


class Connection:
    """For one thread at a time. After an error it is of no use any more."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def alive(self) -> bool:
        """Has the server said nothing? To an idle client it only ever says good-bye."""
        with _Selector() as selector:
            selector.register(self._made.socket, _READ)
            return not selector.select(0)

    def run(self, sql: str, values: Sequence[Encoded], until: float) -> list[tuple[Any, ...]]:
        """The rows of one statement. Raises Failed."""
        encoded, formats = [value for value, _ in values], [kind for _, kind in values]
        return self._answered(lambda: self._made.send_query_params(sql.encode(), encoded, None, formats), until)

    def say(self, sql: str, until: float) -> None:
        """Statements without values and rows; together they are one transaction."""
        self._answered(lambda: self._made.send_query(sql.encode()), until)

    def close(self) -> None:
        """Say good-bye, and leave."""
        self._made.finish()

    def _answered(self, send: Any, until: float) -> list[tuple[Any, ...]]:
        from psycopg import Error

        try:
            send()
            return self._rows(until)
        except (Error, OSError) as error:
            raise Failed(_line(str(error))) from None

    def _rows(self, until: float) -> list[tuple[Any, ...]]:
        made, rows = self._made, list[tuple[Any, ...]]()
        while made.flush():
            if _wait(made.socket, _READ | _WRITE, until) & _READ:
                made.consume_input()
        while True:
            while made.is_busy():
                _wait(made.socket, _READ, until)
                made.consume_input()
            result = made.get_result()
            if result is None:
                return rows
            rows += _decoded(result)


def _wait(socket: int, what: int, until: float, late: str = "no answer in time (Timeout)") -> int:
    with _Selector() as selector:
        selector.register(socket, what)
        ready = selector.select(max(0.0, until - time.monotonic()))
    if not ready:
        raise Failed(late)
    return int(ready[0][1])


def encoded(value: Any) -> Encoded:
    """As it is sent. Raises BadInput for text that PostgreSQL can't keep."""
    if value is None or isinstance(value, bytes):
        return value, 1
    if isinstance(value, bool):
        return (b"t" if value else b"f"), 0
    if not isinstance(value, str):
        return repr(value).encode(), 0
    try:
        sent = value.encode()
    except UnicodeEncodeError:
        sent = b"\0"
    if b"\0" in sent:
        raise BadInput(f"PostgreSQL can't keep this text: {value[:50]!r} has a NUL, or half a character")
    return sent, 0


def _decoded(result: Any) -> list[tuple[Any, ...]]:
    from psycopg import pq

    if result.status not in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK}:
        said = {name: result.error_field(getattr(pq.DiagnosticField, name)) for name in ("MESSAGE_PRIMARY", "SQLSTATE")}
        code = (said["SQLSTATE"] or b"").decode()
        message = said["MESSAGE_PRIMARY"] or result.error_message
        raise Failed(f"{_line(message.decode('utf-8', 'replace'))}{f' ({code})' if code else ''}", code)
    read: list[Any] = [_AS.get(result.ftype(column), bytes.decode) for column in range(result.nfields)]
    found = []
    for row in range(result.ntuples):
        texts = [result.get_value(row, column) for column in range(result.nfields)]
        found.append(tuple(None if text is None else how(text) for how, text in zip(read, texts, strict=True)))
    return found


def _line(message: str) -> str:
    """The message in one line, without addresses: it may be shown to a model."""
    first = " ".join(message.partition("\n")[0].rpartition("failed: ")[2].split())
    return re.sub(r'host name "[^"]*"', "the name of the host", first)[:160]
