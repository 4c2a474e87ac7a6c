"""One run of an agent: a loop that yields what is to be done and is sent what came of it, for sync and async callers.

The loop asks a predictor (`Prompt`) or wants tools used (a list of `Wanted`). It decides when to stop; who drives it
makes the calls, each tool's in a scope of its own, so that its cost is known and a refusal in it stays in it.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from escalade.agents._courses import adriven, driven, together
from escalade.agents._shapes import Prompt, Shape, Wanted, cut, observed, shown_args
from escalade.agents._sink import quietly
from escalade.agents._steps import (
    BUDGET,
    FINISHED,
    LOOP,
    MAX_STEPS,
    NO_CALL,
    UNREADABLE,
    AgentAnswer,
    Step,
    Used,
)
from escalade.errors import BudgetExceeded, DeadlineExceeded, ScopeError
from escalade.money import Money
from escalade.registry import workers
from escalade.registry.canonical import digest
from escalade.registry.governed import GovernedTool
from escalade.registry.messages import told, unknown
from escalade.scopes import Entered, Scope

_HARMLESS = frozenset({"none", "read"})


@dataclass(frozen=True, slots=True)
class Said:
    """What a predictor gave. `cost`: nano-dollars."""

    result: Any = None
    error: Exception | None = None
    cost: int = 0


Job = Prompt | list[list[Wanted]]
"""A prompt, or calls in rounds."""
Working = Generator[Job, Any, AgentAnswer]
"""Is sent a `Said` for a prompt, a list of `Used` for calls."""


@dataclass(slots=True)
class Run:
    """What one call of an agent works with.

    `bounds`: what the next turn costs at most, and the answer after it; None where nobody has to keep money for that.
    `insists`: refused money ends the run. `forgotten`: steps that no longer fit the model's context.
    """

    shape: Shape
    predictors: Mapping[str, Any]
    tools: Mapping[str, GovernedTool]
    inputs: Mapping[str, Any]
    scope: Scope
    max_steps: int
    repeats: int
    shown: int
    insists: bool
    bounds: Callable[[Prompt, Prompt], tuple[int, int] | None]
    steps: list[Step] = field(default_factory=list)
    forgotten: int = 0
    kept: int = 0
    _made: Counter[str] = field(default_factory=Counter)

    # -- the loop

    def working(self) -> Working:
        """All of it. Raises what ends a run without an answer."""
        ended: str | dict[str, Any] = ""
        while not ended:
            if len(self.steps) == self.max_steps:
                ended = MAX_STEPS
            elif not self._keeps():
                ended = BUDGET
            else:
                ended = yield from self._turn()
        if isinstance(ended, dict):
            return (yield from self._answered(FINISHED, ended))
        return (yield from self._answered(ended, None))

    def _turn(self) -> Generator[Job, Any, str | dict[str, Any]]:
        """One turn of the model, and the calls that it wants. Why it was the last one, "" if it wasn't; or the answer,
        where it came along.
        """
        said: Said = yield self._next()
        if said.error is not None:
            return self._trouble(said.error)
        try:
            thought, wanted = self.shape.read(said.result)
        except ValueError:  # calls that aren't calls
            return UNREADABLE
        over = next(filter(self.shape.ends, wanted), None)
        calls = yield from self._use(wanted)
        answer = None if over is None else self._submitted(over)
        done = over is not None and (answer is not None or not self.shape.submits)
        if over is not None and not done:
            calls = [*calls, self._not_submitted(over)]
        if calls:
            self.steps.append(Step(cut(thought, self.shown), tuple(calls), said.cost))
        if done:
            return answer or FINISHED
        looping = any(self._made[_key(one)] > self.repeats + 1 for one in wanted)
        return LOOP if looping else "" if calls else NO_CALL

    def _keeps(self) -> bool:
        """Does another turn fit, and the answer after it? Tools may not use what is kept for that answer."""
        next_ = self._next()
        bounds, left = self.bounds(next_, self.shape.last(next_)), self.scope.purse.left()
        if bounds is None or left is None:
            return True
        self.kept = bounds[1]
        return sum(bounds) <= left

    def _next(self) -> Prompt:
        return self.shape.next(self.inputs, self.steps[self.forgotten :], list(self.tools.values()))

    def _last(self) -> Prompt:
        return self.shape.last(self._next())

    def _trouble(self, error: Exception) -> str:
        """Why the loop ends, "" if it goes on with less of the past. Raises what isn't the loop's business."""
        if isinstance(error, ContextWindowExceededError) and self.forgotten + 1 < len(self.steps):
            self.forgotten += 1
            return ""
        if isinstance(error, AdapterParseError | ContextWindowExceededError):
            return UNREADABLE
        if isinstance(error, BudgetExceeded) and not self.insists and self.steps:
            return BUDGET
        raise error

    def _answered(self, ended: str, answer: dict[str, Any] | None) -> Generator[Prompt, Said, AgentAnswer]:
        while answer is None:
            said = yield self._last()
            if said.error is None:
                answer = self.shape.outputs(said.result)
            elif isinstance(said.error, ContextWindowExceededError) and self.forgotten < len(self.steps):
                self.forgotten += 1
            else:
                raise said.error
        done = AgentAnswer(**answer)
        done._steps, done._ended, done._cost = tuple(self.steps), ended, self.scope.purse.spent
        return done

    def _submitted(self, wanted: Wanted) -> dict[str, Any] | None:
        """The answer that came with the call, None if it has to be asked for, or isn't one."""
        if not self.shape.submits:
            return None
        try:
            return self.shape.outputs(wanted)
        except AdapterParseError:
            return None

    def _not_submitted(self, wanted: Wanted) -> Used:
        line = "invalid_arguments: the answer lacks a field, or one doesn't fit; correct it [retryable=yes]"
        return Used(wanted.name, {}, line, "invalid_arguments", name=wanted.name, id=self._id(wanted, "end"))

    # -- tools

    def _use(self, wanted: list[Wanted]) -> Generator[list[list[Wanted]], list[Used], list[Used]]:
        """Use them; results in the order in which they were wanted."""
        wanted = [
            Wanted(one.name, one.args, self._id(one, at)) for at, one in enumerate(wanted) if not self.shape.ends(one)
        ]
        kept: dict[str, Used] = {}
        for at, one in enumerate(wanted):
            line = self._unwanted(one, at)
            if line:
                code = line.partition(":")[0]
                kept[one.id] = Used(one.name, one.args, line, code, name=one.name, id=one.id)
        rounds = self._rounds([one for one in wanted if one.id not in kept])
        if rounds:
            kept |= {used.id: used for used in (yield rounds)}
        if self.insists and (refused := self.scope.purse.exhausted) is not None:
            raise refused.again()
        return [kept[one.id] for one in wanted]

    def _id(self, wanted: Wanted, at: object) -> str:
        return wanted.id or f"call_{len(self.steps)}_{at}"

    def _unwanted(self, wanted: Wanted, at: int) -> str:
        """The line that the model reads where the call isn't made, "" where it is."""
        if wanted.name not in self.tools:
            return unknown(wanted.name).line
        if at >= self.shape.most_calls:
            return f"too_many_calls: at most {self.shape.most_calls} calls a turn are made [retryable=yes]"
        key = _key(wanted)
        self._made[key] += 1
        if self._made[key] > self.repeats:
            return (
                f"repeated_call: {wanted.name} was called with these arguments {self.repeats} times already; use what "
                f"it answered, or finish with what you have [retryable=no]"
            )
        return ""

    def _rounds(self, wanted: Sequence[Wanted]) -> list[list[Wanted]]:
        """What only reads may run at once; what has side effects runs alone, in its turn."""
        rounds: list[list[Wanted]] = []
        open_ = False
        for one in wanted:
            harmless = self.tools[one.name].spec.side_effects in _HARMLESS
            if harmless and open_:
                rounds[-1].append(one)
            else:
                rounds.append([one])
            open_ = harmless
        return rounds

    def tool_scope(self) -> Scope:
        """The scope of a round of calls. Insisting on the budget, a refusal in it is one of the run."""
        left = self.scope.purse.left() if self.kept else None
        limit = None if left is None else Money(max(0, left - self.kept))
        return self.scope.narrow(name="tools", budget=limit, optional=not self.insists)

    def entered(self, wanted: Wanted, tools: Scope) -> Entered:
        """The scope of one call."""
        label = self.tools[wanted.name].spec.label
        return Entered(lambda: tools.narrow(name=label, optional=not self.insists), check=False)

    def used(self, wanted: Wanted, got: Any, error: Exception | None, scope: Scope, began: float) -> Used:
        """What came of a call. Raises what a model can do nothing about: the scope has ended, or the time is up."""
        if isinstance(error, ScopeError | DeadlineExceeded):
            raise error
        spec = self.tools[wanted.name].spec
        swallowed = scope.purse.exhausted
        if error is None:
            observation, code = observed(got, self.shown), "" if swallowed is None else "budget_exceeded"
        else:
            line = getattr(error, "told", None) or told(error, spec)
            observation, code = line.line, line.code
        args = shown_args(wanted.args, self.shown)
        seconds = time.perf_counter() - began
        return Used(spec.label, args, observation, code, scope.purse.spent, seconds, wanted.name, wanted.id)


def _key(wanted: Wanted) -> str:
    try:
        return digest([wanted.name, dict(wanted.args)])
    except (TypeError, ValueError):
        return repr((wanted.name, wanted.args))


# ------------------------------------------------------------------------------------------------------- who drives it


def drive(run: Run) -> AgentAnswer:
    """In this thread; calls that may run at once in threads of their own."""

    def do(job: Job) -> Said | list[Used]:
        return _ask(run, job) if isinstance(job, Prompt) else [used for round_ in job for used in _round(run, round_)]

    return driven(run.working(), do)


async def adrive(run: Run) -> AgentAnswer:
    """On the event loop."""

    async def do(job: Job) -> Said | list[Used]:
        if isinstance(job, Prompt):
            return await _aask(run, job)
        return [used for round_ in job for used in await _around(run, round_)]

    return await adriven(run.working(), do)


def _ask(run: Run, prompt: Prompt) -> Said:
    before = run.scope.purse.spent
    try:
        result = run.predictors[prompt.predictor](**prompt.inputs, **_config(prompt))
    except Exception as error:  # noqa: BLE001 - the loop raises what it has no answer to
        return Said(error=error)
    return Said(result, cost=run.scope.purse.spent - before)


async def _aask(run: Run, prompt: Prompt) -> Said:
    before = run.scope.purse.spent
    try:
        result = await run.predictors[prompt.predictor].acall(**prompt.inputs, **_config(prompt))
    except Exception as error:  # noqa: BLE001 - the loop raises what it has no answer to
        return Said(error=error)
    return Said(result, cost=run.scope.purse.spent - before)


def _config(prompt: Prompt) -> dict[str, Any]:
    return {} if prompt.config is None else {"config": dict(prompt.config)}


def _round(run: Run, wanted: Sequence[Wanted]) -> list[Used]:
    scope = run.tool_scope()
    if len(wanted) == 1:
        return [_use(run, wanted[0], scope)]
    jobs = [workers.shared.submit(lambda one=one: _use(run, one, scope)) for one in wanted]  # type: ignore[misc]
    wait(jobs)  # none is left behind, also where another one fails
    return [job.result() for job in jobs]


async def _around(run: Run, wanted: Sequence[Wanted]) -> list[Used]:
    scope = run.tool_scope()
    return await together([_ause(run, one, scope) for one in wanted])


def _use(run: Run, wanted: Wanted, tools: Scope) -> Used:
    began, got, error = time.perf_counter(), None, None
    with run.entered(wanted, tools) as scope, dspy.context(**quietly()):
        try:
            got = run.tools[wanted.name](**wanted.args)
        except Exception as failed:  # noqa: BLE001 - a line for the model, and an entry in the trajectory
            error = failed
    return run.used(wanted, got, error, scope, began)


async def _ause(run: Run, wanted: Wanted, tools: Scope) -> Used:
    began, got, error = time.perf_counter(), None, None
    async with run.entered(wanted, tools) as scope:
        with dspy.context(**quietly()):
            try:
                got = await run.tools[wanted.name].acall(**wanted.args)
            except Exception as failed:  # noqa: BLE001 - as above
                error = failed
    return run.used(wanted, got, error, scope, began)


def native_adapter() -> dict[str, Any]:
    """Settings under which models use their own tool calls, unless an adapter was chosen."""
    if dspy.settings.adapter is not None:
        return {}
    return {"adapter": _native_adapter()}


@functools.cache
def _native_adapter() -> Any:
    """One for all: what was rendered with it is known by it."""
    return dspy.ChatAdapter(use_native_function_calling=True)
