"""Asking a store that processes share, from a coroutine: in a thread of ours, so that no event loop waits for it.

A healthy store answers in a fraction of a millisecond. One that hangs takes until its timeout, for each caller in turn,
and all that the loop does would stand still meanwhile. Memory is asked directly: a thread would cost more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from escalade.registry.workers import Workers
    from escalade.scopes import Scope

T = TypeVar("T")

THREADS = 4
"""Not those of tools: 64 tools that block must not keep anybody from being admitted. More would not be faster: a ledger
asks its store for one caller after the other, and to start a thread takes the loop's time."""


def is_remote(part: Any) -> bool:
    """Does this purse, limiter or ledger ask a store that processes share? Says so by an attribute `remote`."""
    return bool(getattr(part, "remote", False))


async def elsewhere(do: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """`do()` in a thread, with a copy of this context.

    It is always waited for to its end. Cancelled meanwhile, `undo` takes its result back, in a thread as well; then the
    cancellation goes on.
    """
    future: asyncio.Future[T] = asyncio.wrap_future(_threads().submit(do))
    left: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            left = error
    if left is None:
        return future.result()
    if future.exception() is None and undo is not None:
        result = future.result()
        await elsewhere(lambda: undo(result))
    raise left


async def aclosed(scope: Scope) -> None:
    """Close a scope: what threads still hold in it is settled, in a thread where a store is asked for that."""
    if scope.purse.held and is_remote(scope.purse):
        await elsewhere(scope.close)
    else:
        scope.close()


def in_background(do: Callable[[], object]) -> None:
    """`do()` in a thread, some time; nobody waits for it, and what it raises is lost."""
    _threads().submit(do)


@cache
def _threads() -> Workers:
    from escalade.registry.workers import Workers

    return Workers(THREADS)
