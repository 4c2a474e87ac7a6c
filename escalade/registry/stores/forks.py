"""No fork in the middle of a call into SQLite.

All connections of a process share some locks within SQLite, that of its memory first. Who forks while another thread
holds one hands it down held, and the child waits for it for ever, at its first connection (measured: one fork in 500
while 8 ledgers beat). And what another thread had begun to write would stay begun in the child, for which the file then
is locked. So each call says that it is under way, and a fork waits until none is, for `PATIENCE` seconds at most.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

PATIENCE = 1.0
"""Seconds that a fork waits. A call that takes longer waits for a file that others write, and holds no such lock."""


class Calls:
    """`with calls.under_way():` around each call, 2 us. Calls within calls, as finalizers make them, never wait."""

    def __init__(self) -> None:
        self._forked()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._fork, after_in_parent=self._go_on, after_in_child=self._forked)

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Waits while the process forks."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._under_way:
                self._changed.wait_for(lambda: not self._forking)
            self._under_way[me] = self._under_way.get(me, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                # The last call of a thread takes it out in one step: a finalizer's call may come between any two.
                if self._under_way[me] > 1:
                    self._under_way[me] -= 1
                else:
                    del self._under_way[me]
                    if self._forking:
                        self._changed.notify_all()

    def _fork(self) -> None:
        """Before: no new calls, and the lock is kept until after the fork."""
        self._changed.acquire()
        self._forking += 1
        self._changed.wait_for(lambda: self._under_way.keys() <= {threading.get_ident()}, PATIENCE)

    def _go_on(self) -> None:
        self._forking -= 1
        self._changed.notify_all()
        self._changed.release()

    def _forked(self) -> None:
        self._changed = threading.Condition()  # re-entrant: a finalizer may make a call while its thread is in here
        self._under_way: dict[int, int] = {}
        self._forking = 0


calls = Calls()
"""Those of this process."""
