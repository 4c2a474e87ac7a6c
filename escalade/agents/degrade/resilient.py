"""`Resilient`: any module, which answers worse instead of failing.

    ask = Resilient(
        dspy.Predict("question -> answer"),
        answers=Answers(DiskCache("answers"), fresh=3600, stale=7 * 86400),
        replies=Replies.load("replies.yaml"),
        name="support",
    )
    with escalade.scope(budget="0.05"):
        answer = ask(question="When do you open?")
    print(answer.level, answer.source, answer.explain())

The levels are those of the package. The gateway's retries and fallbacks come first, in it; what is degraded here is
what they could not help (`faults.py` has the table). A denial, a closed scope and a mistake of the caller are raised as
always. Each try has a scope of its own, under the caller's. Answers of before are no use of any model: they are
recorded as uses of the program, with their source and at no cost, and not given where that can't be recorded.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import dspy

from escalade import events
from escalade.agents._courses import adriven, driven
from escalade.agents.degrade._tries import Ask, Call, Seen, Tried, record, within
from escalade.agents.degrade.answers import Answers, Kept
from escalade.agents.degrade.faults import ALWAYS, ASKED, Kind, kind_of, retry_after
from escalade.agents.degrade.replies import Replies
from escalade.agents.degrade.resolved import LEVELS, Resolved, Source, made_by, of_before, resolved
from escalade.errors import BadInput, BudgetExceeded
from escalade.registry.elsewhere import elsewhere
from escalade.registry.privacy.outlets import error_line
from escalade.scopes import Scope, require

logger = logging.getLogger(__name__)

LONGEST = 1_500
"""Characters of a reason: an error of the gateway names each model that it tried."""

QUIET = 10.0
"""Seconds between lines of log that say that answers are degraded: an outage has a million of them."""

_SHOWN = 300

APOLOGY = "I can't answer that right now. Please try again in a moment."


_Course = Generator[Call | Ask, Any, Resolved]


class Resilient(dspy.Module):
    """Any module; where it can't answer for a reason that will pass, it answers worse instead of failing.

    `program`: the module. `fallbacks`: other programs with the same inputs and outputs, tried in order once it has
    failed. `answers`: where its answers are kept, for levels 1 and 4. `replies`: what somebody wrote, for level 4.
    `also`: more kinds of failures to degrade: "budget", "store", "format". `timeout`: seconds for each program.
    `apology`, `retry_after`: what level 5 says where no error knows better; an `apology` of None raises the failure
    instead. `outputs`: names of the outputs, where they can't be seen in the program. `name`: of the program among the
    answers that are kept: change it when the program changes.

    Raises BadInput; in a call, what `faults.py` doesn't degrade, and NoScope.
    """

    def __init__(
        self,
        program: dspy.Module,
        *,
        fallbacks: Iterable[dspy.Module] = (),
        answers: Answers | None = None,
        replies: Replies | None = None,
        also: Iterable[Kind] = (),
        timeout: float | None = None,
        apology: str | None = APOLOGY,
        retry_after: float = 60.0,
        outputs: Sequence[str] | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        self.program, self.fallbacks = program, list(fallbacks)
        for one in (program, *self.fallbacks):
            if not isinstance(one, dspy.Module):
                raise BadInput(f"Resilient: expected a dspy.Module, got {one!r}")
        self.answers, self.replies = answers, replies
        asked = frozenset(also)
        if not asked <= ASKED:
            known = ", ".join(sorted(ASKED))
            raise BadInput(f"Resilient: also={sorted(asked - ASKED)} can't be degraded (known: {known})")
        if retry_after < 0 or (timeout is not None and timeout <= 0):
            raise BadInput(f"Resilient: expected seconds, got timeout={timeout!r} and retry_after={retry_after!r}")
        self.degrades: frozenset[Kind] = ALWAYS | asked
        self.timeout, self.apology, self.retry_after = timeout, apology, retry_after
        self.outputs = _outputs(program) if outputs is None else tuple(outputs)
        self.name = name or f"{type(program).__qualname__} {' '.join(self.outputs)}"
        if replies is not None and self.outputs:
            replies.check(self.outputs)
        self._tally = _Tally()

    @property
    def served(self) -> Mapping[int, int]:
        """How many answers were given on each level, 1 to 5, by this module and its copies."""
        return self._tally.read()

    def forward(self, **inputs: Any) -> Resolved:
        """Answer, synchronously."""
        scope = _scope()

        def do(step: Call | Ask) -> Any:
            return self._called(step, inputs, scope) if isinstance(step, Call) else step.what()

        return self._told(driven(self._course(inputs, scope), do), scope)

    async def aforward(self, **inputs: Any) -> Resolved:
        """Answer."""
        scope = _scope()

        async def do(step: Call | Ask) -> Any:
            if isinstance(step, Call):
                return await self._acalled(step, inputs, scope)
            if (self.answers is not None and self.answers.remote) or hasattr(scope.recorder, "aintent"):
                return await elsewhere(step.what)
            return step.what()

        return self._told(await adriven(self._course(inputs, scope), do), scope)

    # -- one call

    def _called(self, step: Call, inputs: Mapping[str, Any], scope: Scope) -> Tried:
        tried = Tried(Seen(set()))
        try:
            with within(scope, step, tried.seen) as inner:
                tried.result = step.program(**inputs)
                tried.whole = not inner.truncated
        except Exception as error:  # noqa: BLE001 - judged by `_check`
            tried.error = error
        return tried

    async def _acalled(self, step: Call, inputs: Mapping[str, Any], scope: Scope) -> Tried:
        tried = Tried(Seen(set()))
        try:
            async with asyncio.timeout(step.seconds), within(scope, step, tried.seen) as inner:
                tried.result = await step.program.acall(**inputs)
                tried.whole = not inner.truncated
        except Exception as error:  # noqa: BLE001 - judged by `_check`
            tried.error = error
        return tried

    # -- the levels

    def _course(self, inputs: Mapping[str, Any], scope: Scope) -> _Course:
        """From level to level: yields what to do, is sent what came of it."""
        reasons: list[str] = []
        kept: Kept | None = None
        if self.answers is not None:
            kept = yield Ask(partial(self.answers.get, self.name, inputs, scope))
            if kept is not None and kept.age <= self.answers.fresh:
                yield Ask(partial(record, scope, self.name, "cache"))
                return of_before(kept, "cache", [f"level 1, cache: an answer {kept.age:,.0f} s old"])
        errors: list[Exception] = []
        for number, program in enumerate((self.program, *self.fallbacks)):
            tried: Tried = yield Call(program, self.timeout)
            if tried.error is None:
                made = made_by(tried, number, reasons)
                if self.answers is not None and made.level in {2, 3} and tried.whole and not tried.seen.approved:
                    outputs = dict(made.items())
                    yield Ask(partial(self.answers.keep, self.name, inputs, scope, outputs, frozenset(tried.seen.used)))
                return made
            self._check(tried.error, scope)
            errors.append(tried.error)
            source = "fallback" if number else "primary"
            reasons.append(f"level {LEVELS[source]}, {source}: {error_line(tried.error, LONGEST)}")  # type: ignore[index]
        return (yield from self._without_models(inputs, scope, kept, errors, reasons))

    def _without_models(
        self,
        inputs: Mapping[str, Any],
        scope: Scope,
        kept: Kept | None,
        errors: Sequence[Exception],
        reasons: list[str],
    ) -> _Course:
        """Levels 4 and 5."""
        waits = [wait for error in errors if (wait := retry_after(error)) is not None]
        wait = min(waits, default=self.retry_after)
        source: Source = "stale"
        if kept is None and self.answers is not None:
            kept, source = (yield Ask(partial(self.answers.get_similar, self.name, inputs, scope))), "similar"
        if kept is not None:
            yield Ask(partial(record, scope, self.name, source))
            reasons.append(f"level 4, {source}: an answer {kept.age:,.0f} s old")
            return of_before(kept, source, reasons, wait)
        reply = None if self.replies is None else (yield Ask(partial(self.replies.find, inputs)))
        if reply is not None:
            reasons.append(f"level 4, static: reply {reply.name!r}")
            return resolved(reply.outputs(self.outputs), "static", reasons, wait)
        if self.apology is None:
            raise errors[-1]
        reasons.append(f"level 5, apology: try again in {wait:,.0f} s")
        made = resolved(dict.fromkeys(self.outputs), "apology", reasons, wait)
        made._apology = self.apology
        return made

    def _check(self, error: Exception, scope: Scope) -> None:
        """Raise what must not be degraded, as if nobody stood between the program and its caller."""
        if not scope.closed and kind_of(error) in self.degrades:
            return
        if isinstance(error, BudgetExceeded):
            scope.purse.exhaust(error)  # the scope of the call kept it to itself
        raise error

    def _told(self, made: Resolved, scope: Scope) -> Resolved:
        self._tally.add(made.level)
        why = made._reasons[0][:_SHOWN] if len(made._reasons) > 1 else ""
        events.emit(scope, events.Served, level=made.level, source=made.source, why=why)
        if made.level >= 4 and self._tally.is_time():
            logger.warning("%s answered on level %d (%s): %s", self.name, made.level, made.source, why)
        return made


class _Tally:
    """Counts answers by level; shared by copies of a program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[int] = Counter()
        self._loud = -QUIET

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tally:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _Tally, ()

    def add(self, level: int) -> None:
        with self._lock:
            self._counts[level] += 1

    def is_time(self) -> bool:
        """Is it time for another line of log?"""
        with self._lock:
            now = time.monotonic()
            quiet = now - self._loud < QUIET
            self._loud = self._loud if quiet else now
        return not quiet

    def read(self) -> dict[int, int]:
        with self._lock:
            return {level: self._counts[level] for level in sorted(set(LEVELS.values()))}


def _scope() -> Scope:
    scope = require("Resilient")
    if scope.closed:
        scope.check_open()
    return scope


def _outputs(program: dspy.Module) -> tuple[str, ...]:
    """The outputs of a program: of its signature, else of its last predictor."""
    signature = getattr(program, "signature", None)
    if signature is None:
        predictors = program.predictors()
        signature = predictors[-1].signature if predictors else None
    return () if signature is None else tuple(signature.output_fields)
