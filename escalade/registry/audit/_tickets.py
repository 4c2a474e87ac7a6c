"""A row on its way to the disk, and the ticket that its caller waits with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable

from escalade.errors import AuditUnavailable

CHECKPOINT, FLUSH = "checkpoint", "flush"
"""Requests to the writer that are no rows."""


class Ticket:
    """Becomes done when its row is on the disk, or can't be. Waited for by one thread or one task.

    A raw lock rather than a Future: 64 waiting threads cost the writer 1 us each, not 10.
    """

    __slots__ = ("_lock", "_waiter", "abandoned", "done", "error")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.done = self.abandoned = False
        self.error: AuditUnavailable | None = None

    def wait(self, timeout: float) -> None:
        """Block until it is done. Raises AuditUnavailable, also after `timeout` seconds."""
        if not self.done and not self._lock.acquire(timeout=timeout):
            self._late(timeout)
        self._check()

    async def wait_async(self, patience: float) -> None:
        """`wait` for tasks; the event loop goes on."""
        if not self.done:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            self._waiter = (loop, future)
            if not self.done:  # looked at after the waiter was set: the writer sees one or the other
                try:
                    async with asyncio.timeout(patience):
                        await future
                except TimeoutError:
                    self._late(patience)
                except asyncio.CancelledError:
                    self.abandoned = True
                    raise
        self._check()

    def _late(self, timeout: float) -> None:
        """Nobody waits any more: the writer leaves it out if it has not begun with it."""
        if not self.done:
            self.abandoned = True
            raise AuditUnavailable(f"the audit log took longer than {timeout:g} s to record the use", timeout)

    def _check(self) -> None:
        if self.error is not None:
            raise self.error.again()


def finish(tickets: Iterable[Ticket], error: AuditUnavailable | None = None) -> None:
    """Wake everybody; one call per event loop, however many of its tasks wait."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for ticket in tickets:
        ticket.error, ticket.done = error, True
        ticket._lock.release()
        if ticket._waiter is not None:
            loops.setdefault(ticket._waiter[0], []).append(ticket._waiter[1])
    for loop, futures in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, futures)
        except RuntimeError:  # the loop is closed; so are its tasks
            continue


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Pending:
    """A row on its way, or a request. `at`: microseconds since 1970. `written`: found in the log after all, when the
    answer to its commit was lost.
    """

    __slots__ = ("at", "body", "call", "event", "ticket", "written")

    def __init__(
        self, event: str, at: int = 0, call: str = "", body: bytes = b"", ticket: Ticket | None = None
    ) -> None:
        self.event, self.at, self.call, self.body, self.ticket = event, at, call, body, ticket
        self.written = False
