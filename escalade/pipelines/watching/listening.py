"""Listening to whatever runs in a block: what `escalade.live()` and `escalade.profile()` have in common."""

from __future__ import annotations

import dataclasses
from types import TracebackType
from typing import Any, Self

import dspy

from escalade import events, scopes


def heard_by(listener: Any) -> tuple[str, dict[str, Any]]:
    """A run id, and settings under which `listener` hears what happens, besides those who do already."""
    scope = scopes.current()
    if scope is None:
        run_id, listeners = events.unscoped()
        run_id = run_id or events.new_run_id()
        return run_id, {events.LISTEN: (run_id, (*listeners, listener))}
    return scope.run_id, {scopes.KEY: dataclasses.replace(scope, listeners=(*scope.listeners, listener))}


class Listening:
    """A listener that is one by `with` or `async with`: hears all runs of the block, in scopes of their own, too.

    Handed to a scope or a stream as a listener it works without the block.
    """

    def __init__(self) -> None:
        self._contexts: list[Any] = []
        self._last: tuple[Any, ...] = ()

    def _again(self, event: events.Event) -> bool:
        """Was it told just now? Who listens by a block and to a scope in it hears everything twice."""
        before, self._last = self._last, (event.seq, event.run_id, event.path, type(event))
        return before == self._last

    def __call__(self, event: events.Event) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        context = dspy.context(**heard_by(self)[1])
        context.__enter__()
        self._contexts.append(context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._contexts.pop().__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
