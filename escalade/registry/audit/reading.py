"""Reading rows back: the last ones, all of them as JSON lines, new ones as they come. Memory stays constant."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from escalade.errors import BadInput, DataError
from escalade.registry.audit import _schema
from escalade.registry.audit.rows import Row

_COLUMNS = "SELECT seq, at, event, call, body, hash FROM entries"


def rows(path: str | os.PathLike[str], *, since: datetime | None = None, after: int = 0) -> Iterator[Row]:
    """Rows, oldest first: those of `since` and later, those after row number `after`.

    They are read, not verified. A `since` without a zone is in local time. Raises BadInput for what is no audit log,
    DataError for one that can't be read.
    """
    moment = 0 if since is None else int(since.timestamp() * 1e6)
    return _select(path, f"{_COLUMNS} WHERE seq > ? AND at >= ? ORDER BY seq", (after, moment))


def tail(path: str | os.PathLike[str], n: int = 20, events: Sequence[str] = ()) -> list[Row]:
    """The last `n` rows, oldest first; with `events`, the last of these. Raises as `rows` does."""
    if n < 1:
        raise BadInput(f"expected 1 row or more, got {n}")
    of_these = f"WHERE event IN ({', '.join('?' * len(events))})" if events else ""
    return list(_select(path, f"{_COLUMNS} {of_these} ORDER BY seq DESC LIMIT ?", (*events, n)))[::-1]


def follow(
    path: str | os.PathLike[str], after: int, *, every: float = 0.5, go_on: Callable[[], bool] = lambda: True
) -> Iterator[Row]:
    """New rows as they come, looked for `every` so many seconds, as long as `go_on()`."""
    while go_on():
        for row in rows(path, after=after):
            after = row.seq
            yield row
        time.sleep(every)


def parse_since(text: str) -> datetime:
    """`2026-01-31`, `2026-01-31T12:00`, `…+02:00`; UTC where no zone is named. Raises BadInput."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"expected a time such as 2026-01-31T12:00, got {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _select(path: str | os.PathLike[str], query: str, values: tuple[int | str, ...]) -> Iterator[Row]:
    try:
        database = _schema.connect_read_only(Path(path))
        try:
            for seq, at, event, call, body, digest in database.execute(query, values):
                yield Row(seq, at, event, call, body, digest)
        finally:
            database.close()
    except (sqlite3.DatabaseError, TypeError) as error:
        raise DataError(f"audit log {path} can't be read: {error}") from error
