"""One attempt: the rung's program, the calls of its source of confidence, and what came of them.

What is to be called comes from a generator, in rounds; it is sent what the calls gave. `Bench` makes the calls, in a
plain loop or on the event loop; nothing else here knows which. Each call has a scope of its own: it counts what the
call cost, and a refusal in it stays in it. So the money for confidence is known apart from the answer's, and both add
up to what the ledger has.
"""

from __future__ import annotations

import contextvars
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError

from escalade import events
from escalade.agents._courses import adriven, driven, together
from escalade.agents._estimate import predictor_of
from escalade.agents._sink import showing
from escalade.agents._threads import in_thread
from escalade.agents.adapter import adapter_here
from escalade.agents.calibration import Calibrator
from escalade.agents.climb import FAILED, OK, REFUSED, TRUNCATED, WRONG_FORMAT, Attempt, Rung
from escalade.agents.confidence.agreement import chosen_of, drawing
from escalade.agents.confidence.source import Answered, Call, Given, Reading, Source
from escalade.agents.confidence.stated import stated
from escalade.agents.forms import form_of
from escalade.errors import BadInput, NodeTimeout, Refused
from escalade.scopes import Entered, Scope

Trying = Generator[list[Call], list[Given], Attempt]
"""Yields rounds of calls to make at once, is sent what they gave, returns the attempt."""

ANSWERS_BADLY = (Refused, LMError, AdapterParseError, NodeTimeout)
"""What makes a failed attempt. Anything else is a mistake in the program or in its use, and is raised."""


@dataclass(frozen=True, slots=True)
class Bench:
    """All that attempts need, for one climb. Sequences are by rung; `judges`: (program, LM) by name of the helper.

    `rollout`: which of several times the same question is asked, from 0: no cache answers one with the answer of
    another.
    """

    rungs: Sequence[Rung]
    programs: Sequence[dspy.Module]
    lms: Sequence[Any]
    sources: Sequence[Source | None]
    judges: Sequence[Mapping[str, tuple[dspy.Module, Any]]]
    calibrators: Mapping[str, Calibrator]
    outputs: tuple[str, ...]
    same: Callable[[Any], Any]
    scope: Scope
    rollout: int = 0

    def attempt(self, rung: int, inputs: Mapping[str, Any]) -> Attempt:
        """Try it, in this thread; calls of one round each in a thread of its own."""
        return driven(
            self._trying(rung, inputs), lambda calls: _at_once([partial(self._call, rung, one) for one in calls])
        )

    async def aattempt(self, rung: int, inputs: Mapping[str, Any]) -> Attempt:
        """Try it, on the event loop."""
        return await adriven(
            self._trying(rung, inputs), lambda calls: together([self._acall(rung, call) for call in calls])
        )

    # -- what is called, and what comes of it

    def _trying(self, rung: int, inputs: Mapping[str, Any]) -> Trying:
        began = time.perf_counter()
        source = self.sources[rung]
        draws = source.draws() if source is not None else None
        if draws is None:
            drawn = tuple((yield [Call(inputs)]))
            answered = drawn[0]
        else:
            drawn = yield from drawing(draws, inputs, self.same)
            answered = chosen_of(drawn, self.same)
            _keep(answered.trace)
        cost = sum(given.cost for given in drawn)
        if answered.error is not None:
            return self._tried(_failed(rung, answered, cost, time.perf_counter() - began))
        what = Answered(inputs, answered.result, self.outputs, self.same, drawn)
        reading, extra = yield from _weighed(source, what)
        raw, answer = reading.value, self.same(answered.result)
        return self._tried(
            Attempt(
                rung=rung,
                answer=answer,
                confidence=self._calibrated(rung, raw),
                cost=cost + extra,
                latency=time.perf_counter() - began,
                status=OK,
                result=answered.result,
                raw=raw,
                signals={**({} if source is None else {source.name: raw}), **reading.signals},
                confidence_cost=cost - answered.cost + extra,
                confidence_error=reading.error,
                form=form_of(answer),
            )
        )

    def _calibrated(self, rung: int, raw: float) -> float:
        calibrator = self.calibrators.get(self.rungs[rung].name)
        return raw if calibrator is None else calibrator(raw)

    def _tried(self, attempt: Attempt) -> Attempt:
        error = attempt.confidence_error
        events.emit(
            self.scope,
            events.RungTried,
            rung=self.rungs[attempt.rung].name,
            confidence=attempt.confidence,
            cost=attempt.cost,
            why="" if attempt.ok else attempt.status,
            raw=attempt.raw,
            signals=attempt.signals,
            confidence_cost=attempt.confidence_cost,
            confidence_error="" if error is None else f"{type(error).__name__}: {error}",
        )
        return attempt

    # -- one call

    def _call(self, rung: int, call: Call) -> Given:
        name, catches = self._way(rung, call)
        entered = Entered(lambda: self.scope.narrow(name=name, optional=True), check=False)
        with entered as inner, _tracing(call) as trace:
            try:
                with self._speaking(rung, call) as (program, options):
                    result = program(**_taken(program, call), **options)
            except catches as error:
                return _lost(inner, error)
            return _given(inner, result, trace)

    async def _acall(self, rung: int, call: Call) -> Given:
        name, catches = self._way(rung, call)
        entered = Entered(lambda: self.scope.narrow(name=name, optional=True), check=False)
        async with entered as inner:
            with _tracing(call) as trace:
                try:
                    with self._speaking(rung, call) as (program, options):
                        result = await _answered(program, _taken(program, call), options)
                except catches as error:
                    return _lost(inner, error)
                return _given(inner, result, trace)

    def _way(self, rung: int, call: Call) -> tuple[str, tuple[type[Exception], ...]]:
        """Name of the call's scope, and what is caught there: whatever a helper raises, it doesn't cost the answer."""
        name = self.rungs[rung].name
        return (f"{name} {call.helper}", (Exception,)) if call.helper else (name, ANSWERS_BADLY)

    @contextmanager
    def _speaking(self, rung: int, call: Call) -> Iterator[tuple[dspy.Module, dict[str, Any]]]:
        """The program with a model of its own, whatever `set_lm` put on the predictors.

        BestOfN, Refine and some optimisers set one LM on every predictor they find, to sample with another `rollout_id`
        and temperature. Those two are taken over by rungs; the model is not, or all rungs would be one.
        """
        if call.helper:
            program, lm = self.judges[rung][call.helper]
            lm = lm.copy(rollout_id=self.rollout) if self.rollout else lm
        else:
            program, lm = self.programs[rung], self._sampling(rung, call)
        plain = predictor_of(program) is not None
        with dspy.context(lm=lm, adapter=adapter_here(), **self._shown(rung, call, program)):
            yield program, {"lm": lm} if plain else {}

    def _shown(self, rung: int, call: Call, program: dspy.Module) -> Mapping[str, Any]:
        """What a stream shows of the call: a rung's one answer, where that is the same with and without a stream."""
        source = self.sources[rung]
        one = not call.helper and call.sample is None and not (source is not None and source.settings())
        return showing(self.rungs[rung].name, program, answer=not call.helper, plain=one)

    def _sampling(self, rung: int, call: Call) -> Any:
        program, lm, source = self.programs[rung], self.lms[rung], self.sources[rung]
        only = predictor_of(program)
        # DSPy looks for predictors in a module's history, too: up to 10,000 entries, for each call
        given = only.lm if only is not None else next((p.lm for p in program.predictors() if p.lm is not None), None)
        if given is not None and only is None and given.model != lm.model:
            raise BadInput(
                f"set_lm put model {given.model!r} on rung {self.rungs[rung].name!r}; a program of your own can't be "
                f"sampled through set_lm, since its model would be replaced"
            )
        options: dict[str, Any] = {}
        if given is not None:
            options = {k: given.kwargs[k] for k in ("rollout_id", "temperature") if given.kwargs.get(k) is not None}
        if self.rollout:
            options["rollout_id"] = options.get("rollout_id", 0) + self.rollout
        draws = source.draws() if source is not None and call.sample is not None else None
        if draws is not None and call.sample is not None:
            options["rollout_id"] = options.get("rollout_id", 0) * draws.k + call.sample + 1
            options["temperature"] = draws.temperature
            if draws.seed is not None:
                options["seed"] = draws.seed + call.sample
        return lm.copy(**options) if options else lm


def _weighed(source: Source | None, answered: Answered) -> Generator[list[Call], list[Given], tuple[Reading, int]]:
    """(what the source says, what its calls cost). What it raises is kept: it never costs the answer."""
    if source is None:
        return Reading(stated(answered.result)), 0
    cost, given = 0, None
    weighing = source.weigh(answered)
    while True:
        try:
            calls = next(weighing) if given is None else weighing.send(given)
        except StopIteration as end:
            return _checked(source, end.value), cost
        except Exception as error:  # noqa: BLE001 - it is kept in the attempt
            return Reading(error=error), cost
        given = yield calls
        cost += sum(one.cost for one in given)


def _checked(source: Source, reading: Any) -> Reading:
    if isinstance(reading, Reading) and (math.isnan(reading.value) or 0 <= reading.value <= 1):
        return reading
    return Reading(error=BadInput(f"{source.name!r} read {reading!r}; expected a Reading with a value in 0..1 or nan"))


def _failed(rung: int, given: Given, cost: int, seconds: float) -> Attempt:
    error = given.error
    if isinstance(error, Refused):
        status = REFUSED
    elif isinstance(error, AdapterParseError):
        status = TRUNCATED if given.truncated else WRONG_FORMAT
    else:
        status = FAILED
    return Attempt(rung=rung, cost=cost, latency=seconds, status=status, error=error)


def _given(inner: Scope, result: Any, trace: list[Any]) -> Given:
    swallowed = inner.purse.exhausted
    if swallowed is not None:
        return _lost(inner, swallowed.again())
    return Given(result, None, inner.purse.spent, trace=tuple(trace))


def _lost(inner: Scope, error: BaseException) -> Given:
    return Given(None, error, inner.purse.spent, truncated=bool(inner.truncated))


async def _answered(program: dspy.Module, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """What the program says; one that has no `aforward`, as most modules that people write, gets a thread."""
    if hasattr(type(program), "aforward"):
        return await program.acall(**inputs, **options)
    return await in_thread(program, (), {**inputs, **options})


def _taken(program: dspy.Module, call: Call) -> Mapping[str, Any]:
    """The inputs that a helper's signature has; a rung gets all of them."""
    predictor = predictor_of(program) if call.helper else None
    if predictor is None:
        return call.inputs
    return {name: call.inputs[name] for name in predictor.signature.input_fields if name in call.inputs}


@contextmanager
def _tracing(call: Call) -> Iterator[list[Any]]:
    """A trace of its own for a sample: optimisers learn from the one that answered, not from all that were drawn."""
    if call.sample is None or dspy.settings.trace is None:
        yield []
        return
    trace: list[Any] = []
    with dspy.context(trace=trace):
        yield trace


def _keep(trace: tuple[Any, ...]) -> None:
    if dspy.settings.trace is not None:
        dspy.settings.trace.extend(trace)


def _at_once(jobs: Sequence[Callable[[], Given]]) -> list[Given]:
    """Results in order; each job in a thread of its own, in a copy of this context."""
    if len(jobs) == 1:
        return [jobs[0]()]
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = [pool.submit(contextvars.copy_context().run, job) for job in jobs]
        return [future.result() for future in running]
