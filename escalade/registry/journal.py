"""The record of what was used: an intent before each use, an outcome after it, a denial instead of both.

In memory, bounded: the newest `keep` entries stay readable; the totals count all of them.
"""

from __future__ import annotations

import threading
from collections import deque

from escalade.money import Money
from escalade.scopes import Entry


class Journal:
    """A `Recorder` in memory. Entries are the guard's own objects: an intent's entry is completed by its outcome."""

    def __init__(self, keep: int = 10_000) -> None:
        self._lock = threading.RLock()  # re-entrant: a finalizer may end a use while its thread records another
        self._entries: deque[Entry] = deque(maxlen=keep)
        self._denials: deque[Entry] = deque(maxlen=keep)
        self._running: dict[str, Entry] = {}
        self._settled = 0

    def intent(self, entry: Entry) -> None:
        """A use is about to happen."""
        with self._lock:
            self._running[entry.call_id] = entry
            self._entries.append(entry)

    def outcome(self, entry: Entry) -> None:
        """The use has ended."""
        with self._lock:
            self._running.pop(entry.call_id, None)
            self._settled += entry.cost

    def denied(self, entry: Entry) -> None:
        """The guard said no; nothing ran."""
        with self._lock:
            self._denials.append(entry)

    def entries(self) -> list[Entry]:
        """Admitted uses, oldest first; what was refused is in `denials`."""
        with self._lock:
            return list(self._entries)

    def denials(self) -> list[Entry]:
        """Refused uses, oldest first; `outcome` is the class name of the refusal."""
        with self._lock:
            return list(self._denials)

    def decisions(self) -> list[Entry]:
        """Admitted and refused uses, in the order in which they began: what `access.simulate.replay` takes."""
        return sorted([*self.entries(), *self.denials()], key=lambda entry: entry.started)

    def running(self) -> list[Entry]:
        """Uses whose outcome is not known yet."""
        with self._lock:
            return list(self._running.values())

    @property
    def settled(self) -> Money:
        """What all finished uses cost together."""
        return Money(self._settled)
