"""What the audit raises. AuditUnavailable: the use did not happen. AuditIncomplete: raised on closing."""

from __future__ import annotations

from escalade.errors import EscaladeError, Refused


class AuditUnavailable(Refused):
    """The use can't be recorded, so it does not happen: disk full, database gone, a full queue, a closed log.

    `retry_after`: seconds until the log tries again by itself, None when it never will. `reason`: what went wrong, for
    operators; the message has no paths, since models are shown it.
    """

    def __init__(self, message: str, retry_after: float | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.retry_after, self.reason = retry_after, reason

    def again(self) -> AuditUnavailable:
        """A fresh copy to raise: one exception object must not be raised by several threads."""
        return AuditUnavailable(str(self), self.retry_after, self.reason)


class AuditIncomplete(EscaladeError):
    """The log was closed and lacks something: `unrecorded` rows, or `undelivered` checkpoints of the anchors."""

    def __init__(self, message: str, *, unrecorded: int = 0, undelivered: int = 0) -> None:
        super().__init__(message)
        self.unrecorded, self.undelivered = unrecorded, undelivered
