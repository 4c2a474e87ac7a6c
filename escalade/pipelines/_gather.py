"""Branches at once under a rule: who fails is a status and not the end, who isn't needed any more is cancelled.

A fan-out or a map without a rule goes through `_group.py`, which costs half as much per node. Structured here too: when
`gather` is out, no branch is alive. It needs no `asyncio.TaskGroup`, since a branch's failure ends nothing by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import math
from collections.abc import AsyncIterable, Callable, Container, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from escalade import events, scopes
from escalade.errors import BudgetExceeded, JoinFailed
from escalade.pipelines import _errors, _run
from escalade.pipelines._group import END, _Places, _Source
from escalade.pipelines._timers import timed
from escalade.pipelines.joins import BranchStatus, Fold, Rule, Tally, Verdict, state_of

AHEAD, PART = 0.02, 0.05
"""A partial join ends that many seconds before the deadline of its scope, or that part of the time that is left, if
that is less: what is around it has the same deadline, and would drop it."""

AGAIN = 0.01
"""Seconds after which a branch that has not ended is cancelled once more, when time is up; then 2, 4, 8, ... times as
many."""

TOLD = 10
"""Branches that the message of a failure names."""

SHOWN = 100
"""Branches that the event of a join names."""

Start = Callable[[Any, Any, _run.Frame, list[Any] | None], Coroutine[Any, Any, Any]]


class Gathering:
    """One call: branches, started from an iterable, counted by a rule.

    `start(key, item, frame, trace)` makes a branch's coroutine; `names`: the keys, where they aren't 0, 1, 2, ...;
    `path`: of a key, in errors and events. `optional`: keys whose failure is no failure. `stagger`: seconds between
    two starts, unless one has failed meanwhile. `store`: keep results and statuses; without, memory is flat. `done`:
    told of each end but of those that were cancelled; what it returns is awaited, as back-pressure.
    """

    def __init__(
        self,
        frame: _run.Frame,
        by: Rule,
        start: Start,
        *,
        path: Callable[[Any], str],
        names: Sequence[str] | None = None,
        limit: int = 0,
        optional: Container[Any] = (),
        stagger: float | None = None,
        fold: Fold | None = None,
        store: bool = True,
        done: Callable[[Any, BranchStatus, Any], Any] | None = None,
    ) -> None:
        self.results: dict[Any, Any] = {}
        self.statuses: dict[Any, BranchStatus] = {}
        self.count = 0
        self._frame, self._rule, self._start, self._path = frame, by, start, path
        self._names, self._optional, self._stagger, self._fold, self._done = names, optional, stagger, fold, done
        self._store = store
        self._keeps = (store and fold is None) or by.until is not None
        self._tally = Tally(by, None if names is None else len(names))
        self._places = _Places(limit or len(names or ()))
        self._verdict, self._late = Verdict.GO_ON, False
        self._error: BaseException | None = None
        self._live: dict[Any, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._traces: dict[Any, list[Any]] = {}
        self._nudge: asyncio.Future[None] | None = None
        self._seconds = self._time()

    def _time(self) -> float:
        """Seconds that there are, inf without a limit."""
        if not self._rule.partial:
            return math.inf
        left = math.inf if self._frame.scope is None else self._frame.scope.time_left()
        left = max(0.0, left - min(AHEAD, PART * left)) if left < math.inf else left
        return left if self._rule.within is None else min(left, self._rule.within)

    async def gather(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Run it to its end: `results` and `statuses`.

        Raises what `_failure` says when it was impossible, and what the source of the items, `until` or `reduce`
        raises. Cancelled, it cancels all and waits for them.
        """
        loop = asyncio.get_running_loop()
        self._clock, self._over = loop.time, loop.create_future()
        self._until = self._clock() + self._seconds
        timer = None if self._seconds == math.inf else loop.call_later(self._seconds, self._time_up)
        with timed(self._until, self._time_up):  # for all that is begun by it
            self._feeder = self._spawn(self._feed(items))
        cancelled: asyncio.CancelledError | None = None
        try:
            await self._over
        except asyncio.CancelledError as error:
            cancelled = error
            self._decide(Verdict.IMPOSSIBLE)
            self._cancel_all()
        finally:
            if timer is not None:
                timer.cancel()
        cancelled = await self._wind_up() or cancelled
        if cancelled is not None:
            raise cancelled
        self._conclude()

    # -- starting

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended_task)
        return task

    def _ended_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # of the source; or Ctrl-C, which is nobody's failure
            self._abort(error)

    async def _feed(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Start a branch per item, as there are places."""
        places = self._places
        async with _Source(items) as source:
            while self._verdict is Verdict.GO_ON:
                if not places.free:
                    await places.wait()
                item = next(source.sync, END) if source.sync is not None else await source.draw()
                if item is END:
                    break
                places.free -= 1
                key = self.count if self._names is None else self._names[self.count]
                self.count += 1
                self._live[key] = self._spawn(self._branch(key, item))
                if self._stagger is not None:
                    await self._pause(self._stagger)
        self._tally.total = self.count
        self._judge(self._tally.look())

    async def _pause(self, seconds: float) -> None:
        self._nudge = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._nudge], timeout=seconds)

    # -- one branch

    async def _branch(self, key: Any, item: Any) -> None:
        began, purse = self._clock(), None
        frame = copy.copy(self._frame)  # of its own: in this one, a failure keeps nobody else from beginning
        trace = frame.branch_trace()
        if trace is not None:
            self._traces[key] = trace
        result, error = None, None
        try:
            with contextlib.ExitStack() as stack:
                outer = frame.scope
                if outer is not None:
                    # It checks: a branch that swallowed a refusal for want of money has not ended well.
                    frame.scope = stack.enter_context(scopes.Entered(lambda: self._narrowed(outer, key)))
                    purse = frame.scope.purse
                result = await self._start(key, item, frame, trace)
            if self._fold is not None and self._verdict is Verdict.GO_ON:
                await self._folded(self._fold, key, result)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  # it becomes a status
            error = raised
        finally:
            self._live.pop(key, None)
        status = self._status(key, error, self._clock() - began, None if purse is None else purse.spent)
        self._ended(key, status, result)
        try:
            tell = status.ok or self._verdict is Verdict.GO_ON
            if tell and self._done is not None and (kept := self._done(key, status, result)) is not None:
                await kept
        finally:
            self._places.leave()

    def _narrowed(self, outer: scopes.Scope, key: Any) -> scopes.Scope:
        """A scope of the branch: what it costs; and what it is refused exhausts nobody else, if one can do without."""
        left = self._until - self._clock()
        lenient = not self._rule.strict or key in self._optional
        return outer.narrow(name=self._path(key), deadline=None if left == math.inf else left, optional=lenient)

    async def _folded(self, fold: Fold, key: Any, result: Any) -> None:
        try:
            kept = fold.add(key, result)
            if kept is not None:
                await kept
        except Exception as error:
            self._abort(error)
            raise

    def _status(self, key: Any, error: BaseException | None, seconds: float, cost: int | None) -> BranchStatus:
        if self._verdict is not Verdict.GO_ON:
            late = error is None and self._verdict is Verdict.ENOUGH and self._rule.first is None
            if late:  # it is paid for, and nothing is waited for
                return BranchStatus("ok", seconds, cost)
            raised = None if error is None or isinstance(error, asyncio.CancelledError) else self._named(key, error)
            return BranchStatus("timeout" if self._late else "cancelled", seconds, cost, raised, self._why())
        if error is None:
            return BranchStatus("ok", seconds, cost)
        named = self._named(key, error)
        if key in self._optional:
            return BranchStatus("skipped", seconds, cost, named, _errors.text(error))
        return BranchStatus(state_of(error), seconds, cost, named)

    def _named(self, key: Any, error: BaseException) -> BaseException:
        return _errors.failed(self._path(key), error)

    def _why(self) -> str:
        if self._late:
            return "time was up"
        return "the others were enough" if self._verdict is Verdict.ENOUGH else "too many others had failed"

    # -- deciding

    def _ended(self, key: Any, status: BranchStatus, result: Any) -> None:
        if self._store or not (status.ok or self._rule.keep):
            self.statuses[key] = status
        if status.ok and self._keeps:
            self.results[key] = result
        if status.state == "skipped":
            self._frame.tell(events.NodeSkipped, self._path(key), why=status.why)
        if not status.ok and self._nudge is not None and not self._nudge.done():
            self._nudge.set_result(None)
        if self._verdict is not Verdict.GO_ON:
            return
        try:
            verdict = self._tally.ended(status.state, self.results)
        except Exception as error:  # noqa: BLE001  # whatever a user's `until` raises
            self._abort(_errors.failed("until", error))
            return
        if self._rule.strict and verdict is Verdict.IMPOSSIBLE and status.error is not None:
            self._abort(status.error)
        self._judge(verdict)

    def _judge(self, verdict: Verdict) -> None:
        if verdict is not Verdict.GO_ON and self._verdict is Verdict.GO_ON:
            self._decide(verdict)

    def _decide(self, verdict: Verdict) -> None:
        """It is over: nothing begins any more, and what isn't needed is cancelled."""
        self._verdict = verdict
        if not self._over.done():
            self._over.set_result(None)
        here = asyncio.current_task()
        for task in (self._feeder, *self._live.values()):
            if task is not here:
                task.cancel()

    def _time_up(self) -> None:
        if self._verdict is Verdict.GO_ON:
            self._late = True
            self._decide(self._tally.late(self._tally.total or self.count))

    def _abort(self, error: BaseException) -> None:
        self._error = self._error or error
        self._decide(Verdict.IMPOSSIBLE)

    # -- ending

    async def _wind_up(self) -> asyncio.CancelledError | None:
        """Wait until all have ended. Returns the cancellation that came from outside meanwhile."""
        cancelled, patience = None, AGAIN if self._late else None
        while self._tasks:
            try:
                await asyncio.wait(self._tasks, timeout=patience)
            except asyncio.CancelledError as error:
                cancelled = error
                self._cancel_all()
                continue
            if patience is not None:
                patience *= 2
                for task in self._live.values():
                    task.cancel()
        return cancelled

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _conclude(self) -> None:
        if self._store:
            keys = range(self.count) if self._names is None else self._names
            self.statuses = {key: self.statuses.get(key) or self._never(key) for key in keys}
            if self._frame.trace is not None:
                self._frame.merge([self._traces.get(key) for key in keys if self.statuses[key].ok])
        self._tell()
        if self._error is not None:
            raise self._error
        if self._verdict is Verdict.IMPOSSIBLE:
            raise self._failure()
        if self._frame.scope is not None and self._lacks():
            self._frame.scope.note_partial()

    def _lacks(self) -> bool:
        """Is it less than what was asked for?"""
        rule, good = self._rule, self._tally.good
        if rule.until is not None:
            return self._late
        return good < (self.count if rule.needs is None else rule.needs)

    def _tell(self) -> None:
        if self._frame.listeners:
            lost = ((self._path(key), status.state) for key, status in self.statuses.items() if not status.ok)
            missing = dict(itertools.islice(lost, SHOWN))
            verdict = "late" if self._late and self._verdict is Verdict.ENOUGH else self._verdict.value
            self._frame.tell(events.BranchesJoined, "", verdict=verdict, good=self._tally.good, missing=missing)

    def _never(self, key: Any) -> BranchStatus:
        why = f"{self._why()} before it began"
        self._frame.tell(events.NodeSkipped, self._path(key), why=why)
        return BranchStatus("skipped", why=why)

    def _failure(self) -> JoinFailed:
        """The error that tells of all of them. What was refused for want of money stays refused."""
        lost = {key: status for key, status in self.statuses.items() if not status.ok}
        causes = [status.error for status in lost.values() if status.error is not None]
        scope = self._frame.scope
        poor = next((cause for cause in causes if isinstance(cause, BudgetExceeded)), None)
        if scope is not None and poor is not None:
            scope.purse.exhaust(poor.again())
        failure = JoinFailed(self._told(lost), dict(self.statuses))
        failure.__cause__ = causes[0] if causes else None
        return failure

    def _told(self, lost: Mapping[Any, BranchStatus]) -> str:
        number = self._tally.total or self.count
        needed = f"{self._rule.fewest(number)} needed ({self._rule})"
        if self._rule.until is not None and not self._rule.partial:
            needed = "until= did not hold"
        first = sorted(lost.items(), key=lambda pair: pair[1].error is None)  # those that raised something
        listed = [f"{self._path(key)}: {status}" for key, status in first[:TOLD]]
        more = [f"and {len(first) - TOLD} more"] if len(first) > TOLD else []
        return f"{self._tally.good} of {number} ended well, {needed}: {'; '.join([*listed, *more])}"
