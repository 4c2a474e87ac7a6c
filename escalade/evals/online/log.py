"""A file of climbs, and of the qualities that are told afterwards.

    log = DecisionLog("decisions.jsonl")
    qa = Escalate("question -> answer", rungs=..., policy=watch(Epsilon(Threshold(0.8)), log))
    with escalade.scope() as run:
        answer = qa(question="...")
    log.feedback(1.0, run=run.run_id)        # a person pressed "good", a check passed
    log.lines()                               # what other policies are judged on

JSON lines, appended: one for each climb, one for each quality that was told. A last line that was torn by a crash is
left out; whoever writes next says so in a line after it. Any other line that can't be is refused by its number. Any
number of threads may write, and several processes may append to one file, where the system appends whole lines (local
disks of POSIX systems do).
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from escalade.errors import BadInput, DataError
from escalade.evals.online.logged import Logged

__all__ = ["DecisionLog"]

Listener = Callable[[Logged], None]

TORN = b'{"torn":"the line before"}'
"""What follows a line that a crash tore."""


class DecisionLog:
    """The climbs of one file, or of memory alone where `path` is None. Raises DataError for a file that is no log.

    `listeners`: are called with each climb when it is logged, and again with its quality when that is told; what they
    raise is theirs to handle. `stops`: (policy, version) -> why nobody gets it any more.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.listeners: list[Listener] = []
        self.stops: dict[tuple[str, str], str] = {}
        self._lines: list[Logged] = []
        self._ids: dict[str, int] = {}
        self._by_key: dict[str, list[int]] = {}
        self._by_run: dict[str, list[int]] = {}
        self._lock = threading.RLock()
        self._read_to = self._number = 0
        self._unread: deque[bytes] = deque()
        self.refresh()

    def __len__(self) -> int:
        return len(self._lines)

    def lines(self) -> tuple[Logged, ...]:
        """All climbs so far, each with its quality where it was told."""
        with self._lock:
            return tuple(self._lines)

    def write(self, line: Logged) -> None:
        """Append a climb; its quality, if it is known already, as a line of its own."""
        self._append(line.to_line())
        if line.quality is not None:
            self.feedback(line.quality, climb=line.id)

    def feedback(self, quality: float, *, climb: str = "", run: str = "", key: str = "") -> int:
        """Tell how good an answer was, 0..1. How many climbs it was told of.

        Of one climb (its `id`), of every climb of a run, or of the newest climb on a question (`key`; in that run, if
        one is given). Told twice, the last word counts. Raises BadInput for a quality outside of 0..1, DataError where
        the log has no such climb.
        """
        if not isinstance(quality, Real) or not 0.0 <= quality <= 1.0:
            raise BadInput(f"a quality lies between 0 and 1, not at {quality!r}")
        if not (climb or run or key):
            raise BadInput("feedback: say of which climb: climb=, run= or key=")
        with self._lock:
            self.refresh()
            ids = self._meant(climb, run, key)
            if not ids:
                raise DataError(f"feedback: the log has no climb with {_named(climb, run, key)}")
            for one in ids:
                self._append(json.dumps({"told": one, "quality": float(quality), "at": time.time()}))
            return len(ids)

    def stop(self, policy: str, version: str, reason: str) -> None:
        """Nobody gets this version of a policy any more, in any process that reads the log."""
        self._append(json.dumps({"stopped": policy, "version": version, "reason": reason, "at": time.time()}))

    def refresh(self) -> None:
        """Read what was appended since, by other processes too. Raises DataError for a line that can't be; the next
        call goes on after it.
        """
        if self.path is None or not self.path.exists():
            return
        with self._lock, self.path.open("rb") as file:
            file.seek(self._read_to)
            read = file.read()
            whole = read[: read.rfind(b"\n") + 1]
            self._read_to += len(whole)
            self._unread.extend(whole.split(b"\n")[:-1])
            while self._unread:  # a listener may write, and so read on from here
                line = self._unread.popleft()
                self._number += 1
                if TORN not in (line, *itertools.islice(self._unread, 1)):
                    self._take(line)

    def _append(self, line: str) -> None:
        with self._lock:
            if self.path is None:
                self._take(line.encode())
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # A line that was torn by a crash ends here: it was never told to anybody.
                torn = file.tell() and _last_byte(self.path) != b"\n"
                file.write((b"\n" + TORN + b"\n" if torn else b"") + line.encode() + b"\n")
            self.refresh()

    def _take(self, line: bytes) -> None:
        try:
            at = self._put(json.loads(line))
        except (KeyError, TypeError, ValueError, DataError) as error:
            where = "the log in memory" if self.path is None else f"{self.path}: line {self._number}"
            why = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{where}: not a line of a log of decisions ({why}): {line[:80]!r}") from None
        if at is not None:
            for listener in self.listeners:
                listener(self._lines[at])

    def _put(self, values: Any) -> int | None:
        if "told" in values:
            at = self._ids.get(values["told"])
            if at is not None:
                self._lines[at] = self._lines[at].told(values["quality"])
            return at
        if "stopped" in values:
            self.stops.setdefault((values["stopped"], values["version"]), values["reason"])
            return None
        line = Logged.from_line(values)
        self._lines.append(line)
        at = len(self._lines) - 1
        self._by_key.setdefault(line.key, []).append(at)
        if line.run:
            self._by_run.setdefault(line.run, []).append(at)
        self._ids[line.id] = at
        return at

    def _meant(self, climb: str, run: str, key: str) -> list[str]:
        if climb:
            return [climb] if climb in self._ids else []
        found = self._by_run.get(run, []) if run else self._by_key.get(key, [])
        if key:
            found = [at for at in found if self._lines[at].key == key][-1:]
        return [self._lines[at].id for at in found]


def _named(climb: str, run: str, key: str) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in (("climb", climb), ("run", run), ("key", key)) if value)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
