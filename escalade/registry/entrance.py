"""The way to the guard for tools that wait: for room in a rate limit, and for one of the places that run at once.

Who may not use a tool doesn't wait for it: he goes straight to the guard, which says so. Nobody waits longer than the
deadline of his scope; then the guard refuses, and records that. A tool's own timeout bounds the wait for a place, which
somebody has who should be done by then; not that for a limit, which nobody is late in.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

from escalade import telemetry
from escalade.errors import Overloaded, RateLimited, StoreUnavailable
from escalade.registry.elsewhere import elsewhere
from escalade.registry.guard import Resource
from escalade.registry.queues import Queues
from escalade.scopes import Scope, current

T = TypeVar("T")

_PLACES = "places"


class Entrance:
    """Of one tool. `wait`: for room in its rate limits. `places`: how many calls run at once, None for any number; who
    waits longer than `patience` seconds for one of them is refused (Overloaded).
    """

    def __init__(self, resource: Resource, *, wait: bool, places: int | None, patience: float | None) -> None:
        self._resource, self._patience = resource, math.inf if patience is None else patience
        self._lines = Queues() if wait and resource.limits else None
        self._places = None if places is None else Queues(places)

    @contextmanager
    def place(self) -> Iterator[Overloaded | None]:
        """Around a whole call: one of the places, or the refusal when none became free in time."""
        scope = None if self._places is None else self._scope()
        if self._places is None or scope is None:
            yield None
            return
        began = time.perf_counter()
        with self._places.turn(_PLACES, min(self._patience, scope.time_left())) as mine:
            telemetry.waited("tool", self._resource.name, began)
            yield None if mine else self._overloaded()

    @asynccontextmanager
    async def aplace(self) -> AsyncIterator[Overloaded | None]:
        """`place`, without blocking the event loop."""
        scope = None if self._places is None else self._scope()
        if self._places is None or scope is None:
            yield None
            return
        began = time.perf_counter()
        async with self._places.aturn(_PLACES, min(self._patience, scope.time_left())) as mine:
            telemetry.waited("tool", self._resource.name, began)
            yield None if mine else self._overloaded()

    def left(self, job: Future[Any]) -> None:
        """A job that nobody waits for any more goes on: it has its place until it ends."""
        if self._places is not None:
            self._places.occupy(_PLACES, job)

    def admitted(self, attempt: Callable[[], T]) -> T:
        """`attempt()`, when it is one's turn and the limits have room."""
        scope = None if self._lines is None else self._scope()
        if self._lines is None or scope is None:
            return attempt()
        began = time.perf_counter()
        with self._lines.turn(self._line(scope), scope.time_left()):
            while True:
                wait = self._wait(scope)
                if wait is not None:
                    time.sleep(wait)
                telemetry.waited("tool", self._resource.name, began)
                try:
                    return attempt()
                except RateLimited as full:  # others were faster: another process, or a line of other keys
                    if not _worth(full, scope):
                        raise
                    time.sleep(full.retry_after or 0.0)

    async def aadmitted(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """`admitted`, without blocking the event loop."""
        scope = None if self._lines is None else self._scope()
        if self._lines is None or scope is None:
            return await attempt()
        began = time.perf_counter()
        async with self._lines.aturn(self._line(scope), scope.time_left()):
            while True:
                if self._resource.remote:
                    wait = await elsewhere(partial(self._wait, scope))
                else:
                    wait = self._wait(scope)
                if wait is not None:
                    await asyncio.sleep(wait)
                telemetry.waited("tool", self._resource.name, began)
                try:
                    return await attempt()
                except RateLimited as full:
                    if not _worth(full, scope):
                        raise
                    await asyncio.sleep(full.retry_after or 0.0)

    def _scope(self) -> Scope | None:
        """The scope of a caller who may wait."""
        scope = current()
        if scope is None or not scope.permits(self._resource.permission, self._resource.effect).allowed:
            return None
        return scope

    def _line(self, scope: Scope) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for key, _ in self._resource.windows(scope)))

    def _wait(self, scope: Scope) -> float | None:
        """Seconds until there is room; None for none to wait, or for too many, which is the guard's to say."""
        try:
            wait = self._resource.limiter.wait(self._resource.windows(scope))
        except StoreUnavailable:
            return None
        return wait if 0.0 < wait < scope.time_left() else None

    def _overloaded(self) -> Overloaded:
        places = 0 if self._places is None else self._places.places
        return Overloaded(f"tool {self._resource.label!r} runs {places} calls at once, and none ended in time")


def _worth(full: RateLimited, scope: Scope) -> bool:
    return full.retry_after is not None and full.retry_after < scope.time_left()
