"""Verifying a log: does every row follow from the one before, and does the chain lead to what the anchors hold?

What is found without any anchor: every changed byte of a row, rows that were removed, swapped or put in between.
What only an anchor finds: a tail that was cut off, a chain that was made anew from some row on. Hence two ranges: the
rows up to the last checkpoint of an anchor are *anchored*, those after it are not, and may have been made anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from escalade.errors import BadInput
from escalade.registry.audit._book import Unreadable
from escalade.registry.audit._holding import Checkpoints
from escalade.registry.audit._shelf import reading
from escalade.registry.audit._walk import Walk
from escalade.registry.audit.anchors import Anchor, Checkpoint, as_anchor
from escalade.registry.audit.keys import Signer, load_key
from escalade.registry.stores.addresses import shown

SHOWN = 100
"""Findings and unfinished calls that are kept; all are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an untouched log doesn't have. `seq`: at which row, 0 for the log as a whole.

    `kind`: changed (a row, or the one before it), missing, inserted, damaged (unreadable), rewritten (the chain
    doesn't lead to a checkpoint), cut (the tail), checkpoint (one is missing or not genuine), schema.
    """

    seq: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"row {self.seq}: {self.detail}" if self.seq else self.detail


@dataclass(slots=True)
class Verification:
    """What `verify` found. Rows 1 to `anchored` are vouched for by an anchor, the others by nothing but their links.

    `rows`: in the log. `head`: hash of the last one, hex. `checkpoints`: how many of the anchors' were held against
    the chain. `signatures`: the algorithm by which all were checked, "not checked" without a key. `unfinished`: calls
    with an intent and no outcome, the first 100 of `unfinished_count`: they run, or their process died. `problems`:
    how many findings there are; `findings` has the first 100. `seconds`: how long it took.
    """

    path: str
    chain: str = ""
    rows: int = 0
    head: str = ""
    anchors: int = 0
    anchored: int = 0
    checkpoints: int = 0
    signatures: str = "not checked"
    unfinished: list[str] = field(default_factory=list)
    unfinished_count: int = 0
    problems: int = 0
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.problems

    @property
    def unanchored(self) -> int:
        """Rows after the last checkpoint of an anchor."""
        return max(0, self.rows - self.anchored)

    @property
    def vouched(self) -> bool:
        """Did the anchors that were given, if any, hold a checkpoint? Where they held none, they are not the anchors of
        this log, or were emptied; or its first checkpoint is still on its way.
        """
        return bool(self.checkpoints) or not self.anchors

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`."""
        from dataclasses import asdict

        return {"ok": self.ok, **asdict(self), "unanchored": self.unanchored, "vouched": self.vouched}

    def add(self, seq: int, kind: str, detail: str) -> None:
        """A finding."""
        self.problems += 1
        if len(self.findings) < SHOWN:
            self.findings.append(Finding(seq, kind, detail))


def verify(
    path: str | os.PathLike[str],
    anchors: Sequence[Anchor | str | os.PathLike[str]] = (),
    *,
    key: str | Signer | None = None,
) -> Verification:
    """Read the whole log once, in constant memory, also while others write to it.

    `path`: of the file, or the address of the database. `anchors`: files or `Anchor`s that can be read back. `key`:
    checks the signatures; the public half will do for Ed25519. Raises BadInput for what is not there, or is no audit
    log, StoreUnavailable for a database that doesn't answer.
    """
    began = time.perf_counter()
    result = Verification(shown(path), anchors=len(anchors))
    signer = load_key(key) if isinstance(key, str) else key
    # The anchors first: what they hold then, the log holds too, however much is written meanwhile.
    outside = [_read(as_anchor(anchor)) for anchor in anchors]
    try:
        with reading(path) as log:
            for name in log.amiss():
                result.add(0, "schema", f"{name} is not as the log made it")
            checkpoints = Checkpoints(log, outside, signer, result.add)
            walk = Walk(log, checkpoints, result.add)
            walk.run()
            checkpoints.finish(walk.rows)
            _fill(result, walk, checkpoints, signer)
    except Unreadable as error:
        result.add(0, "damaged", f"the log can't be read: {error}")
    result.seconds = time.perf_counter() - began
    return result


def _fill(result: Verification, walk: Walk, checkpoints: Checkpoints, key: Signer | None) -> None:
    result.chain, result.rows = walk.chain, walk.rows
    result.head = walk.head.hex() if isinstance(walk.head, bytes) else ""
    result.anchored, result.checkpoints = checkpoints.anchored, checkpoints.held
    result.unfinished, result.unfinished_count = list(walk.running)[:SHOWN], len(walk.running)
    if key is not None:
        result.signatures = key.algorithm


def _read(anchor: Anchor) -> list[Checkpoint]:
    try:
        return list(anchor.read())
    except OSError as error:
        raise BadInput(f"{anchor!r}: {error.strerror}") from error
