"""Where answers lie: in the memory of this process, above a store on disk or in Redis, if there is one.

Memory answers at once, also on an event loop; the store is asked in a thread by coroutines. What memory has is looked
up in the store again after a minute, so that other processes' evictions reach it. A store that fails is a miss.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

from escalade.registry.elsewhere import in_background
from escalade.registry.privacy.outlets import error_line

R = TypeVar("R")

logger = logging.getLogger(__name__)

CONFIRM = 60.0
"""Seconds for which memory is believed where there is a store."""

_QUIET, _PATIENCE = 10.0, 1.0
_OVERHEAD = 300
"""Bytes of an entry beside its value, about."""


class AnswerStore(Protocol):
    """Where processes share answers: `DiskCache`, `RedisCache`. Tags are words. Coroutines ask it in a thread.

    All methods may raise; that counts as a miss. It may throw away what it likes.
    """

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up."""
        ...

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it for so long, or until others push it out."""
        ...

    def delete(self, key: str) -> None:
        """Forget one value."""
        ...

    def forget(self, word: str) -> None:
        """Forget what was kept under any tag that has this word."""
        ...

    def clear(self, tag: str | None = None) -> None:
        """Forget everything."""
        ...

    def claim(self, key: str, seconds: float) -> str | None:
        """A token for who may work this value out, while nobody else does; None for the others."""
        ...

    def release(self, key: str, token: str) -> None:
        """The claim is over."""
        ...


class _Entry(NamedTuple):
    seen: float
    until: float
    value: bytes
    tag: str


class Memory:
    """The entries that were used last, `limit` bytes of them. `now`: seconds."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit, self._now = limit, now
        self._lock = threading.RLock()  # re-entrant: a finalizer may come here while its thread is in here
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.bytes = self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, fresh: float) -> bytes | None:
        """What was put there less than `fresh` seconds ago and is still good."""
        with self._lock:
            entry, now = self._entries.get(key), self._now()
            if entry is None or now >= entry.until or now - entry.seen > fresh:
                return None
            self._entries.move_to_end(key)
            return entry.value

    def set(self, key: str, value: bytes, seconds: float, tag: str) -> None:
        with self._lock:
            self.drop(key)
            size = _size(key, value)
            if size > self._limit:
                return
            now = self._now()
            self._entries[key] = _Entry(now, now + seconds, value, tag)
            self.bytes += size
            while self.bytes > self._limit:
                self.drop(next(iter(self._entries)))
                self.evicted += 1

    def drop(self, key: str) -> None:
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self.bytes -= _size(key, entry.value)

    def forget(self, word: str | None) -> None:
        """All with this word in their tag; None: all."""
        with self._lock:
            for key in [key for key, entry in self._entries.items() if word is None or word in entry.tag.split()]:
                self.drop(key)


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD


class Shelf:
    """Both levels. `failed`: told of each failure of the store; one line of log in ten seconds."""

    def __init__(self, memory: Memory, store: AnswerStore | None, failed: Callable[[], None]) -> None:
        self.memory, self.store, self._failed = memory, store, failed
        self._fresh = float("inf") if store is None else CONFIRM
        self._loud = -_QUIET
        self._leaving: dict[str, threading.Event] = {}

    def near(self, key: str) -> bytes | None:
        """From memory, at once."""
        return self.memory.get(key, self._fresh)

    def far(self, key: str, seconds: float, tag: str) -> bytes | None:
        """From the store, and into memory for `seconds` at most. Blocks."""
        value: bytes | None = self._ask(lambda store: store.get(key))
        if value is None:
            self.memory.drop(key)
        else:
            self.memory.set(key, value, seconds, tag)
        return value

    def keep(self, key: str, value: bytes, seconds: float, tag: str) -> None:
        """In the store. Blocks."""
        if (leaving := self._leaving.get(key)) is not None:
            leaving.wait(_PATIENCE)  # or what is to go would take the new one with it
        self._ask(lambda store: store.set(key, value, seconds, tag))

    def drop(self, key: str) -> None:
        """Blocks."""
        self.memory.drop(key)
        self._ask(lambda store: store.delete(key))

    def drop_later(self, key: str) -> None:
        """`drop`, without waiting for the store."""
        self.memory.drop(key)
        if self.store is not None:
            gone = self._leaving[key] = threading.Event()
            in_background(partial(self._leave, key, gone))

    def _leave(self, key: str, gone: threading.Event) -> None:
        try:
            self._ask(lambda store: store.delete(key))
        finally:
            self._leaving.pop(key, None)
            gone.set()

    def forget(self, word: str | None) -> None:
        """Of both levels; raises what the store raises: nobody must believe that it is gone when it isn't."""
        self.memory.forget(word)
        if self.store is not None:
            self.store.clear() if word is None else self.store.forget(word)
            self.memory.forget(word)

    def claim(self, key: str, seconds: float) -> str | None:
        """A token, "" where there is nobody to ask, None while another process works it out."""
        token: str | None = self._ask(lambda store: (store.claim(key, seconds),), ("",))[0]
        return token

    def release(self, key: str, token: str) -> None:
        """Blocks."""
        self._ask(lambda store: store.release(key, token))

    def note(self, error: Exception) -> None:
        """It failed."""
        self._failed()
        now = time.monotonic()
        if now - self._loud >= _QUIET:
            self._loud = now
            logger.warning("the cache of answers failed, which counts as a miss: %s", error_line(error))

    def _ask(self, what: Callable[[AnswerStore], Any], otherwise: Any = None) -> Any:
        if self.store is None:
            return otherwise
        try:
            return what(self.store)
        except Exception as error:  # noqa: BLE001 - whatever it is, the model can be asked
            self.note(error)
            return otherwise
