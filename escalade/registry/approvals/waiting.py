"""A call that waits for a person: it is refused, waits, and then tries again from the first gate on.

While it waits it holds nothing: no place in a rate limit, no money. What changed in the meantime counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from escalade.errors import ApprovalRequired
from escalade.scopes import Desk, Scope, current

T = TypeVar("T")


def patient(admitted: Callable[[], T]) -> T:
    """Get admitted, waiting for a person where the scope's desk waits. Blocks this thread."""
    while True:
        try:
            return admitted()
        except ApprovalRequired as refusal:
            scope, desk = _desk(refusal)
            if desk is None or not desk.wait(refusal.request_id, scope.time_left()):
                raise


async def apatient(admitted: Callable[[], Awaitable[T]]) -> T:
    """`patient`, without blocking the event loop."""
    while True:
        try:
            return await admitted()
        except ApprovalRequired as refusal:
            scope, desk = _desk(refusal)
            if desk is None or not await desk.await_(refusal.request_id, scope.time_left()):
                raise


def _desk(refusal: ApprovalRequired) -> tuple[Scope, Desk | None]:
    scope = current()
    assert scope is not None  # noqa: S101 - without one it would have been refused for that
    desk = scope.approvals
    return scope, desk if desk is not None and desk.waits and refusal.request_id else None
