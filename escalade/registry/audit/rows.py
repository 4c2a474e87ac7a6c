"""Rows of the log: what they say of a use, in canonical JSON.

A body is JSON in ASCII with sorted keys, without spaces and without floats: money in nano-dollars, times in
microseconds. It names who, what, when, by which rule, and at what price. It never holds an argument, a result or the
message of an error: digests and class names stand for them, so that the log can be kept, copied and handed to an
auditor. Names in which personal data is found (a user who is called by his e-mail address) have an alias in their
place, see `registry/privacy/names.py`. A bare digest of a guessable value (a phone number) can be guessed: give
`digest` a pepper.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pydantic_core import to_jsonable_python

from escalade.registry.privacy.names import alias
from escalade.scopes import Entry, Principal

GENESIS, OPENED, CLOSED, GAP = "genesis", "opened", "closed", "gap"
INTENT, OUTCOME, DENIED = "intent", "outcome", "denied"
"""Events. A file begins with its genesis; each process says when it opened and closed the log; a gap counts denials
that could not be recorded one by one."""

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


@dataclass(frozen=True, slots=True)
class Row:
    """One row as read. `at`: microseconds since 1970. `call`: the use that it is about. `hash`: 32 bytes."""

    seq: int
    at: int
    event: str
    call: str
    body: bytes
    hash: bytes

    def fields(self) -> dict[str, Any]:
        """What the body says. Raises ValueError for a body that is no JSON object: it was tampered with."""
        found = json.loads(self.body)
        if not isinstance(found, dict):
            raise ValueError(f"row {self.seq}: the body is no JSON object")  # noqa: TRY004 - a value of a file
        return found

    def to_json(self) -> str:
        """One line. The body is in it as it is, so that its hash can be worked out again."""
        columns = {"seq": self.seq, "at": self.at, "event": self.event, "call": self.call}
        head = _encode(columns | {"hash": self.hash.hex()})
        return f'{head[:-1]},"body":{self.body.decode("ascii", "backslashreplace")}}}'


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def canonical(value: dict[str, Any]) -> bytes:
    """The JSON that is hashed and signed."""
    return _encode(value).encode()


def body_of(entry: Entry, event: str, writer: str) -> bytes:
    """What the log says of an entry. A snapshot: entries go on to change.

    `writer`: the process's mark. `behalf`: on whose behalf he acts, who had to be allowed too. The error of a denial is
    its class, which is its outcome: the message may quote an argument.
    """
    who = entry.principal
    tenant, user, roles = _named(who)
    said: dict[str, Any] = {
        "user": user,
        "tenant": tenant,
        "roles": roles,
        "run": alias(entry.run_id),
        "resource": alias(entry.resource),
        "version": entry.version,
        "kind": entry.kind,
        "rule": alias(entry.rule),
        "decision": "deny" if event == DENIED else "allow",
        "held": int(entry.held),
        "priced": bool(entry.priced),
        "started_us": int(entry.started * 1e6),
        "writer": writer,
    }
    if event == OUTCOME:
        said |= {"cost": int(entry.cost), "took_us": int(entry.seconds * 1e6)}
        said |= {"outcome": entry.outcome, "error": alias(entry.error)}
    elif event == DENIED:
        said |= {"outcome": entry.outcome, "error": entry.outcome}
    said |= {name: value for name, value in _further(entry, who).items() if value}
    return canonical(said)


def _named(who: Principal) -> list[Any]:
    return [alias(who.tenant), alias(who.user), sorted(map(alias, who.roles))]


def _further(entry: Entry, who: Principal) -> dict[str, Any]:
    """What many uses don't have: left out of the row where it is empty, which is a third of its bytes."""
    return {
        "side_effects": entry.side_effects,
        "permission": entry.permission,
        "schema": entry.schema_digest,
        "args": entry.args_digest,
        "result": entry.result_digest,
        "policy": entry.policy_digest,
        "approval": entry.approval_id,
        "unchecked": entry.unchecked,
        "source": entry.source,
        "behalf": [_named(p) for p in entry.principals if p != who],
        "invalid": [alias(name) for name in entry.invalid],
        "redactions": {str(kind): int(count) for kind, count in entry.redactions.items()},
    }


def _plain(value: Any) -> Any:
    """What stands for a value that is no JSON. An iterator is not read: that would use it up."""
    return _told(value) if isinstance(value, Iterator) else to_jsonable_python(value, fallback=_told)


def _told(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a digest never stops a call
        return f"<{type(value).__qualname__}>"


def digest(value: Any, pepper: bytes = b"") -> str:
    """`sha256:…` of a value's canonical JSON, `hmac-sha256:…` with a pepper; models and dataclasses count as their
    JSON, what has none as its `repr`.

    Floats are written as Python writes them, the shortest text that reads back the same.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    except Exception:  # noqa: BLE001 - keys of several kinds, circles, and whatever somebody's class raises
        text = _told(value)
    data = text.encode()
    if pepper:
        return f"hmac-sha256:{hmac.digest(pepper, data, 'sha256').hex()}"
    return f"sha256:{sha256(data).hexdigest()}"
