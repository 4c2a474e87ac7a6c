"""Marks of budgets that are crossed, told once over all processes.

Each process sees by itself that an account has crossed a mark. Who is first to claim it in the store tells it; the
others keep silent until the next period, or until the limit is changed. A process that dies before it has told leaves
that to another one. So a crossing is told once; twice only where the process died in the moment between the two.

A process without a listener claims nothing. A claim that the store can't take now is made later.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from escalade.errors import StoreUnavailable

if TYPE_CHECKING:
    from escalade.registry.ledger import Crossing

T = TypeVar("T")


class Claims(Protocol):
    """What a store knows of crossings. Every method is one transaction, and raises StoreUnavailable."""

    def claim(self, crossing: Crossing) -> bool:
        """Is it ours to tell? It is for the first who asks, once in a period."""
        ...

    def told(self, crossing: Crossing) -> None:
        """It was told."""
        ...

    def inherit(self, now: float) -> list[Crossing]:
        """Those of periods that go on that dead processes have claimed and not told; they are ours now."""
        ...


class Teller:
    """Tells crossings that it could claim.

    `ask`: calls a function of the store at a moment when that may be done. `announce`: tells one; where it returns a
    Future, it is told when that is done.
    """

    def __init__(
        self, store: Claims, ask: Callable[[Callable[[], Any]], Any], announce: Callable[[Crossing], object]
    ) -> None:
        self._store, self._ask, self._announce = store, ask, announce
        self._later: deque[Crossing] = deque()

    def forked(self) -> None:
        """What waits is the parent's."""
        self._later.clear()

    def tell(self, crossing: Crossing) -> None:
        """Tell it, if it is ours to tell."""
        try:
            ours = self._ask(lambda: self._store.claim(crossing))
        except StoreUnavailable:
            self._later.append(crossing)
            return
        if ours:
            self._told(crossing)

    def catch_up(self, now: float) -> None:
        """Tell what had to wait, and what the dead have left. Raises StoreUnavailable."""
        for _ in range(len(self._later)):
            self.tell(self._later.popleft())
        for crossing in self._ask(lambda: self._store.inherit(now)):
            self._told(crossing)

    def _told(self, crossing: Crossing) -> None:
        said = self._announce(crossing)
        if isinstance(said, Future):
            said.add_done_callback(lambda done: self._done(crossing, done))
        else:
            self._note(crossing)

    def _done(self, crossing: Crossing, done: Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._note(crossing)

    def _note(self, crossing: Crossing) -> None:
        with contextlib.suppress(StoreUnavailable):  # should we die before it can be noted, it is told twice
            self._ask(lambda: self._store.told(crossing))
