"""Requests in memory: the fake of the store, and enough where nothing has to survive the process."""

from __future__ import annotations

import builtins
import threading
from dataclasses import replace

from escalade.registry.approvals.requests import Request, State


class MemoryRequests:
    """Requests of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[str, Request] = {}

    def open(self, request: Request) -> Request:
        """The newest live request of the same key, else this one."""
        with self._lock:
            for kept in reversed(self._requests.values()):
                if kept.key == request.key and kept.at(request.created).state in {"pending", "approved", "denied"}:
                    return kept
            self._requests[request.id] = request
            return request

    def given(self, key: str, now: float) -> builtins.list[Request]:
        """Approved ones of this key, newest first: still good, or used."""
        with self._lock:
            kept = [one for one in reversed(self._requests.values()) if one.key == key]
        return [one for one in kept if one.at(now).state in {"approved", "used"}]

    def get(self, request_id: str) -> Request | None:
        """By its id."""
        return self._requests.get(request_id)

    def list(self) -> builtins.list[Request]:
        """All, oldest first."""
        with self._lock:
            return [*self._requests.values()]

    def decide(self, request_id: str, state: State, by: str, reason: str, now: float) -> bool:
        """Approve or deny a pending one."""
        decided = {"state": state, "decided_by": by, "reason": reason, "decided_at": now}
        return self._change(request_id, "pending", now, decided)

    def use(self, request_id: str, call_id: str, now: float) -> bool:
        """Spend an approval."""
        return self._change(request_id, "approved", now, {"state": "used", "used_by": call_id, "used_at": now})

    def give_back(self, request_id: str, call_id: str) -> None:
        """What this call spent is approved again."""
        with self._lock:
            kept = self._requests.get(request_id)
            if kept is not None and kept.state == "used" and kept.used_by == call_id:
                self._requests[request_id] = replace(kept, state="approved", used_by="", used_at=0.0)

    def _change(self, request_id: str, state: State, now: float, change: dict[str, object]) -> bool:
        with self._lock:
            kept = self._requests.get(request_id)
            if kept is None or kept.at(now).state != state:
                return False
            self._requests[request_id] = replace(kept, **change)  # type: ignore[arg-type]
            return True
