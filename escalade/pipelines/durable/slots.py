"""Slots: who executes runs, and how others find out that he has died.

A process that executes runs holds a slot by a lock that the kernel (a file) or the server (PostgreSQL) lets go of when
the process dies, however it dies. Two live processes never have the same, and whoever can take the lock of a slot knows
that its holder is gone and may take over its runs.

Beside a SQLite file the lock is `flock` on a file of its own: free in the moment in which the process ends. The slots
of a host are `host-0`, `host-1`, ..., so a process that is started again has the one that it had.

On PostgreSQL it is an advisory lock of a session: free when the session ends, which may be the server's doing, too (a
restart, a broken connection). There the holder takes it again by itself (`Slot.check`, about twice a second), nobody
counts a slot as free before it was free for `GRACE` seconds on end, and names are not used again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from escalade.errors import BadInput, StoreUnavailable
from escalade.registry.stores.owners import after_fork

GRACE = 3.0
"""Seconds for which a slot on PostgreSQL must be free before its runs may be taken over: six times as long as a holder
needs to notice that the server let go of his lock."""

_MOST = 1_000


class SlotLost(StoreUnavailable):
    """Another process holds the slot that was ours."""


class Slot(Protocol):
    """A lock that is held."""

    name: str

    def check(self) -> bool:
        """Hold it still, taking it again where the server let go; True when it had to be. Raises SlotLost,
        StoreUnavailable.
        """
        ...

    def release(self) -> None:
        """Let go of it."""
        ...


class Slots(Protocol):
    """Where the locks are."""

    def names(self, host: str) -> Iterable[str]:
        """Names that a process of this host may have, in the order in which to try them."""
        ...

    def hold(self, name: str) -> Slot | None:
        """The lock of that name, None where somebody else has it. Raises StoreUnavailable."""
        ...

    def abandoned(self, names: Iterable[str]) -> list[str]:
        """Those of the slots that nobody holds, and has held for long enough. Raises StoreUnavailable."""
        ...

    def close(self) -> None: ...


def open_slots(url: str) -> Slots:
    """The locks that go with a store at this URL. Raises BadInput."""
    if url.startswith("sqlite:///"):
        return FileSlots(Path(f"{url.removeprefix('sqlite:///')}.slots"))
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresSlots(url)
    raise BadInput("url: expected sqlite:///PATH or postgresql://HOST/DATABASE")


def claim(slots: Slots, name: str | None = None) -> Slot:
    """The slot of that name, or the first free one of this host. Raises BadInput when it is held, StoreUnavailable."""
    if name is not None:
        if not re.fullmatch(r"[\w.-]{1,200}", name):
            raise BadInput(f"worker {name!r}: expected letters, digits, '.', '-' and '_'")
        slot = slots.hold(name)
        if slot is None:
            raise BadInput(f"worker {name!r} is alive: another process has that name; choose another one, or none")
        return slot
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:180] or "host"
    held = (slots.hold(one) for one in slots.names(host))
    slot = next((one for one in held if one is not None), None)
    if slot is None:
        raise BadInput(f"{_MOST:,} processes of host {host!r} execute runs of this store already")
    return slot


# ------------------------------------------------------------------------------------------------------------- a file


class FileSlots:
    """Locks on files in a folder, for processes of one host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self, host: str) -> Iterable[str]:
        return (f"{host}-{number}" for number in range(_MOST))

    def hold(self, name: str) -> FileSlot | None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            number = os.open(self._folder / name, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise StoreUnavailable(f"the slots in {self._folder.name!r} can't be used: {error.strerror}") from error
        if not _locked(number):
            os.close(number)
            return None
        return FileSlot(name, number)

    def abandoned(self, names: Iterable[str]) -> list[str]:
        found = []
        for name in names:
            slot = self.hold(name)
            if slot is not None:
                slot.release()
                found.append(name)
        return found

    def close(self) -> None:
        """Nothing is open but what is held."""


def shared(path: Path) -> FileSlot | None:
    """A share of the lock on this file, None while somebody has it alone. Raises StoreUnavailable."""
    number = os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)
    if not _locked(number, alone=False):
        os.close(number)
        return None
    return FileSlot(path.name, number)


def _locked(number: int, *, alone: bool = True) -> bool:
    try:
        import fcntl
    except ImportError:
        raise StoreUnavailable("runs of several processes need locks of files that this system hasn't") from None
    try:
        fcntl.flock(number, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class FileSlot:
    """A locked file. A child of this process gets the lock with everything else, and lets go of it at once: it would
    hold it beyond our death.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name, self._number = name, number
        after_fork(self)

    def check(self) -> bool:
        """The kernel doesn't let go of it."""
        return False

    def release(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def _forked(self) -> None:
        self.release()  # of its copy: the parent's is another one, and keeps the lock


# --------------------------------------------------------------------------------------------------------- PostgreSQL


class PostgresSlots:
    """Advisory locks of sessions, for processes of any host. Each slot that is held has a connection of its own."""

    def __init__(self, url: str, *, grace: float = GRACE) -> None:
        self._url, self._grace = url, grace
        self._session = _Session(url, "escalade slots")
        self._free: dict[str, float] = {}

    def names(self, host: str) -> Iterable[str]:
        """Each once: the holder of a name that looks free may be about to take it again."""
        return (f"{host}-{uuid.uuid4().hex[:8]}" for _ in range(_MOST))

    def hold(self, name: str) -> PostgresSlot | None:
        slot = PostgresSlot(name, _Session(self._url, f"escalade slot {name}"))
        if slot.take():
            return slot
        slot.release()
        return None

    def abandoned(self, names: Iterable[str]) -> list[str]:
        asked = list(names)
        with self._watching():
            held = {row[0] for row in self._session.ask(_HELD, ([_key(name) for name in asked],))}
        now = time.monotonic()
        self._free = {name: self._free.get(name, now) for name in asked if _key(name) not in held}
        return [name for name, since in self._free.items() if now - since >= self._grace]

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        """What was seen before the connection broke doesn't count: the others' connections broke as well."""
        try:
            with self._session.renewed(self._free.clear):
                yield
        except StoreUnavailable:
            self._free.clear()
            raise

    def close(self) -> None:
        self._session.close()


class PostgresSlot:
    """A lock that a session of ours holds."""

    def __init__(self, name: str, session: _Session) -> None:
        self.name, self._session = name, session

    def take(self) -> bool:
        return bool(self._session.ask("SELECT pg_try_advisory_lock(%s::bigint)", (_key(self.name),))[0][0])

    def check(self) -> bool:
        again: list[bool] = []
        with self._session.renewed(lambda: again.append(True)):
            self._session.ask("SELECT 1", ())
        if again and not self._retaken():
            raise SlotLost(f"worker {self.name!r} lost its connection, and another process has its name now")
        return bool(again)

    def _retaken(self) -> bool:
        for _ in range(20):  # who takes over the runs of a slot holds its lock for a moment
            if self.take():
                return True
            time.sleep(0.05)
        return False

    def release(self) -> None:
        self._session.close()


class ServerLock:
    """A lock of that name in PostgreSQL, which this process takes when it is free, and has until it ends."""

    def __init__(self, url: str, name: str) -> None:
        self._slots, self._name = PostgresSlots(url), name
        self._slot: PostgresSlot | None = None
        self._lock = threading.Lock()
        after_fork(self)

    def _forked(self) -> None:
        """The parent's lock is not the child's; its connection is left alone."""
        self._slot, self._lock = None, threading.Lock()

    def take(self) -> bool:
        """Take it, or have it already; False while another process has it. Raises StoreUnavailable."""
        with self._lock:
            if self._slot is None:
                self._slot = self._slots.hold(self._name)
                return self._slot is not None
            try:
                self._slot.check()
            except SlotLost:
                self._slot = None
            return self._slot is not None

    def give(self) -> None:
        """Let go of it."""
        with self._lock:
            slot, self._slot = self._slot, None
            if slot is not None:
                slot.release()


_HELD = """
SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 1 AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((classid::bigint << 32) | objid::bigint) = ANY(%s::bigint[])
"""


def _key(name: str) -> int:
    """A number of 63 bits, which pg_locks tells in two halves."""
    digest = hashlib.blake2b(f"escalade slot {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class _Session:
    """One connection, made when it is needed and made anew when it broke; never used in a child of this process.

    The server is told to look after it: a host that vanishes without a word is noticed within about 10 seconds.
    """

    _ALIVE = "SET tcp_keepalives_idle = 4; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._connection: Any = None
        self._inherited: list[Any] = []
        self._renewed: Callable[[], object] | None = None
        after_fork(self)

    @contextlib.contextmanager
    def renewed(self, told: Callable[[], object]) -> Iterator[None]:
        """Call `told` for each connection that is made within the block."""
        self._renewed = told
        try:
            yield
        finally:
            self._renewed = None

    def ask(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        """The rows of a statement; tried again, by a new connection, where the old one had broken."""
        import psycopg

        fresh = self._connection is None
        try:
            return list(self._open().execute(sql, values).fetchall())
        except psycopg.Error as error:
            self.close()
            if fresh:
                raise StoreUnavailable(f"PostgreSQL can't be used: {_said(error)}", 1.0) from None
        return self.ask(sql, values)

    def _open(self) -> Any:
        import psycopg

        if self._connection is None:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=2, application_name=self._name, prepare_threshold=None
            )
            self._connection.execute(self._ALIVE)
            if self._renewed is not None:
                self._renewed()
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _forked(self) -> None:
        self._inherited.append(self._connection)
        self._connection = None


def _said(error: BaseException) -> str:
    """Its first line: what follows may have the address with the password."""
    return str(error).partition("\n")[0] or type(error).__name__
