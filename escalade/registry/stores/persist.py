"""What SQLite doesn't wait for by itself: two that open a new file at once, and one of them sets its journal."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable

__all__ = ["persist"]


def persist(attempt: Callable[[], object], patience: float) -> None:
    """Call it again while the file is locked, for `patience` seconds.

    SQLite's own waiting sleeps up to 100 ms at a time, which starves one process among several; this looks again
    within a millisecond.
    """
    until = time.monotonic() + patience
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.0002 + secrets.randbelow(1000) / 1e6)
        else:
            return
