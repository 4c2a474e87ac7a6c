"""Who holds money in a store: processes, and how one finds out that a process has died.

On the host of the owner its process id and start time say so at once (a zombie is dead, and so is a process id that
was given to another process). Elsewhere, and where the system doesn't tell start times, the owner's heartbeat does: an
owner that has not been seen for a lease is dead.
"""

from __future__ import annotations

import os
import socket
import uuid
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


def here() -> str:
    """This host since its last start, as far as process ids mean anything (containers have their own)."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{socket.gethostname()}/{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def started(pid: int) -> str | None:
    """When that process started, as the system counts; "" when it has ended, None when nobody tells."""
    try:
        # The name of the program, in brackets, may contain anything; what follows the last bracket is fixed.
        fields = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None if _exists(pid) else ""
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


@dataclass(frozen=True, slots=True)
class Owner:
    """One process, as the store knows it. `seen`: its last heartbeat, seconds since the epoch."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    host: str = field(default_factory=here)
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: started(os.getpid()) or "")
    seen: float = 0.0

    def dead(self, now: float, lease: float, host: str) -> bool:
        """Has it surely ended? `lease`: seconds without a heartbeat that count as death, where only that tells.
        `host`: where we are.
        """
        if self.started and self.host == host:
            known = started(self.pid)
            if known is not None:
                return known != self.started
        return now - self.seen > lease


_forking: weakref.WeakSet[Any] = weakref.WeakSet()


def after_fork(thing: Any) -> None:
    """Have `thing._forked()` called in each child of this process: connections and locks are not for children."""
    _forking.add(thing)


def _tell_forked() -> None:
    for thing in list(_forking):
        thing._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell_forked)
