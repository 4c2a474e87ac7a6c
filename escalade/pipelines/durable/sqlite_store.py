"""Runs in a SQLite file, for the processes of one host."""

from __future__ import annotations

import os

from escalade.pipelines.durable.sql_store import SCHEMA, SqlStore
from escalade.registry.stores.sqlite import Database


class SqliteRuns(SqlStore):
    """A `Store` in a file on a local disk, for its owner's eyes only. `patience`: seconds to wait for other writers.
    `durable`: wait for the disk at each commit; without it a power cut (not the death of a process) may lose the last
    moment, of which nothing is half there. Raises StoreUnavailable.
    """

    def __init__(self, path: str | os.PathLike[str], *, patience: float = 5.0, durable: bool = False) -> None:
        super().__init__(Database(path, SCHEMA, patience=patience, durable=durable))
        self.path = self.database.path  # type: ignore[attr-defined]
