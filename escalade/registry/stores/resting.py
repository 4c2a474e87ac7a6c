"""Leaving a store that failed alone for a moment, so that callers are refused at once instead of waiting in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from escalade.errors import StoreUnavailable


class Rest:
    """`with rest.asking():` around each question. `seconds`: how long the store is left alone after a failure."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds, self._until = what, seconds, -1.0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Raises StoreUnavailable at once while it rests; notes the one that the block raises."""
        left = self._until - time.monotonic()
        if left > 0:
            raise StoreUnavailable(f"the store of {self._what} failed a moment ago", left)
        try:
            yield
        except StoreUnavailable:
            self._until = time.monotonic() + self._seconds
            raise
