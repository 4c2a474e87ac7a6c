"""Many attempts at once, under a budget: the engine of studies and of `record`.

    first attempt -> graded?  ->  its question  ->  all others, `concurrency` at a time  ->  each graded, then kept

The first answer is graded before others are asked for: a metric with a mistake is found for the price of one, a rung
that may not be used for the price of one question. A unit begins only when its price bound fits what the budget has
left beside what is running, so that a budget ends between attempts and not within one; how many calls a provider gets
at once, its lane decides (`agents/lanes`). When something is wrong, no new unit begins, and those that run are paid,
graded and kept before the error is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from escalade.agents.cache.kinds import uncached
from escalade.agents.climb import REFUSED, Attempt
from escalade.errors import BadInput, BudgetExceeded, UnknownPrice
from escalade.evals._codes import UNKNOWN
from escalade.evals.studies.grading import Grader, Metric
from escalade.evals.studies.hearing import Heard
from escalade.evals.studies.identity import answer_code
from escalade.evals.studies.plan import Asked, Unit
from escalade.evals.studies.rundir import Line
from escalade.evals.studies.unanswered import check_usable, error_kind, unanswered
from escalade.registry.elsewhere import elsewhere
from escalade.scopes import Entered, Scope, require

if TYPE_CHECKING:
    from escalade.agents.escalate import Escalate
    from escalade.evals.studies.rundir import Lines

__all__ = ["CONCURRENCY", "Recorded", "Recording"]

CONCURRENCY = 16
"""Attempts at once where nobody says: enough to hide the latency of one, few enough for the smallest accounts."""

SYNC = 1.0
"""Seconds between two looks whether there are lines that aren't on the disk."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An attempt that was made and graded. `list_cost`: nano-dollars, UNKNOWN where something has no price."""

    unit: Unit
    attempt: Attempt
    quality: float
    list_cost: int
    line: Line


@dataclass
class Recording:
    """What is recorded, and how. `keep` is told each attempt, in the order in which they end.

    `digests`: of the rungs. `cached`: may a cache answer? `timed`: keep latencies. `texts`: keep answers. `lines`: a
    file that is put on the disk every second, and at the end. `lost`: is told what was paid for an attempt that came to
    nothing, as a line of no rung. `grading`: was it the metric that raised? `failed_at`: the unit that raised.
    """

    program: Escalate
    metric: Metric
    asked: Sequence[Asked]
    keep: Callable[[Recorded], None]
    digests: Sequence[str]
    concurrency: int = CONCURRENCY
    cached: bool = True
    timed: bool = True
    texts: bool = False
    lines: Lines | None = None
    lost: Callable[[Line], None] | None = None
    grading: bool = field(default=False, init=False)
    failed_at: Unit | None = field(default=None, init=False)
    _failed: BaseException | None = field(default=None, init=False)
    _grader: Grader = field(init=False)
    _refusal: BudgetExceeded | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._grader = Grader(self.metric)
        if not callable(self.metric):
            raise BadInput(f"metric: expected a function of an example and a prediction, got {self.metric!r}")
        if not isinstance(self.concurrency, int) or isinstance(self.concurrency, bool) or self.concurrency < 1:
            raise BadInput(f"concurrency: expected attempts at once, 1 or more, got {self.concurrency!r}")

    async def fill(self, units: Iterable[Unit]) -> BudgetExceeded | None:
        """Make these attempts, in this order, in the current scope, which pays.

        Returns None when all are made, else the refusal for want of money. Raises what the metric raises,
        PermissionDenied and UnknownPrice for what may not be used or has no price bound under a budget, BadInput for a
        model that answers nobody: its key, its bill.
        """
        scope = require("recording")
        async with Entered(lambda: scope.narrow(name="recording"), check=False) as own:
            todo, till = deque(units), _Till(own)
            async with _synced(self.lines):
                await self._probe(todo, till)
                await self._all(todo, till)
            if self._failed is not None:
                raise self._failed
            return self._refusal if todo or self._ended else None

    async def _probe(self, todo: deque[Unit], till: _Till) -> None:
        """The first question: one attempt after the other until one is graded, then its other rungs."""
        first = todo[0] if todo else None

        def more() -> bool:
            here = (
                bool(todo) and first is not None and (todo[0].question, todo[0].epoch) == (first.question, first.epoch)
            )
            return here and self._failed is None and not self._ended

        while more():
            if await self._next(todo, till):
                break
        rest: deque[Unit] = deque()
        while more():
            rest.append(todo.popleft())
        await self._all(rest, till)
        todo.extendleft(reversed(rest))

    async def _all(self, todo: deque[Unit], till: _Till) -> None:
        """All of these, `concurrency` at a time; what could not be made is left."""
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.concurrency, len(todo))):
                group.create_task(self._work(todo, till))

    async def _work(self, todo: deque[Unit], till: _Till) -> None:
        while todo and self._failed is None and not self._ended:
            await self._next(todo, till)

    async def _next(self, todo: deque[Unit], till: _Till) -> bool:
        """Make the next attempt. Was an answer graded?"""
        unit = todo.popleft()
        ceiling = self.asked[unit.question].view.ceilings[unit.rung]
        try:
            if not await till.admits(ceiling, self.program.rungs[unit.rung].name, lambda: self._ended):
                self._out_of_money(unit, todo, BudgetExceeded(till.why(ceiling)))
                return False
            try:
                made = await self._made(unit)
            finally:
                till.freed(ceiling)
            self.keep(made)
        except BudgetExceeded as refusal:
            self._out_of_money(unit, todo, refusal)
            return False
        except Exception as error:  # noqa: BLE001 - raised when those that run are done
            todo.appendleft(unit)
            if self._failed is None:
                self._failed, self.failed_at = error, unit
            return False
        return made.attempt.ok

    def _out_of_money(self, unit: Unit, todo: deque[Unit], refusal: BudgetExceeded) -> None:
        todo.appendleft(unit)
        self._ended, self._refusal = True, self._refusal or refusal

    async def _made(self, unit: Unit) -> Recorded:
        """Made and graded, in a scope of its own, which knows what both cost."""
        one, heard, outer = self.asked[unit.question], Heard(), require("recording")
        own = Entered(
            lambda: outer.narrow(name="attempt", optional=True, listeners=(heard.event,)), check=False
        )  # fmt: skip
        async with own as scope:
            try:
                with heard.listening(), contextlib.nullcontext() if self.cached else uncached():
                    attempt = await self.program.attempt(unit.rung, one.inputs, rollout=unit.epoch)
                self._check(attempt)
                unpriced = scope.unpriced > 0 or heard.saved is None
                quality = await self._graded(one.example, attempt)
            except Exception as error:
                self._came_to_nothing(unit, one, error, scope.purse.spent)
                raise
            grading = max(0, scope.purse.spent - attempt.cost)
        list_cost = UNKNOWN if unpriced else attempt.cost + (heard.saved or 0)
        line = self._line(unit, one, attempt, heard, quality, list_cost, grading)
        return Recorded(unit, attempt, quality, list_cost, line)

    def _check(self, attempt: Attempt) -> None:
        """Raises what is no answer, and no wrong answer either; so is what nobody answered while the run was ending."""
        if isinstance(attempt.error, BudgetExceeded) and attempt.status == REFUSED:
            raise attempt.error
        check_usable(self.program, attempt)
        if self._failed is not None and attempt.error is not None and unanswered(error_kind(attempt.error)):
            raise attempt.error

    def _came_to_nothing(self, unit: Unit, one: Asked, error: Exception, spent: int) -> None:
        if self.lost is not None and spent > 0:
            rung, why, now = self.program.rungs[unit.rung].name, error_kind(error), round(time.time(), 3)
            self.lost(
                Line(key=one.key, rung=rung, of="", epoch=unit.epoch, status=REFUSED, error=why, spent=spent, at=now)
            )

    async def _graded(self, example: Any, attempt: Attempt) -> float:
        if not attempt.ok:
            return 0.0
        try:
            return await self._grader.grade(example, attempt.result)
        except Exception:
            self.grading = True
            raise

    def _line(
        self, unit: Unit, one: Asked, attempt: Attempt, heard: Heard, quality: float, list_cost: int, grading: int
    ) -> Line:
        timed = self.timed and not heard.hits
        return Line(
            key=one.key,
            rung=self.program.rungs[unit.rung].name,
            of=self.digests[unit.rung],
            epoch=unit.epoch,
            status=attempt.status,
            quality=quality,
            error=None if attempt.error is None else error_kind(attempt.error),
            finish=heard.finish,
            answer=answer_code(attempt.answer) if attempt.ok else None,
            confidence=_known(attempt.confidence),
            cost=None if list_cost == UNKNOWN else list_cost,
            spent=attempt.cost,
            grading=grading or None,
            hits=heard.hits or None,
            latency=_known(attempt.latency) if timed else None,
            input=heard.input,
            output=heard.output,
            model=heard.model,
            form=None if attempt.form is None else list(attempt.form),
            at=round(time.time(), 3),
            outputs=dict(attempt.result.items()) if self.texts and attempt.ok else None,
        )


def _known(figure: float) -> float | None:
    return None if math.isnan(figure) else figure


class _Till:
    """Lets a unit begin when its price bound fits what is left, beside the bounds of those that run."""

    def __init__(self, scope: Scope) -> None:
        self._scope, self._held, self._running = scope, 0, 0
        self._change = asyncio.Event()

    async def admits(self, ceiling: int | None, rung: str, over: Callable[[], bool]) -> bool:
        """True as soon as it fits, counted as running then; False when it can't, or when all is `over`."""
        while not over():
            left = self._left()
            if left is None:
                break
            if ceiling is None:
                raise UnknownPrice(
                    f"rung {rung!r} has no price bound, and there is a budget: give its model a price, and a program "
                    f"of your own a bound, as in (module, 'small', '0.01')"
                )
            if self._held + ceiling <= left:
                break
            if not self._running:
                return False
            self._change.clear()
            await self._change.wait()
        if over():
            return False
        self._held, self._running = self._held + (ceiling or 0), self._running + 1
        return True

    def freed(self, ceiling: int | None) -> None:
        self._held, self._running = self._held - (ceiling or 0), self._running - 1
        self._change.set()

    def why(self, ceiling: int | None) -> str:
        from escalade.money import Money

        return f"the next attempt may cost {Money(ceiling or 0)}, and {Money(self._left() or 0)} is left of the budget"

    def _left(self) -> int | None:
        """What is left, with what those that run have set aside: that is counted by their bounds."""
        left = self._scope.purse.left()
        return None if left is None else left + self._scope.purse.held


@contextlib.asynccontextmanager
async def _synced(lines: Lines | None) -> Any:
    """Every second all lines are put on the disk, in a thread, and once more at the end."""
    if lines is None:
        yield
        return

    async def again() -> None:
        while True:
            await asyncio.sleep(SYNC)
            if lines.dirty:
                await elsewhere(lines.sync)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        lines.sync()
