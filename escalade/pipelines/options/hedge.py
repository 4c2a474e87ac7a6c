"""Hedging: where a node's answer is late, a second attempt begins beside the first, and the first answer counts.

Dean and Barroso, "The Tail at Scale" (2013): with a second request after the 95th percentile, a few percent more work
take away most of the slow answers. The loser is cancelled, waited for and settled; both are billed. A second attempt
begins only while the budget has room for what the first has taken so far, and no more than a share of the runs has one.
It must not be used where a node changes the world: what is known of its tools is checked where it is built.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from escalade.errors import BadInput
from escalade.pipelines.options._last import Last
from escalade.registry.governed import GovernedTool

KNOWN = 20
"""Runs that have to be known before their 95th percentile says anything."""

_HARMLESS = frozenset({"none", "read"})


@dataclass(frozen=True, slots=True)
class Hedge:
    """`after`: seconds, or "p95" (any "p50" to "p99"): that percentile of the node's own last runs, as soon as 20 of
    them are known. `share`: of all runs of the node, at most so many get a second attempt, and one besides. Raises
    BadInput.

    >>> Hedge("p95", share=0.05).share
    0.05
    """

    after: float | str = "p95"
    share: float = 0.1

    def __post_init__(self) -> None:
        given: Any = self.after
        if isinstance(given, str):
            good = given[:1] == "p" and given[1:].isdecimal() and 50 <= int(given[1:]) <= 99
        else:
            good = isinstance(given, int | float) and not isinstance(given, bool) and given > 0
        if not good:
            raise BadInput(f"hedge: expected seconds, or a percentile such as 'p95', got {given!r}")
        if not 0 < self.share <= 1:
            raise BadInput(f"hedge: expected a share of the runs, more than 0 and at most 1, got {self.share!r}")

    def check(self, target: Any, where: str) -> None:
        """Raises BadInput for a node whose tools are known to change the world each time that they are called. What is
        used `once` is used once in both attempts, since they are one step.
        """
        for tool in tools_of(target):
            spec = tool.spec
            if spec.side_effects not in _HARMLESS and not (spec.once or spec.idempotent):
                raise BadInput(
                    f"hedge of {where}: its tool {tool.spec.name!r} has side effects ({tool.spec.side_effects}), and a "
                    f"second attempt would have them twice"
                )

    def seconds(self, durations: Last) -> float | None:
        """When the second attempt begins, None for never."""
        if not isinstance(self.after, str):
            return float(self.after)
        return durations.quantile(int(self.after[1:]) / 100) if len(durations) >= KNOWN else None


class Hedges:
    """How many runs of a node there were, and how many got a second attempt. Thread-safe."""

    __slots__ = ("_lock", "hedged", "runs")

    def __init__(self) -> None:
        self.runs = self.hedged = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """One more run."""
        with self._lock:
            self.runs += 1

    def take(self, share: float) -> bool:
        """May this run have a second attempt? It has one then."""
        with self._lock:
            if self.hedged >= 1 + share * self.runs:
                return False
            self.hedged += 1
            return True


def tools_of(target: Any) -> Iterator[GovernedTool]:
    """The governed tools that a node is, holds, or uses in its code, as far as one can look."""
    from escalade.pipelines.checking._reach import users_of

    if isinstance(target, GovernedTool):
        yield target
        return
    modules = [target] if isinstance(target, dspy.Module) else []
    with contextlib.suppress(OverflowError):
        for one in users_of(target):
            if isinstance(one, GovernedTool):
                yield one
            elif isinstance(one, dspy.Module):
                modules.append(one)
    for module in modules:
        for _, part in module.named_sub_modules():
            yield from _held(part)


def _held(module: dspy.Module) -> Iterator[GovernedTool]:
    """By name, in a list or in a dict."""
    for value in vars(module).values():
        held: Iterable[Any] = value.values() if isinstance(value, dict) else value
        if isinstance(held, GovernedTool) or not isinstance(value, dict | list | tuple):
            held = (value,)
        yield from (one for one in held if isinstance(one, GovernedTool))


async def hedged(
    attempt: Callable[[bool], Awaitable[Any]], after: float, allowed: Callable[[], bool], tell: Callable[[], None]
) -> Any:
    """The first answer of `attempt(False)` and, when that is late and it is `allowed`, `attempt(True)` beside it.

    Raises the first attempt's error when there is no answer. No attempt is alive when this returns, raises or is
    cancelled.
    """
    first = asyncio.ensure_future(attempt(False))
    running = {first}
    attempts = [first]
    try:
        await asyncio.wait(running, timeout=after)
        if not first.done() and allowed():
            tell()
            attempts.append(asyncio.ensure_future(attempt(True)))
            running.add(attempts[1])
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled() and task.exception() is None:
                    return task.result()
        return first.result()
    finally:
        await _ended(attempts)


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel them and wait until they have ended, whatever comes between."""
    left: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait([task for task in tasks if not task.done()])
        except asyncio.CancelledError as error:
            left = error
            for task in tasks:
                task.cancel()
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: the loser's error is nobody's
    if left is not None:
        raise left
