"""One pass over the rows of a log."""

from __future__ import annotations

import json

from escalade.registry.audit._book import Reading, Unreadable
from escalade.registry.audit._holding import Add, Checkpoints
from escalade.registry.audit.chain import ZERO, link
from escalade.registry.audit.rows import DENIED, GENESIS, INTENT, OUTCOME

TIRED = 50
"""Places that can't be read at all, until the rest is given up."""
_WRONG_TYPE = (TypeError, ValueError, AttributeError)


class Walk:
    """After `run`: `rows` in the log, `head` the hash of the last one, `chain` its name, `running` the calls without
    an outcome. What is wrong goes to `add`.

    After a row that doesn't fit the walk goes on from the hash that is stored, so that each wrong place is one finding.
    """

    def __init__(self, reading: Reading, checkpoints: Checkpoints, add: Add) -> None:
        self._reading, self._checkpoints, self._add = reading, checkpoints, add
        self.rows, self.head, self.chain = 0, b"", ""
        self.running: dict[str, int] = {}
        self._from, self._due = -(2**63), 1
        self._before: bytes | None = ZERO

    def run(self) -> None:
        """Read all rows, beyond damaged places too."""
        self.chain = self._name()
        self._checkpoints.check_chain(self.chain)
        for _ in range(TIRED):
            try:
                self._stream()
            except Unreadable as error:
                self._add(self._due, "damaged", f"can't be read: {error}")
                self._before, self._due = None, self._due + 1
                self._from = self._due
            else:
                return
        self._add(self._due, "damaged", "the rest was not read: too many places are damaged")

    def _name(self) -> str:
        try:
            seq, _, event, _, body, _ = next(self._reading.lines(1))
            name = json.loads(body)["chain"]
        except (Unreadable, StopIteration, *_WRONG_TYPE, KeyError):
            name = None
        if not isinstance(name, str) or (seq, event) != (1, GENESIS):
            self._add(1, "changed", "it is not the first row of a log")
            return ""
        return name

    def _stream(self) -> None:
        """The inner loop: a microsecond counts here."""
        due, before, running, meet = self._due, self._before, self.running, self._checkpoints.meet
        mark = self._checkpoints.next
        try:
            for seq, at, event, call, body, stored in self._reading.lines(self._from):
                if seq != due:
                    if seq < due:
                        self._add(seq, "inserted", f"it stands where no row is due before {due}")
                        continue
                    self._add(due, "missing", f"rows {due} to {seq - 1} are missing")
                    before = None
                try:
                    found = stored if before is None else link(before, seq, at, event, call, body)
                except _WRONG_TYPE:
                    found = b""
                if found != stored:
                    self._add(seq, "changed", "it doesn't follow from the row before: one of the two was changed")
                before = stored if isinstance(stored, bytes) else None
                due = seq + 1
                if event == INTENT:
                    running[call] = seq
                elif event in {OUTCOME, DENIED}:
                    running.pop(call, None)
                if 0 < mark <= seq:
                    mark = meet(seq, found)
                self.rows, self.head = seq, stored
        finally:
            self._due, self._before = due, before
