"""Where sessions are kept. A session belongs to one user of one tenant: his name is a part of its key."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

_SWEEP = 256
"""Saves after which what has expired is forgotten."""


class Key(NamedTuple):
    """Whose session, and which. Another user who knows the id has another key."""

    tenant: str
    user: str
    id: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept, and which version of it: a text that no other version ever has."""

    data: bytes
    version: str


@runtime_checkable
class SessionStore(Protocol):
    """What a store does. One that processes share has an attribute `remote = True`: coroutines ask it in a thread."""

    def load(self, key: Key) -> Kept | None:
        """What is kept under the key, None where nothing is, or it has expired."""
        ...

    def save(self, key: Key, data: bytes, *, version: str, ttl: float | None) -> bool:
        """Keep it, if what is kept now has this version ("": if nothing is). False if not: somebody else was faster.

        `ttl`: seconds until it expires, None for never.
        """
        ...

    def delete(self, key: Key) -> bool:
        """Forget one session. Was there one?"""
        ...

    def forget(self, tenant: str, user: str | None = None) -> int:
        """Forget all sessions of a user, or of a whole tenant. How many there were."""
        ...

    def sweep(self) -> int:
        """Forget what has expired. How many there were."""
        ...

    def ids(self, tenant: str, user: str) -> list[str]:
        """The user's sessions, by id."""
        ...


class MemorySessions:
    """In this process. `now`: wall clock, seconds. Thread-safe."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now, self._lock = now, threading.Lock()
        self._saves = 0
        self._kept: dict[Key, tuple[Kept, float | None]] = {}

    def load(self, key: Key) -> Kept | None:
        with self._lock:
            return self._live(key)

    def save(self, key: Key, data: bytes, *, version: str, ttl: float | None) -> bool:
        with self._lock:
            self._saves += 1
            if self._saves % _SWEEP == 0:
                self._sweep()
            kept = self._live(key)
            if version != ("" if kept is None else kept.version):
                return False
            self._kept[key] = Kept(data, uuid.uuid4().hex), None if ttl is None else self._now() + ttl
            return True

    def delete(self, key: Key) -> bool:
        with self._lock:
            return self._kept.pop(key, None) is not None

    def forget(self, tenant: str, user: str | None = None) -> int:
        with self._lock:
            gone = [key for key in self._kept if key.tenant == tenant and user in {None, key.user}]
            for key in gone:
                del self._kept[key]
            return len(gone)

    def sweep(self) -> int:
        with self._lock:
            return self._sweep()

    def ids(self, tenant: str, user: str) -> list[str]:
        with self._lock:
            mine = [key for key in list(self._kept) if key[:2] == (tenant, user)]
            return sorted(key.id for key in mine if self._live(key) is not None)

    def _sweep(self) -> int:
        return sum(self._live(key) is None for key in list(self._kept))

    def _live(self, key: Key) -> Kept | None:
        kept, expires = self._kept.get(key, (None, None))
        if expires is not None and expires <= self._now():
            del self._kept[key]
            return None
        return kept
