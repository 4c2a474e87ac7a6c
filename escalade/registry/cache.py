"""A cache of results of tools without side effects, under the guard: who may not call a tool gets no hit either.

Keyed by tool@version, tenant (and user, if the tool says so) of everybody on whose behalf the call is, the policy and
the rule that allowed it, and the arguments: a changed policy, another rule or another tenant finds nothing. The key
is a digest. Values are bytes of JSON, as the tool gave them, with what is personal in them: a hit must be what a call
would have been. The cache that is built in is in memory and never pickled; one of your own has to guard what it keeps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from escalade.clock import monotonic
from escalade.registry.canonical import digest
from escalade.registry.privacy.outlets import error_line
from escalade.scopes import Scope

logger = logging.getLogger(__name__)

_FORMAT = "result/1"
"""What the values are: a later format must not find those of an earlier one."""


class Cache(Protocol):
    """Where results are kept, by digest. Its methods may raise: see `Forgiving`.

    One that may keep its caller waiting says so by an attribute `remote`: coroutines ask it in a thread.
    """

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up."""
        ...

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it for so long, or until others push it out."""
        ...

    def clear(self, tag: str | None = None) -> None:
        """Forget what was kept under this tag (the name of a tool), or everything."""
        ...


class Forgiving:
    """A cache whose failures are misses. `failed`: told of each; a line of log in `quiet` seconds. `what` it keeps."""

    def __init__(
        self, cache: Cache, failed: Callable[[], None], quiet: float = 10.0, what: str = "tool results"
    ) -> None:
        self.cache, self._failed, self._quiet, self._what = cache, failed, quiet, what
        self._loud = -quiet

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none to be had."""
        try:
            return self.cache.get(key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the tool can be asked
            self.note(error)
            return None

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it, if possible."""
        try:
            self.cache.set(key, value, seconds, tag)
        except Exception as error:  # noqa: BLE001 - as above
            self.note(error)

    def note(self, error: Exception) -> None:
        """It failed."""
        self._failed()
        now = time.monotonic()
        if now - self._loud >= self._quiet:
            self._loud = now
            logger.warning("the cache of %s failed, which counts as a miss: %s", self._what, error_line(error))


class MemoryCache:
    """In this process, the `size` results that were used last. `now`: monotonic seconds."""

    def __init__(self, size: int = 4096, now: Callable[[], float] = monotonic) -> None:
        self._size, self._now = size, now
        self._lock = threading.RLock()  # re-entrant: finalizers may call tools
        self._kept: OrderedDict[str, tuple[float, bytes, str]] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] <= self._now():
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return found[1]

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it for so long, or until others push it out."""
        with self._lock:
            self._kept[key] = (self._now() + seconds, value, tag)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)

    def clear(self, tag: str | None = None) -> None:
        """Forget what was kept under this tag, or everything."""
        with self._lock:
            for key in [key for key, kept in self._kept.items() if tag in (None, kept[2])]:
                del self._kept[key]


def cache_key(label: str, scope: Scope, rule: str, args: str, per: str) -> str:
    """`args`: their digest. `per`: "user" or "tenant". The policy must have a digest."""
    whose = [[p.tenant, p.user if per == "user" else "", sorted(p.roles)] for p in scope.principals]
    policy: Any = scope.access
    return digest([_FORMAT, label, whose, policy.digest, rule, args])
