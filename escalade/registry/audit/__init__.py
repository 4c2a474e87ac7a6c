"""The audit: a record of every use that can be checked, by people who trust neither the program nor its machine.

    log         AuditLog, the `Recorder`: durable rows, group commit, refusal when nothing can be recorded
    rows        what a row says, and what it leaves out; digests
    chain       how each row's hash is made from the one before it
    anchors     checkpoints, and the outside places that keep them
    keys        keys that sign checkpoints
    verify      is it the log that it was?
    reading     tail, export, follow
    entries     rows read back as what they record: for usage, and for policies that are to be tried

What holds:

- An intent is recorded before a use, an outcome after it, a denial instead of both. A use that can't be recorded
  doesn't happen. What has happened and can't be recorded is kept, counted, told by `AuditLog.health` and raised when
  the log is closed.
- A crash leaves a log that verifies. An intent without its outcome is `unfinished`: it may have happened.
- A change to any row is found. So are a tail that was cut and a chain that was made anew, back to the last checkpoint
  that an anchor holds. After that, rows are not anchored, and `verify` says how many these are.

What doesn't: whoever controls the process can write what he likes from then on, and can leave out what he likes; he
can't change what an anchor vouches for. A row says what a use was, not that its principal was who he said he was.

**Keeping and forgetting.** Rows can't be taken out: that is the point. So nothing is put in that a person may ask to
have erased, but user and tenant: make these pseudonyms, keep the table of who is who elsewhere, and erase there.
Arguments and results of tools stand as digests; with a pepper (`AuditLog(..., pepper="env:NAME")`) that is thrown away
one day, they become unlinkable, and the chain stays whole. To keep logs for a limited time, begin a new file or
database (and a new anchor file) each month or quarter, and delete it whole when its time is up; its last checkpoint, a
line of 400 bytes, may stay as proof that it ended where it did.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from escalade.errors import AuditIncomplete, AuditUnavailable

if TYPE_CHECKING:
    from escalade.registry.audit.anchors import Anchor, CallAnchor, Checkpoint, FileAnchor
    from escalade.registry.audit.log import AuditLog, Health
    from escalade.registry.audit.rows import digest

__all__ = [
    "Anchor",
    "AuditIncomplete",
    "AuditLog",
    "AuditUnavailable",
    "CallAnchor",
    "Checkpoint",
    "FileAnchor",
    "Health",
    "digest",
]

_HOME = {
    "Anchor": "anchors",
    "AuditLog": "log",
    "CallAnchor": "anchors",
    "Checkpoint": "anchors",
    "FileAnchor": "anchors",
    "Health": "log",
    "digest": "rows",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once. `verify` stays the module: its function has the same name."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
