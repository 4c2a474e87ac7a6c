"""What `Resilient` does on its way: calls of programs, each in a scope of its own, and questions to what is kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import dspy

from escalade import events
from escalade.scopes import Entered, Entry, Scope


class Call(NamedTuple):
    """Call this program, for so many seconds at most."""

    program: dspy.Module
    seconds: float | None


class Ask(NamedTuple):
    """Do this, which may ask a store."""

    what: Callable[[], Any]


@dataclass(slots=True)
class Seen:
    """What happened in one call; listens to its scope."""

    used: set[tuple[str, str, str]]
    hits: int = 0
    uses: int = 0
    fell_back: str = ""
    approved: bool = False

    def __call__(self, event: Any) -> None:
        if isinstance(event, events.Settled):
            self.uses += 1
            self.approved = self.approved or event.approved
            if event.permission:
                self.used.add((event.permission, event.effect, event.resource))
        elif isinstance(event, events.CacheHit):
            self.hits += 1
        elif isinstance(event, events.FellBack):
            self.fell_back = event.model


@dataclass(slots=True)
class Tried:
    """How one call ended."""

    seen: Seen
    result: Any = None
    error: Exception | None = None
    whole: bool = True


def record(scope: Scope, name: str, source: str) -> None:
    """An answer of before is given. Raises AuditUnavailable: then it isn't."""
    entry = Entry(
        call_id=f"kept-{uuid.uuid4().hex[:16]}",
        run_id=scope.run_id,
        principal=scope.principal,
        resource=name,
        version="",
        kind="program",
        started=time.time(),
        side_effects="read",
        policy_digest=getattr(scope.access, "digest", ""),
        principals=scope.principals,
        source=source,
    )
    scope.recorder.intent(entry)
    entry.outcome = "ok"
    scope.recorder.outcome(entry)


def within(scope: Scope, step: Call, seen: Seen) -> Entered:
    """A scope for one call: its refusals stay in it, and its time may be shorter."""
    return Entered(lambda: scope.narrow(name="try", deadline=step.seconds, optional=True, listeners=(seen,)))
