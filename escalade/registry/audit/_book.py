"""The book: where the rows of a log stand. A SQLite file for the processes of a host, tables of PostgreSQL for many.

What a log is (the chain, checkpoints, what was tampered with) is worked out elsewhere, once, for any book. A book keeps
rows in one order for all who write, and gives back what it finds, whatever that is by then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from escalade.registry.audit.chain import ZERO, link
from escalade.registry.audit.rows import GENESIS, canonical, now

FORMAT = 1
"""Version of rows, and of what they are in."""

Line = tuple[int, int, str, str, bytes, bytes]
"""A row: seq, at, event, call, body, hash. In a book that was tampered with they may be of any type."""


class Tampered(Exception):
    """The book is not the one that this process wrote to."""


class Unreadable(Exception):
    """The book is damaged, there where it was read."""


class Book(Protocol):
    """To write. For one thread at a time; all but `close` within a turn."""

    def turn(self, *, durable: bool) -> AbstractContextManager[None]:
        """Nobody else writes meanwhile, and all that is written in it is kept, or nothing.

        `durable`: on the disk when it ends, else safe from a crash of the process but not of the machine. Raises
        Tampered, and what its store raises: in the end, nobody may know then whether it was kept.
        """
        ...

    def first(self) -> bytes | None:
        """The body of the first row."""
        ...

    def head(self) -> tuple[int, object] | None:
        """Number and hash of the last row."""
        ...

    def hash_at(self, seq: int) -> object | None: ...
    def write(self, lines: Sequence[Line]) -> None: ...
    def last_checkpoint(self) -> str | None: ...
    def write_checkpoint(self, number: int, body: str) -> None: ...
    def close(self) -> None: ...


class Reading(Protocol):
    """To read, as it stood at one moment. All raise Unreadable."""

    def lines(self, first: int, since: int | None = None) -> Iterator[Line]:
        """From row `first` on, in order; `since` (microseconds since 1970): those of then and later."""
        ...

    def last(self, n: int, events: Sequence[str] = ()) -> list[Line]:
        """The last ones, newest first; with `events`, the last of these."""
        ...

    def checkpoints(self, after: int = 0) -> Iterator[tuple[int, str]]:
        """Those with a number above, in order."""
        ...

    def amiss(self) -> list[str]:
        """Names of tables, triggers and the like that are not as the log made them."""
        ...


def genesis() -> Line:
    """The first row of a new log."""
    at, body = now(), canonical({"format": FORMAT, "chain": secrets.token_hex(16), "hash": "sha256"})
    return 1, at, GENESIS, "", body, link(ZERO, 1, at, GENESIS, "", body)
