"""The layers around a node that was told more than a timeout, from the outside in: cache, once, fallback, retry, hedge,
group, timeout. A node without any of them never comes here.

Retries and hedges are attempts of one step. Each attempt records what an optimiser wants to know on its own, and that
of the attempt which gave the result counts. An attempt that blocks a thread has a scope of its own, which closes with
it: the thread, that nobody can stop, can't spend any more then. So has a hedge: a refusal in it exhausts no budget but
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import dspy

from escalade import events, scopes, telemetry
from escalade.errors import BadInput, BudgetExceeded, DeadlineExceeded, ScopeError
from escalade.money import Money
from escalade.pipelines import _errors
from escalade.pipelines.options._identity import code_of, key_of
from escalade.pipelines.options._last import FEW, Last
from escalade.pipelines.options.groups import HELD, Group, rank
from escalade.pipelines.options.hedge import KNOWN, Hedge, Hedges, hedged
from escalade.pipelines.options.retry import NodeRetry, retried
from escalade.pipelines.options.reuse import Kept, codec_of, joined, whole
from escalade.pipelines.values import NotPlain
from escalade.registry.elsewhere import aclosed
from escalade.scopes import Scope
from escalade.telemetry import names

if TYPE_CHECKING:
    from escalade.pipelines._node import Prepared
    from escalade.pipelines._run import Frame

logger = logging.getLogger(__name__)

_making = threading.Lock()

_WAITED = 0.001
"""Seconds from which on waiting for a place is told."""


class Memory:
    """What a node of one pipeline object remembers between its calls."""

    def __init__(self, prepared: Prepared) -> None:
        options, target = prepared.options, prepared.target
        self.durations, self.costs, self.hedges, self.told = Last(), Last(), Hedges(), False
        if options.reusable:
            self.code = code_of(target)
            inner = [module for _, module in target.named_sub_modules()] if prepared.module else [target]
            self.codec = codec_of(inner, () if options.cache is None else options.cache.types)
            self.kept = None if options.cache is None else Kept(prepared, options.cache, self.codec)

    @classmethod
    def of(cls, prepared: Prepared) -> Memory:
        """That of this node."""
        found: Memory | None = prepared.memory
        if found is None:
            with _making:  # two threads that begin at once must know the node by the same code
                found = prepared.memory
                if found is None:
                    found = prepared.memory = cls(prepared)
        return found


class Layers:
    """One call of a node. `scope`: the node's own, None outside of any. `trace`: what an optimiser records. `timed`:
    call the node once, within its timeout. `stand_in`: run its fallback.
    """

    def __init__(
        self,
        prepared: Prepared,
        fields: dict[str, Any],
        frame: Frame,
        path: str,
        scope: Scope | None,
        trace: list[Any] | None,
        timed: Callable[[], Awaitable[Any]],
        stand_in: Callable[[Prepared, dict[str, Any]], Awaitable[Any]],
    ) -> None:
        self._prepared, self._options, self._fields = prepared, prepared.options, fields
        self._frame, self._path, self._scope, self._trace = frame, path, scope, trace
        self._timed, self._stand_in = timed, stand_in
        self._memory = Memory.of(prepared)
        self._fell_back = False
        self._cancels = _cancels()
        self._failed: list[Any] = []

    # -- results of other calls

    async def reused(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """A result that is kept, or that is being made by an equal call; else that of `work`."""
        key = self._key()
        if key is None:
            return await work()
        kept = self._memory.kept
        if kept is not None:
            found = await kept.find(key)
            if found is not None:
                self._tell(events.NodeReused, source="cache")
                return found[0]
            work = partial(self._keeping, work, kept, key)
        if not self._options.once:
            return await work()
        told = partial(self._tell, events.NodeReused, source="joined")
        return await joined(key, work, self._time_left, f"node {self._path!r}", told)

    async def _keeping(self, work: Callable[[], Awaitable[Any]], kept: Kept, key: str) -> Any:
        result = await work()
        if not self._fell_back and whole(result, self._scope):
            await kept.keep(key, result)
        return result

    def _key(self) -> str | None:
        """What the call is known by; None while an optimiser records it, and where nobody can tell."""
        if self._trace is not None:
            return None
        memory, cache = self._memory, self._options.cache
        per = "tenant" if cache is None else cache.per
        try:
            return key_of(self._prepared, memory.code, self._fields, self._scope, memory.codec, per)
        except NotPlain as error:
            if not memory.told:
                memory.told = True
                logger.warning("calls of the node %r can't be told apart, so each is made: %s", self._path, error)
            return None

    # -- its own

    async def answer(self) -> Any:
        """The node's result, or its fallback's."""
        fallback = self._prepared.fallback
        if fallback is None:
            return await self._alone()
        try:
            with self._purse():
                return await self._alone()
        except Exception as error:
            if not self._falls_back(error):
                raise
            self._fell_back = True
            if self._scope is not None:
                self._scope.note_partial()
            self._tell(events.NodeFellBack, fallback=fallback.shown, error=_errors.text(error))
            try:  # in here, so that the failure of a fallback shows what it was to stand in for, as its context
                return await self._stand_in(fallback, _fields_of(fallback, self._fields))
            except Exception as second:
                failure = _errors.failed(fallback.name, second)
                if failure is second:
                    raise
                raise failure from second

    def _purse(self) -> contextlib.AbstractContextManager[Any]:
        """The node's own budget: its fallback doesn't depend on it, and the budgets above not on its refusals."""
        scope = self._scope
        if scope is None:
            return contextlib.nullcontext()
        budget = self._options.granted(scope, self._frame.base)
        return scopes.Entered(lambda: scope.narrow(name=self._path, budget=budget, optional=True))

    def _falls_back(self, error: Exception) -> bool:
        """Would a fallback be worth it? Not for mistakes of the caller, and not without time or money for anything."""
        scope = self._frame.scope
        if isinstance(error, BadInput | ScopeError) or _cancels() > self._cancels:  # or while it was being cancelled
            return False
        if scope is None:
            return True
        if isinstance(error, DeadlineExceeded):
            return scope.time_left() > 0
        return not isinstance(error, BudgetExceeded) or scope.purse.exhausted is None

    async def _alone(self) -> Any:
        """All attempts of the node itself."""
        self._check_time()
        self._check_money()
        try:
            retry = self._options.retry
            if retry is None:
                return await self._measured()
            began = asyncio.get_running_loop().time()
            return await retried(self._measured, partial(self._pause, retry, began), self._retrying, asyncio.sleep)
        except Exception:
            if self._prepared.fallback is None:
                self._record(self._failed)
            raise

    def _check_time(self) -> None:
        """Nothing is begun that can't end in time: not even the fastest of the last runs would have. What one can do
        without, or has a fallback for that may be faster, isn't begun when it would usually be late.
        """
        durations, left, fallback = self._memory.durations, self._time_left(), self._prepared.fallback
        spared = self._options.optional or fallback is not None
        if left == math.inf or len(durations) < (FEW if spared else KNOWN):
            return
        needed = durations.quantile(0.5 if spared else 0.0)
        if needed <= left:
            return
        if fallback is not None and durations.quantile(0.0) <= left < _usual_seconds(fallback):
            return
        raise DeadlineExceeded(f"not begun: it takes {needed:.3g} s or more, and {max(0.0, left):.3g} s are left")

    def _check_money(self) -> None:
        """What one can do without, or has a fallback for that there is money for, isn't begun when there is too little
        for what it usually costs.
        """
        costs, outer, fallback = self._memory.costs, self._scope, self._prepared.fallback
        scope = scopes.current()  # of the node alone, where it has a fallback
        if outer is None or scope is None or not (self._options.optional or fallback is not None):
            return
        left = scope.left
        if left is None or (fallback is None and len(costs) < FEW):
            return
        usual = int(costs.quantile(0.5)) if len(costs) >= FEW else _needed(self._prepared, self._fields)
        if usual is None or usual <= int(left):
            return
        if fallback is not None:
            other, rest = _needed(fallback, self._fields), outer.left
            if other is None or (rest is not None and other > int(rest)):
                return
        raise BudgetExceeded(f"not begun: it usually costs {Money(usual)}, and {left} is left")

    def _pause(self, retry: NodeRetry, began: float, error: Exception, tries: int) -> float | None:
        if _cancels() > self._cancels:  # it failed while it was being cancelled: nobody waits for another attempt
            return None
        if self._scope is not None and self._scope.purse.exhausted is not None:
            return None
        durations = self._memory.durations
        usual = durations.quantile(0.5) if len(durations) else 0.0
        left = retry.within - (asyncio.get_running_loop().time() - began)
        return retry.pause(error, tries, min(left, self._time_left() - usual))

    def _retrying(self, attempt: int, error: Exception, pause: float) -> None:
        self._tell(events.NodeRetried, attempt=attempt, error=_errors.text(error), pause=pause)

    async def _measured(self) -> Any:
        """One attempt, or two of which one begins later."""
        hedge, durations, loop = self._options.hedge, self._memory.durations, asyncio.get_running_loop()
        began = loop.time()
        after = None if hedge is None else hedge.seconds(durations)
        self._memory.hedges.begin()
        if hedge is None or after is None:
            result, records = await self._attempt(False)
        else:
            tell = partial(self._tell, events.NodeHedged, after=after)
            result, records = await hedged(self._attempt, after, partial(self._room, hedge), tell)
        # What a hedge cut short is known to take as long at least: else the percentile would fall and fall.
        durations.add(loop.time() - began)
        if self._scope is not None:
            self._memory.costs.add(self._scope.purse.spent)
        self._record(records)
        return result

    def _room(self, hedge: Hedge) -> bool:
        """Is there money for a second attempt that costs what the first has taken so far?"""
        scope = scopes.current()
        if self._scope is not None and scope is not None:
            left, taken = scope.left, self._scope.purse.spent + self._scope.purse.held
            if scope.purse.braked or (left is not None and int(left) < taken) or scope.closed:
                return False
        return self._memory.hedges.take(hedge.share)

    async def _attempt(self, second: bool) -> tuple[Any, list[Any]]:  # noqa: FBT001 (private)
        """Its result, and what an optimiser records of it."""
        records: list[Any] = []
        with contextlib.ExitStack() as stack:
            if self._trace is not None:
                stack.enter_context(dspy.context(trace=records))
            try:
                group = self._options.group
                if group is None:
                    return await self._tried(second=second), records
                async with self._place(group):
                    return await self._tried(second=second), records
            except Exception:
                self._failed = records
                raise

    async def _tried(self, *, second: bool) -> Any:
        scope, options = scopes.current(), self._options
        threaded = self._prepared.threaded
        if self._scope is None or scope is None or not (threaded or second or options.hedge is not None):
            return await self._timed()
        deadline = options.timeout if threaded else None
        make = partial(scope.narrow, name=self._path, deadline=deadline, optional=second)
        with scopes.Entered(make, check=second) as mine:
            try:
                return await self._timed()
            finally:
                await aclosed(mine)

    @contextlib.asynccontextmanager
    async def _place(self, group: Group) -> AsyncIterator[None]:
        held: tuple[str, ...] = dspy.settings.get(HELD, ())
        if group.name in held:
            raise BadInput(f"group {group.name!r}: a node around this one has a place in it, and waits for this one")
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with group.queue.aturn(group.name, self._time_left(), rank()) as mine:
            if not mine:
                raise DeadlineExceeded(f"the deadline passed while it waited for a place in group {group.name!r}")
            waited = loop.time() - began
            if waited >= _WAITED:
                self._tell(events.NodeQueued, seconds=waited)
                spanning = dspy.settings.get(telemetry.SPAN)
                if spanning is not None:
                    spanning.count(names.QUEUE, waited)
            with dspy.context(**{HELD: (*held, group.name)}):
                yield

    # -- the rest

    def _record(self, records: list[Any]) -> None:
        if self._trace is not None:
            self._trace.extend(records)

    def _time_left(self) -> float:
        return math.inf if self._scope is None else self._scope.time_left()

    def _tell(self, kind: type[events.Event], **values: Any) -> None:
        self._frame.tell(kind, self._path, **values)


def _needed(prepared: Prepared, fields: dict[str, Any]) -> int | None:
    """Nano-dollars that it must find."""
    from escalade.pipelines.options._takes import takes

    return takes(prepared, fields)[0]


def _usual_seconds(prepared: Prepared) -> float:
    from escalade.pipelines.options._takes import usual_seconds

    return usual_seconds(prepared)


def _fields_of(fallback: Prepared, fields: dict[str, Any]) -> dict[str, Any]:
    if fallback.wants.positional and len(fields) == 1:
        return fields
    try:
        return fallback.select(fields)
    except KeyError as missing:
        field = missing.args[0]
    raise BadInput(f"it needs {field!r}; the node that it stands in for got: {', '.join(fields) or 'no fields'}")


def _cancels() -> int:
    """How often the task at work has been told to end."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
