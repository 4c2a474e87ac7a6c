"""A cache of results of tools without side effects, under the guard: who may not call a tool gets no hit either.

Keyed by tool@version, tenant (and user, if the tool says so) of everybody on whose behalf the call is, the policy and
the rule that allowed it, and the arguments: a changed policy, another rule or another tenant finds nothing. The key
is a digest. Values are bytes of JSON, as the tool gave them, with what is personal in them: a hit must be what a call
would have been. The cache that is built in is in memory and never pickled; one of your own has to guard what it keeps.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from escalade.registry.canonical import digest
from escalade.scopes import Scope


class Cache(Protocol):
    """Where results are kept, by digest."""

    def get(self, key: str) -> bytes | None: ...
    def set(self, key: str, value: bytes, seconds: float) -> None: ...


class MemoryCache:
    """In this process, the `size` results that were used last. `now`: monotonic seconds."""

    def __init__(self, size: int = 4096, now: Callable[[], float] = time.monotonic) -> None:
        self._size, self._now = size, now
        self._lock = threading.RLock()  # re-entrant: finalizers may call tools
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] <= self._now():
                self._kept.pop(key, None)
                return None
            self._kept.move_to_end(key)
            return found[1]

    def set(self, key: str, value: bytes, seconds: float) -> None:
        """Keep it for so long, or until others push it out."""
        with self._lock:
            self._kept[key] = (self._now() + seconds, value)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def cache_key(label: str, scope: Scope, rule: str, args: str, per: str) -> str:
    """`args`: their digest. `per`: "user" or "tenant"."""
    whose = [[p.tenant, p.user if per == "user" else "", sorted(p.roles)] for p in scope.principals]
    policy: Any = getattr(scope.access, "digest", "") or f"{id(scope.access):x}"
    return digest([label, whose, policy, rule, args])
