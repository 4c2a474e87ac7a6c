"""A cache on disk that processes of one host share: bytes by key, with a time to live, tags, and a limit of its size.

    Registry(tools, cache=DiskCache("cache"))

`diskcache` does the work, with everything of it refused that would unpickle what it reads: whoever can write to the
folder could otherwise run code here. Values are bytes and stand in the one SQLite file, so no row can name a file, to
be read or removed. A reader never waits for a writer; a writer waits `patience` seconds at most (diskcache by
itself: up to 60, as it opens). Coroutines do both in a thread.

Measured with values of 2 kB: `get` 8 us, `set` 54 us, and 5 ms for one write in a hundred, which moves the log into the
file (`python -m benchmarks stores`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from escalade.errors import BadInput, DataError, StoreUnavailable
from escalade.registry.stores.forks import calls
from escalade.registry.stores.owners import Owner, after_fork, here, started
from escalade.registry.stores.resting import Rest

R = TypeVar("R")

MEBIBYTE = 1024 * 1024
_CLAIM = "claim:"
"""What the keys of claims begin with."""

_SHARE = 8
"""No value takes more than this part of the whole."""


class DiskCache:
    """A `Cache` in a folder, which is made for its owner's eyes only: what it keeps is kept as it is.

    `size_limit`: bytes on disk; beyond it, what was stored first goes first, and a value larger than an eighth of it is
    not kept at all. `patience`: seconds that a write waits for other writers. `rest`: seconds for which a disk that
    failed is left alone. The folder must be on a local disk. Raises BadInput where there can be no folder.
    """

    remote = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size_limit: int = 256 * MEBIBYTE,
        patience: float = 0.1,
        rest: float = 1.0,
    ) -> None:
        if not (isinstance(size_limit, int) and size_limit >= MEBIBYTE):
            raise BadInput(f"size_limit: expected bytes, {MEBIBYTE:,} or more, got {size_limit!r}")
        self.path, self.size_limit, self._patience = Path(path), size_limit, patience
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"a cache needs a folder, and {self.path.name!r} can't be one: {error.strerror}") from None
        self._rest, self._lock = Rest("cached results", rest), threading.Lock()
        self._cache: Any = None
        self._inherited: list[Any] = []
        after_fork(self)
        with contextlib.suppress(StoreUnavailable):  # it may be there later; until then everything is a miss
            self._ask(lambda _: None)

    def _forked(self) -> None:
        """The parent's connections are kept and never touched again."""
        self._inherited.append(self._cache)
        self._cache, self._lock = None, threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The value, None when there is none or its time is up. Raises StoreUnavailable; DataError for a row that was
        not written by us.
        """
        value: bytes | None = self._ask(lambda cache: cache.get(key))
        return value

    def set(self, key: str, value: bytes, seconds: float, tag: str = "") -> None:
        """Keep it for so long, or until others push it out. Raises StoreUnavailable."""
        if len(value) <= self.size_limit // _SHARE:
            self._ask(lambda cache: cache.set(key, value, expire=seconds, tag=tag))

    def clear(self, tag: str | None = None) -> None:
        """Forget what was kept under this tag, or everything. Raises StoreUnavailable."""
        self._ask(lambda cache: cache.clear() if tag is None else cache.evict(tag))

    def delete(self, key: str) -> None:
        """Forget one value. Raises StoreUnavailable."""
        self._ask(lambda cache: cache.delete(key))

    def forget(self, word: str) -> None:
        """Forget what was kept under any tag that has this word. Raises StoreUnavailable."""
        self._ask(lambda cache: [cache.evict(tag) for tag in self._tags() if word in tag.split()])

    def claim(self, key: str, seconds: float) -> str | None:
        """A token for who may work this value out, for so long, while no other process does; None for the others.

        The claim of a process that has died is free at once. Raises StoreUnavailable.
        """
        me = Owner()
        mine = json.dumps([uuid.uuid4().hex, me.host, me.pid, me.started])
        kept = self._ask(lambda cache: _claimed(cache, _CLAIM + key, mine.encode(), seconds))
        return mine if kept else None

    def release(self, key: str, token: str) -> None:
        """The claim is over. Raises StoreUnavailable."""
        self._ask(lambda cache: cache.get(_CLAIM + key) == token.encode() and cache.delete(_CLAIM + key))

    def size(self) -> int:
        """Bytes on disk. Raises StoreUnavailable."""
        return int(self._ask(lambda cache: cache.volume()))

    def close(self) -> None:
        """Close this thread's connection; the next use opens it again."""
        if self._cache is not None:
            with calls.under_way():
                self._cache.close()

    def _ask(self, what: Callable[[Any], R]) -> R:
        import diskcache

        with self._rest.asking(), calls.under_way():
            try:
                return what(self._opened())
            except (sqlite3.Error, diskcache.Timeout, OSError) as error:
                said = str(error) or "other processes write all the time"
                raise StoreUnavailable(f"the cache {self.path.name!r} can't be used: {said}", 1.0) from error

    def _tags(self) -> list[str]:
        probe = sqlite3.connect(self.path / _file(), timeout=self._patience)
        with contextlib.closing(probe):
            return [tag for (tag,) in probe.execute("SELECT DISTINCT tag FROM Cache") if isinstance(tag, str)]

    def _opened(self) -> Any:
        if self._cache is None:
            with self._lock:
                if self._cache is None:
                    self._cache = self._open()
        return self._cache

    def _open(self) -> Any:
        import diskcache

        # Opening, diskcache waits up to 60 s for a writer: so see first whether there is one.
        probe = sqlite3.connect(self.path / _file(), timeout=self._patience, isolation_level=None)
        with contextlib.closing(probe):
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
        settings = {"eviction_policy": "least-recently-stored", "statistics": 0, "tag_index": 1, "cull_limit": 10}
        return diskcache.Cache(
            str(self.path), timeout=self._patience, disk=_bytes_only(), size_limit=self.size_limit, **settings
        )


def _file() -> str:
    import diskcache

    return str(diskcache.core.DBNAME)


def _claimed(cache: Any, key: str, mine: bytes, seconds: float) -> bool:
    if cache.add(key, mine, expire=seconds):
        return True
    with cache.transact():
        held = cache.get(key)
        if held is not None and not _dead(held):
            return False
        return bool(cache.set(key, mine, expire=seconds))


def _dead(claim: bytes) -> bool:
    """Has the process surely ended? What isn't a claim of ours stays until its time is up."""
    try:
        _, host, pid, began = json.loads(claim)
        return host == here() and bool(began) and started(pid) not in {None, began}
    except (ValueError, TypeError):
        return False


@functools.cache
def _bytes_only() -> Any:
    """How rows are written and read, for keys that are text and values that are bytes, all in the database."""
    import diskcache

    class BytesOnly(diskcache.Disk):
        def put(self, key: Any) -> tuple[str, bool]:
            return str(key), True

        def get(self, key: Any, raw: Any) -> str:
            if not raw or type(key) is not str:
                raise _foreign()
            return key

        def store(self, value: Any, read: Any, key: Any = None) -> tuple[int, int, None, Any]:
            return 0, diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

        def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
            if mode != diskcache.core.MODE_RAW or filename is not None or type(value) is not bytes:
                raise _foreign()
            return value

        def remove(self, file_path: Any) -> None:
            """No row of ours has a file."""

    return BytesOnly


def _foreign() -> DataError:
    return DataError("a row of the cache was not written by us, and is not read")
