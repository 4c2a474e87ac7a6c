"""The events of a run, for who looks for them here; they live in `escalade.events`, where every room can emit them."""

from escalade.events import (
    Escalated,
    Event,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeStarted,
    RunCancelled,
    RunFailed,
    RunFinished,
    RungTried,
    RunStarted,
    Settled,
    ToolCalled,
    ToolDenied,
)

__all__ = [
    "Escalated",
    "Event",
    "NodeCancelled",
    "NodeFailed",
    "NodeFinished",
    "NodeStarted",
    "RunCancelled",
    "RunFailed",
    "RunFinished",
    "RunStarted",
    "RungTried",
    "Settled",
    "ToolCalled",
    "ToolDenied",
]
