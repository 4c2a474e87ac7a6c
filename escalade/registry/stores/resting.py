"""What the stores of rate limits share: one that failed is left alone for a moment, so that callers are refused at once
instead of waiting in turn; and keys, which name users and tenants, are kept as digests.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from escalade.errors import StoreUnavailable
from escalade.registry.limits import Window


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


def opaque(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """The windows by digests of their keys: a store of limits only has to tell users apart."""
    return tuple((hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(), limit)
                 for key, limit in windows)  # fmt: skip
