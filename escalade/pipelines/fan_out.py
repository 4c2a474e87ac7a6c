"""FanOut: named branches at once, joined."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import dspy

from escalade.errors import BadInput
from escalade.pipelines import _node, _run
from escalade.pipelines._bridge import THREADS
from escalade.pipelines._errors import failed
from escalade.pipelines._group import each, together
from escalade.pipelines._node import Prepared
from escalade.pipelines.pipeline import Pipeline

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

    `branches`: a dict, or keywords. `concurrency`: how many run at once (default: all; those that block a thread: 64).
    `timeout`, `timeouts`: seconds, for each branch or by name (`join` too). `budgets`: by name, what a branch may
    spend, as in `node`.

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
        *,
        join: Any = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        timeouts: Mapping[str, float] | None = None,
        budgets: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        super().__init__()
        if branches is not None and not isinstance(branches, Mapping):
            raise BadInput(f"branches have names: FanOut(facts=..., answer=...) or a dict of them, got {branches!r}")
        _node.check_concurrency(concurrency)
        self.concurrency = concurrency
        self.branches: dict[str, Any] = {}
        twice = set(branches or ()) & set(named)
        if twice:
            raise BadInput(f"two branches are named {min(twice)!r}")
        for name, branch in {**(branches or {}), **named}.items():
            found = _node.named(_node.unwrap(branch), name)
            self.branches[name], self._options[name] = found.target, found.options
        if not self.branches:
            raise BadInput("a FanOut needs at least one branch")
        self.join: Any = None
        if join is not None:
            if JOIN in self.branches:
                raise BadInput("with join=, no branch can be named 'join'")
            found = _node.named(_node.unwrap(join), JOIN)
            self.join, self._options[JOIN] = found.target, found.options
        self._limit(timeout, timeouts or {}, budgets or {})
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
        return {"concurrency": self.concurrency}

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        plan = self._plan()
        join = None if self.join is None else plan[JOIN]
        branches = [branch for branch in plan.values() if branch is not join]
        traces = [] if frame.trace is None else [frame.branch_trace() for _ in branches]
        try:
            results = await self._gather(branches, inputs, frame, traces)
        finally:
            if traces:
                frame.merge(traces)
        named = dict(zip(self.branches, results, strict=True))
        return dspy.Prediction(**named) if join is None else await _joined(join, inputs, named, frame)

    async def _gather(
        self, branches: list[Prepared], inputs: dict[str, Any], frame: _run.Frame, traces: list[list[Any] | None]
    ) -> list[Any]:
        names = [branch.name for branch in branches]
        limit = self.concurrency
        if limit is None or limit >= len(branches):
            return await together(names, _starts(branches, inputs, frame, traces))
        results: list[Any] = [None] * len(branches)

        def start(index: int, branch: Prepared) -> Coroutine[Any, Any, Any]:
            return _run.node(branch, _fields(branch, inputs), frame, traces[index] if traces else None)

        await each(branches, limit, start, results.__setitem__, names.__getitem__)
        return results


def _starts(
    branches: list[Prepared], inputs: dict[str, Any], frame: _run.Frame, traces: list[list[Any] | None]
) -> Iterator[Coroutine[Any, Any, Any]]:
    """The branches as coroutines. Nothing per node happens here that isn't needed: this is the hot path."""
    blocking = sum(branch.threaded for branch in branches)
    gate = asyncio.Semaphore(THREADS) if blocking > THREADS else None
    direct, plain, outer = frame.direct, _run.plain, frame.step
    for index, branch in enumerate(branches):
        fields = _fields(branch, inputs)
        gated = gate is not None and branch.threaded
        if not gated and direct(branch):
            yield plain(branch, fields, (outer, branch.name), frame)
            continue
        start = functools.partial(_run.node, branch, fields, frame, traces[index] if traces else None)
        yield _gated(gate, start) if gate is not None and gated else start()


async def _gated(gate: asyncio.Semaphore, start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async with gate:
        return await start()


def _fields(branch: Prepared, inputs: dict[str, Any]) -> dict[str, Any]:
    wants = branch.wants
    if not (wants.required or wants.optional or wants.rest):
        return {}
    try:
        return branch.select(inputs)
    except KeyError as missing:
        given = ", ".join(inputs) or "no fields"
        error = BadInput(f"it needs {missing.args[0]!r}; the call gave: {given}")
    raise failed(branch.name, error)


async def _joined(join: Prepared, inputs: dict[str, Any], named: dict[str, Any], frame: _run.Frame) -> Any:
    """What the join makes of the branches' results."""
    visible = {**inputs, **named}
    try:
        only = join.alone(visible)
        if only is not None and not join.module:
            visible[only] = named  # a function of one parameter gets them all
        result = await _run.node(join, _fields_of_join(join, visible, named), frame)
    except BaseException as error:
        failure = failed(JOIN, error)
        if failure is error:
            raise
    else:
        return result if isinstance(result, dspy.Prediction) else dspy.Prediction(**_node.named_fields(JOIN, result))
    raise failure


def _fields_of_join(join: Prepared, visible: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    try:
        # `def join(**results)` means the results, not the inputs too.
        return join.select({**named, **{n: visible[n] for n in join.wants.required}} if join.wants.rest else visible)
    except KeyError as missing:
        gave = ", ".join(visible)
        error = BadInput(f"it needs {missing.args[0]!r}; the call and the branches gave: {gave}")
    raise error
