"""Calls of a durable run: the key by which the journal of the run knows a call of a model or a tool."""

from __future__ import annotations

import hashlib
import json

from escalade.registry.idempotency import step_path


def journal_key(*what: str | bytes) -> str:
    """The step here, and what is asked for there. The journal tells equal calls of one step apart by their order."""
    asked = hashlib.sha256()
    for part in what:
        text = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        asked.update(b"%d:" % len(text) + text)
    return f"{json.dumps(step_path(), separators=(',', ':'))}|{asked.hexdigest()[:40]}"
