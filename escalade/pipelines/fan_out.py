"""FanOut: named branches at once, joined."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import dspy

from escalade.errors import BadInput, DeadlineExceeded, Refused
from escalade.pipelines import _node, _run
from escalade.pipelines._bridge import THREADS
from escalade.pipelines._errors import failed
from escalade.pipelines._gather import Gathering
from escalade.pipelines._group import each, together
from escalade.pipelines._node import Prepared
from escalade.pipelines.checking import checks
from escalade.pipelines.checking._traffic import Traffic
from escalade.pipelines.joined import Joined, joined
from escalade.pipelines.joins import ALL, Fold, check_fold, rule
from escalade.pipelines.pipeline import GRACE, Pipeline

JOIN = "join"
"""The path of the join."""


class FanOut(Pipeline):
    """Runs its branches at once, each on the inputs that it takes by name.

    Returns a Prediction with one field per branch, whose value is what the branch returned. With `join`, a module or
    function, that gets the fields of the branches, besides the inputs, by name (or, as a function of one other
    parameter, a dict of them all), and its result is the pipeline's; a language model reads a branch's Prediction as
    its text.

    The first branch that fails cancels the others and is raised with its path; when that is out, no branch is alive,
    and a branch that had not begun by then never began.

    It needs not wait for all. `quorum=k`: until k have ended well. `first=k`: the same, and it takes exactly those.
    `until=function`: until it is true of the results so far, a dict by name, as each arrives. `partial=True`: until
    `within` seconds have passed, or the scope's deadline comes near, with those that have ended well by then, at least
    `least` (1). Then failures are no errors, the rest is cancelled, a field without a result is None, and how each
    branch ended, why, after how long, at which cost is in `result.statuses`. As soon as too few can come it raises
    JoinFailed, which names what each branch raised. The time for a join is on top of `within`.

    `branches`: a dict, or keywords. `concurrency`: how many run at once (default: all; those that block a thread:
    64). `timeout`, `timeouts`: seconds, for each branch or by name (`join` too). `budgets`: by name, what a branch
    may spend, as in `node`; shares are of what is left when the branches start. `reduce`: a function (accumulated,
    name, result), async or not, in place of a join: folds each result as it arrives, beginning with a copy of
    `initial`; the result is the field `reduced`. `join=dspy.majority` takes a vote of the branches' results.

    >>> async def shout(text: str) -> str:
    ...     return text.upper()
    >>> def size(text: str) -> int:
    ...     return len(text)
    >>> FanOut(shout=shout, size=size)(text="hello")
    Prediction(
        shout='HELLO',
        size=5
    )
    """

    kind: ClassVar[str] = "fan-out"

    def __init__(
        self,
        branches: Mapping[str, Any] | None = None,
        /,
        *unnamed: Any,
        join: Any = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        timeouts: Mapping[str, float] | None = None,
        budgets: Mapping[str, Any] | None = None,
        quorum: int | None = None,
        first: int | None = None,
        until: Callable[[Mapping[str, Any]], Any] | None = None,
        partial: bool = False,
        within: float | None = None,
        least: int | None = None,
        reduce: Callable[[Any, str, Any], Any] | None = None,
        initial: Any = None,
        **named: Any,
    ) -> None:
        super().__init__()
        _node.check_concurrency(concurrency)
        self.concurrency = concurrency
        self.branches: dict[str, Any] = {}
        rules: dict[str, Any] = {"quorum": quorum, "first": first, "partial": partial, "within": within, "least": least}
        for name in [name for name, value in rules.items() if callable(value) or isinstance(value, _node.Node)]:
            named[name] = rules.pop(name)  # a branch may be called `first`
        for found in branches_of(type(self), (branches, *unnamed) if unnamed else branches, named):
            self.branches[str(found.name)], self._options[str(found.name)] = found.target, found.options
        self.join: Any = None
        if join is not None:
            if JOIN in self.branches:
                raise BadInput("with join=, no branch can be named 'join'")
            found = _node.named(_node.unwrap(join), JOIN)
            self.join, self._options[JOIN] = found.target, found.options
        self._limit(timeout, timeouts or {}, budgets or {})
        self._rule = rule(**rules, until=until, total=len(self.branches))
        check_fold(reduce, initial)
        if reduce is not None and join is not None:
            raise BadInput("join= and reduce= both make the result; leave out one")
        self.reduce, self.initial = reduce, initial
        self._lenient = any(own.optional for own in self._options.values())
        self._plain = self._rule == ALL and reduce is None and not self._lenient
        self._keeps_time = self._rule.partial
        self._shares = concurrency is None and any(own.share is not None for own in self._options.values())
        self._plan()

    def _limit(self, timeout: float | None, timeouts: Mapping[str, float], budgets: Mapping[str, Any]) -> None:
        """Timeouts and budgets by name, over those that the nodes brought. Raises BadInput for unknown names."""
        for name in (*timeouts, *budgets):
            if name not in self._options:
                raise BadInput(f"no branch is named {name!r} (branches: {', '.join(self.branches)})")
        for name, own in list(self._options.items()):
            default = None if name == JOIN and self.join is not None else timeout
            seconds = timeouts.get(name, default if own.timeout is None else own.timeout)
            given = _node.options(seconds, budgets.get(name), name)
            budget = given if name in budgets else own
            self._options[name] = replace(own, timeout=given.timeout, budget=budget.budget, share=budget.share)

    def _targets(self) -> Mapping[str, Any]:
        branches: dict[str, Any] = self.branches
        join = self.join
        return branches if join is None else {**branches, JOIN: join}

    def _part(self, name: str) -> str:
        return "join" if name == JOIN and self.join is not None else "branch"

    def _facts(self) -> dict[str, Any]:
        return {"concurrency": self.concurrency, **self._rule.facts()}

    def _traffic(self, plan: Mapping[str, Prepared]) -> Traffic:
        join = None if self.join is None else plan[JOIN]
        return checks.of_fan_out(plan, join, certain=self._rule == ALL, reduced=self.reduce is not None)

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        plan = self._ready(inputs)
        join = None if self.join is None else plan[JOIN]
        branches = list(plan.values())
        if join is not None:
            branches.pop()  # it stands last
        if self._shares and frame.scope is not None:
            frame.base = frame.scope.left
        if (frame.listeners or frame.traced) and (self.concurrency is not None or any(_gates(branches))):
            frame.since = time.perf_counter()
        if not self._plain:
            return await self._ruled(branches, join, inputs, frame)
        traces = [] if frame.trace is None else [frame.branch_trace() for _ in branches]
        try:
            results = await self._gather(branches, inputs, frame, traces)
        finally:
            if traces:
                frame.merge(traces)
        named = {branch.name: result for branch, result in zip(branches, results, strict=True)}
        return Joined(**named) if join is None else await _joined(join, inputs, named, named, frame)

    async def _ruled(
        self, branches: list[Prepared], join: Prepared | None, inputs: dict[str, Any], frame: _run.Frame
    ) -> Joined:
        """All that isn't just all: by a rule, with a fold, with branches that one can do without."""
        names = [branch.name for branch in branches]
        fields = [fields_of(branch, inputs) for branch in branches]  # what is missing is missing before anything runs
        fold = None if self.reduce is None else Fold(self.reduce, self.initial)
        optional = frozenset(branch.name for branch in branches if branch.options.optional)
        gone: dict[str, Refused] = {}
        if optional and frame.scope is not None:
            from escalade.pipelines.options import pressure

            later = [] if join is None else [join]
            gone = pressure.left_out(list(zip(branches, fields, strict=True)), later, inputs, frame.scope)
        gathering = Gathering(
            frame, self._rule, _start, path=str, names=names, limit=self.concurrency or 0, optional=optional, fold=fold
        )
        whys = [gone.get(name) for name in names]
        await gathering.gather(zip(branches, fields, _gates(branches), whys, strict=True))
        if fold is not None:
            return joined(fold.prediction(), gathering.statuses)
        named = {name: gathering.results.get(name) for name in names}
        if join is None:
            return joined(dspy.Prediction(**named), gathering.statuses)
        began = time.perf_counter()
        result = await self._late_join(join, inputs, named, gathering, frame)
        if optional and frame.scope is not None:
            pressure.note(join, time.perf_counter() - began)
        return joined(result, gathering.statuses)

    async def _late_join(
        self, join: Prepared, inputs: dict[str, Any], named: dict[str, Any], gathering: Gathering, frame: _run.Frame
    ) -> Any:
        """The join over what there is. A model reads of a missing text how it ended."""
        present = {name: value for name, value in named.items() if name in gathering.results}
        for name in join.wants.texts:
            if name in named and name not in present:
                named[name] = f"(no result: {gathering.statuses[name].state})"

        work = _joined(join, inputs, named, present, frame)
        scope = frame.scope
        if not self._keeps_time or scope is None or scope.deadline == math.inf:
            return await work
        try:  # a function over what is there needs no time to speak of; a model needs a `within` that leaves it some
            async with asyncio.timeout(max(0.0, scope.time_left()) + GRACE) as guard:
                return await work
        except TimeoutError:
            if not guard.expired():
                raise
        raise DeadlineExceeded(f"the deadline of scope {scope.shown_id} has passed in the join")

    async def _gather(
        self, branches: list[Prepared], inputs: dict[str, Any], frame: _run.Frame, traces: list[list[Any] | None]
    ) -> list[Any]:
        names = [branch.name for branch in branches]
        limit = self.concurrency
        if limit is None or limit >= len(branches):
            return await together(names, _starts(branches, inputs, frame, traces))
        results: list[Any] = [None] * len(branches)

        def start(index: int, branch: Prepared) -> Coroutine[Any, Any, Any]:
            return _run.node(branch, fields_of(branch, inputs), frame, traces[index] if traces else None)

        await each(branches, limit, start, results.__setitem__, names.__getitem__)
        return results


def branches_of(
    kind: type[Pipeline], branches: Any, named: Mapping[str, Any], timeout: float | None = None
) -> list[_node.Node]:
    """The branches, from a dict and from keywords, with their names. Raises BadInput."""
    title = kind.__name__
    if branches is not None and not isinstance(branches, Mapping):
        raise BadInput(f"branches have names: {title}(facts=..., answer=...) or a dict of them, got {branches!r}")
    twice = set(branches or ()) & set(named)
    if twice:
        raise BadInput(f"two branches are named {min(twice)!r}")
    found = {**(branches or {}), **named}
    if not found:
        raise BadInput(f"a {title} needs at least one branch")
    return [_node.named(_node.unwrap(branch), name, timeout) for name, branch in found.items()]


def _starts(
    branches: list[Prepared], inputs: dict[str, Any], frame: _run.Frame, traces: list[list[Any] | None]
) -> Iterator[Coroutine[Any, Any, Any]]:
    """The branches as coroutines. Nothing per node happens here that isn't needed: this is the hot path."""
    gate, direct, plain, outer = _gate(branches), frame.direct, _run.plain, frame.step
    for index, branch in enumerate(branches):
        fields = fields_of(branch, inputs)
        gated = gate is not None and branch.threaded
        if not gated and direct(branch):
            yield plain(branch, fields, (outer, branch.name), frame)
            continue
        start = functools.partial(_run.node, branch, fields, frame, traces[index] if traces else None)
        yield _gated(gate, start) if gate is not None and gated else start()


def _gate(branches: list[Prepared]) -> asyncio.Semaphore | None:
    """What branches that block a thread wait for, None where they are few. Few branches aren't counted at all."""
    crowded = len(branches) > THREADS and sum(branch.threaded for branch in branches) > THREADS
    return asyncio.Semaphore(THREADS) if crowded else None


def _gates(branches: list[Prepared]) -> list[asyncio.Semaphore | None]:
    """What branches that block a thread wait for, where they are many."""
    gate = _gate(branches)
    return [gate if branch.threaded else None for branch in branches]


def _start(_: str, item: Any, frame: _run.Frame, trace: list[Any] | None) -> Coroutine[Any, Any, Any]:
    branch, fields, gate, refused = item
    if refused is not None:
        from escalade.pipelines.options.pressure import without

        return without(branch, fields, frame, trace, refused)
    start = functools.partial(_run.node, branch, fields, frame, trace)
    return start() if gate is None else _gated(gate, start)


async def _gated(gate: asyncio.Semaphore, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with gate:
        return await start()


def fields_of(branch: Prepared, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a branch takes of the inputs. Raises a NodeError that is a BadInput for what is missing."""
    only = branch.only
    if only and only in inputs:
        return {only: inputs[only]}
    wants = branch.wants
    if not (wants.required or wants.optional or wants.rest):
        return {}
    try:
        return branch.select(inputs)
    except KeyError as missing:
        given = ", ".join(inputs) or "no fields"
        error = BadInput(f"it needs {missing.args[0]!r}; the call gave: {given}")
    raise failed(branch.name, error)


async def _joined(
    join: Prepared, inputs: dict[str, Any], named: dict[str, Any], present: dict[str, Any], frame: _run.Frame
) -> Any:
    """What the join makes of the branches' results. `present`: without those that have none."""
    visible, frame.base, frame.since = {**inputs, **named}, None, None
    try:
        only = join.alone(visible)
        if only is not None and not join.module:  # a function of one parameter gets them all
            visible[only] = _ballots(present) if _votes(join.target) else present
        result = await _run.node(join, _fields_of_join(join, visible, present), frame)
    except BaseException as error:
        failure = failed(JOIN, error)
        if failure is error:
            raise
    else:
        return result if isinstance(result, dspy.Prediction) else dspy.Prediction(**_node.named_fields(JOIN, result))
    raise failure


def _votes(target: Any) -> bool:
    while isinstance(target, functools.partial):
        target = target.func
    return target is dspy.majority


def _ballots(present: dict[str, Any]) -> list[dspy.Prediction]:
    """The results as dspy.majority takes them: it counts the last field."""
    return [dspy.Prediction(**_node.named_fields(JOIN, value)) for value in present.values()]


def _fields_of_join(join: Prepared, visible: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    try:
        if not join.wants.rest:
            return join.select(visible)
        # `def join(**results)` means the results, not the inputs too.
        return join.select({**present, **{name: visible[name] for name in join.wants.required}})
    except KeyError as missing:
        gave = ", ".join(visible)
        error = BadInput(f"it needs {missing.args[0]!r}; the call and the branches gave: {gave}")
    raise error
