"""Which book an address leads to."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from escalade.registry.audit._book import Book, Reading
from escalade.registry.stores.addresses import in_tables


def open_book(where: str | os.PathLike[str], patience: float) -> Book:
    """The book at a path or an address; made where there is none. `patience`: seconds for which it waits for others.

    Raises BadInput, Tampered, and what its store raises.
    """
    kind, place = in_tables(where, "an audit log")
    if kind == "postgres":
        from escalade.registry.audit._postgres_book import PostgresBook

        return PostgresBook(place, patience)
    from escalade.registry.audit._sqlite_book import SqliteBook

    return SqliteBook(Path(place), patience)


def reading(where: str | os.PathLike[str]) -> AbstractContextManager[Reading]:
    """What stands there now. Nothing is made. Raises BadInput for what is no log, Unreadable, StoreUnavailable."""
    kind, place = in_tables(where, "an audit log")
    if kind == "postgres":
        from escalade.registry.audit._postgres_book import reading_tables

        return reading_tables(place)
    from escalade.registry.audit._sqlite_book import reading_file

    return reading_file(Path(place))
