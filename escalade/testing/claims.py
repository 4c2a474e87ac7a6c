"""Claims about what a run leaves behind: nothing that runs, nothing that is held, no more spent than that."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from escalade.money import Money
from escalade.scopes import Scope, current

PATIENCE = 1.0
"""Real seconds in which threads that were left behind may end."""

_OURS = ("escalade-node", "escalade-worker")
"""Names of threads that wait for work and do none; they are nobody's leak."""


@contextlib.contextmanager
def assert_no_leaks(scope: Scope | None = None) -> Iterator[None]:
    """The block leaves no task and no thread behind that it began, and nothing held of the budget of `scope` (the
    current one), whether it ends well or not. Raises AssertionError, which names what is left.

    >>> import escalade
    >>> with escalade.scope(budget="1.00"), assert_no_leaks():
    ...     escalade.Chain(words=lambda text: text.split())(text="to be").words
    ['to', 'be']
    """
    scope = current() if scope is None else scope
    tasks, threads = _tasks(), set(threading.enumerate())
    held = 0 if scope is None else scope.purse.held
    try:
        yield
    finally:
        left = [f"task {task.get_coro()!r}" for task in _tasks() - tasks if not task.done()]
        left += [f"thread {thread.name!r}" for thread in _lasting(threads)]
        more = 0 if scope is None else scope.purse.held - held
        if more > 0:
            left.append(f"{Money(more)} held")
    if left:
        raise AssertionError(f"left behind: {'; '.join(left)}")


def _tasks() -> set[asyncio.Task[Any]]:
    return {one for one in gc.get_objects() if isinstance(one, asyncio.Task) and not one.done()} - {_here()}


def _here() -> Any:
    return asyncio.current_task() if asyncio._get_running_loop() is not None else None


def _lasting(before: set[threading.Thread]) -> list[threading.Thread]:
    """New threads that don't end by themselves in a while."""
    left = [one for one in threading.enumerate() if one not in before and not one.name.startswith(_OURS)]
    until = time.monotonic() + PATIENCE
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    return [thread for thread in left if thread.is_alive()]


def assert_spent(
    scope: Scope, exactly: str | Decimal | Money | None = None, *, most: str | Decimal | Money | None = None
) -> None:
    """The scope has spent so many dollars, or `most`, and holds nothing. Raises AssertionError.

    >>> import escalade
    >>> with escalade.scope(budget="1.00") as scope:
    ...     scope.purse.reserve(5_000_000).settle(5_000_000)
    >>> assert_spent(scope, "0.005")
    """
    if scope.purse.held:
        raise AssertionError(f"{Money(scope.purse.held)} is held still")
    if exactly is not None and scope.spent != Money.of(exactly):
        raise AssertionError(f"spent {scope.spent}, expected {Money.of(exactly)}")
    if most is not None and scope.spent > Money.of(most):
        raise AssertionError(f"spent {scope.spent}, expected {Money.of(most)} at the most")
