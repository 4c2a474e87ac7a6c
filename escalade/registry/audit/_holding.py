"""The checkpoints of a log and of its anchors, held against each other and against the chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from escalade.registry.audit._book import Reading
from escalade.registry.audit.anchors import UNREADABLE, Checkpoint
from escalade.registry.audit.keys import Signer

Add = Callable[[int, str, str], None]


class Checkpoints:
    """`outside`: what each anchor holds. `add`: takes a finding. `anchored`: the last row an anchor vouches for."""

    def __init__(self, reading: Reading, outside: Sequence[list[Checkpoint]], key: Signer | None, add: Add) -> None:
        self._add, self._key = add, key
        self.anchored, self.held, self._good, self._bad = 0, sum(map(len, outside)), 0, 0
        self._chain = ""
        own = self._own(reading)
        self._check(own, "the log")
        for number, held in enumerate(outside, 1):
            self._check(held, f"anchor {number}")
            self._compare(own, held, number)
        marks = {(c.seq, c.head, False) for c in own} | {(c.seq, c.head, True) for held in outside for c in held}
        self._marks = sorted((m for m in marks if m[0] > 0), reverse=True)

    def check_chain(self, chain: str) -> None:
        """Is it the log that the checkpoints speak of?"""
        if self._chain and chain != self._chain:
            self._add(0, "rewritten", f"the checkpoints are of log {self._chain}, this is {chain or 'none'}")

    @property
    def next(self) -> int:
        """The next row that a checkpoint speaks of, 0 after the last one."""
        return self._marks[-1][0] if self._marks else 0

    def meet(self, seq: int, found: bytes) -> int:
        """Row `seq` was reached; its hash is `found`. Returns `next`."""
        while self._marks and self._marks[-1][0] <= seq:
            at, head, outside = self._marks.pop()
            if at == seq and head == found.hex():
                self._good = seq
                self.anchored = seq if outside else self.anchored
            elif at == seq:
                self._bad += 1
                if self._bad == 1:
                    self._add(seq, "rewritten", f"rows {self._good + 1} to {seq} don't lead to its checkpoint's head")
        return self.next

    def finish(self, rows: int) -> None:
        """The log has ended at row `rows`."""
        last = max((seq for seq, _, _ in self._marks if seq > rows), default=0)
        if last:
            self._add(rows + 1, "cut", f"rows {rows + 1} to {last} are missing: there is a checkpoint of row {last}")
        if self._bad > 1:
            self._add(0, "rewritten", f"{self._bad - 1} more checkpoints don't fit the chain either")

    def _own(self, reading: Reading) -> list[Checkpoint]:
        found = []
        for number, body in reading.checkpoints():
            try:
                checkpoint = Checkpoint.from_json(body)
            except (ValueError, AttributeError):
                checkpoint = UNREADABLE
            found.append(checkpoint if checkpoint.number == number else UNREADABLE)
        return found

    def _check(self, held: list[Checkpoint], where: str) -> None:
        """Are they all there, in order, of one log, and signed?"""
        before: Checkpoint | None = None
        for number, checkpoint in enumerate(held, 1):
            if checkpoint is UNREADABLE:
                self._add(0, "checkpoint", f"checkpoint {number} of {where} can't be read")
            else:
                self._check_one(checkpoint, before, where)
                before = checkpoint

    def _check_one(self, checkpoint: Checkpoint, before: Checkpoint | None, where: str) -> None:
        name = f"checkpoint {checkpoint.number} of {where}"
        due = before.number + 1 if before else 1
        if checkpoint.number != due:
            self._add(checkpoint.seq, "checkpoint", f"{name} stands where {due} should")
        elif checkpoint.previous != (before.digest() if before else "") or checkpoint.count != checkpoint.seq:
            self._add(checkpoint.seq, "checkpoint", f"{name} doesn't follow from the one before")
        if self._key is not None and not checkpoint.signed_by(self._key):
            self._add(checkpoint.seq, "checkpoint", f"{name} is not signed by this key")
        self._chain = self._chain or checkpoint.chain
        if checkpoint.chain != self._chain:
            self._add(checkpoint.seq, "checkpoint", f"{name} is of another log")

    def _compare(self, own: list[Checkpoint], held: list[Checkpoint], number: int) -> None:
        """A log that was made anew has checkpoints of its own."""
        kept = {c.number: c for c in own}
        strange = [c for c in held if c.number and kept.get(c.number) != c]
        if strange:
            first = strange[0]
            more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
            what = "has another" if first.number in kept else "lacks"
            said = f"the log {what} checkpoint {first.number}, which anchor {number} holds{more}"
            self._add(first.seq, "checkpoint", said)
