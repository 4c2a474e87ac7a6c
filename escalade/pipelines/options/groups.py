"""Groups: so many nodes at once, in whatever pipelines, tasks, event loops and threads of the process they are.

    gpu = Group("gpu", 4)
    FanOut(a=node(first, group=gpu), b=node(second, group=gpu))

Waiting for a place takes none, ends with the scope's deadline, and is fair: the higher priority goes first, then who
came first. A place is given back however the node ends.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from escalade.agents.lanes.priority import RANK, current_priority
from escalade.errors import BadInput, UnknownName
from escalade.registry.queues import Queues

HELD = "escalade_groups"
"""The key of `dspy.context` that carries the names of the groups that the nodes around here have a place in."""

_queues: dict[str, Queues] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Group:
    """`limit` places by the name of `name`. Two objects with the same name are the same group. Raises BadInput, also
    when the group is known with another limit.

    >>> Group("printers", 2) == Group("printers", 2)
    True
    """

    name: str
    limit: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise BadInput(f"a group needs a name, got {self.name!r}")
        if not isinstance(self.limit, int) or isinstance(self.limit, bool) or self.limit < 1:
            raise BadInput(f"group {self.name!r}: expected a limit of 1 or more at once, got {self.limit!r}")
        known = self.queue.places
        if known != self.limit:
            raise BadInput(f"group {self.name!r} has a limit of {known} in this process, not {self.limit}")

    @property
    def queue(self) -> Queues:
        """Those who have a place, and those who wait."""
        with _lock:
            return _queues.setdefault(self.name, Queues(self.limit))

    @classmethod
    def of(cls, given: Any) -> Group:
        """A group, or the one of this name. Raises UnknownName, BadInput."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, str):
            raise BadInput(f"group: expected a Group or the name of one, got {given!r}")
        known = _queues.get(given)
        if known is None:
            raise UnknownName("group", given, list(_queues))
        return cls(given, known.places)


def rank() -> int:
    """The priority here: the nearest node's, unless a `with priority(...)` around the call says the other side."""
    import dspy

    found: int = dspy.settings.get(RANK, 0)
    batch = current_priority() == "batch"
    if batch == (found < 0):
        return found
    return -1 if batch else 0
