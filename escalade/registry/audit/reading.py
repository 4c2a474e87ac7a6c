"""Reading rows back: the last ones, all of them as JSON lines, new ones as they come. Memory stays constant."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from escalade.errors import BadInput, DataError
from escalade.registry.audit._book import Line, Reading, Unreadable
from escalade.registry.audit._shelf import reading
from escalade.registry.audit.rows import Row
from escalade.registry.stores.addresses import shown


def rows(path: str | os.PathLike[str], *, since: datetime | None = None, after: int = 0) -> Iterator[Row]:
    """Rows, oldest first: those of `since` and later, those after row number `after`.

    `path`: of the file, or the address of the database. They are read, not verified. A `since` without a zone is in
    local time. Raises BadInput for what is no audit log, DataError for one that can't be read, StoreUnavailable for a
    database that doesn't answer.
    """
    moment = 0 if since is None else int(since.timestamp() * 1e6)
    return _read(path, lambda log: log.lines(after + 1, moment))


def tail(path: str | os.PathLike[str], n: int = 20, events: Sequence[str] = ()) -> list[Row]:
    """The last `n` rows, oldest first; with `events`, the last of these. Raises as `rows` does."""
    if n < 1:
        raise BadInput(f"expected 1 row or more, got {n}")
    return list(_read(path, lambda log: log.last(n, events)))[::-1]


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


def _read(path: str | os.PathLike[str], lines: Callable[[Reading], Iterable[Line]]) -> Iterator[Row]:
    try:
        with reading(path) as log:
            for line in lines(log):
                yield Row(*line)
    except (Unreadable, TypeError) as error:
        raise DataError(f"audit log {shown(path)} can't be read: {error}") from error
