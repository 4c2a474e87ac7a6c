"""Pipeline: what `Chain`, `FanOut` and `Map` have in common. A pipeline is a `dspy.Module`, so it nests in any."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import dspy

from escalade import events, scopes
from escalade.errors import BadInput
from escalade.pipelines import _run
from escalade.pipelines._bridge import run_sync
from escalade.pipelines._errors import failed, join
from escalade.pipelines._home import homeward
from escalade.pipelines._node import NO_OPTIONS, Options, Prepared, Wants, prepare
from escalade.pipelines._operators import Operators
from escalade.pipelines.checking._fields import plan_of
from escalade.pipelines.checking._traffic import ERROR, Fields, Finding, Traffic, close
from escalade.pipelines.options import _fallbacks
from escalade.pipelines.shape import SEGMENTS, Shape, shape_of

if TYPE_CHECKING:
    from escalade.pipelines.checking.estimate import Estimate
    from escalade.pipelines.drawing.drawing import Drawing
    from escalade.pipelines.watching.profile import Profile


GRACE = 0.03
"""Seconds after the deadline in which what a node has returned at the deadline may still be handed on."""


_looking: ContextVar[frozenset[int]] = ContextVar("looking", default=frozenset())
"""The pipelines, by id, that are being looked at, from the outermost in."""


class Plan(dict[str, Prepared]):
    """The nodes of a pipeline, prepared, and what follows from them. `inner`: the plans of those that are pipelines.
    `needed`: the fields that a call has to give. `error`: the first finding that is one. `late`: one of the nodes, at
    any depth, returns what it has when the deadline comes.
    """

    __slots__ = ("error", "inner", "late", "needed", "traffic")

    error: Finding | None
    inner: tuple[tuple[Any, Any], ...]
    late: bool
    needed: frozenset[str]
    traffic: Traffic


class Pipeline(Operators, dspy.Module):
    """Nodes in some arrangement, itself a node.

    Call it (`pipeline(question=...)`, also inside a running loop), await it (`pipeline.acall(question=...)`), or follow
    it (`pipeline.stream(question=...)`). Inputs go by name. It holds no state of a call: one object serves many calls
    at once.

    Raises `NodeError` for a node that failed, which is of the original error's class too; refusals of the guard
    (`BudgetExceeded`, `PermissionDenied`, `DeadlineExceeded`, ...) and cancellation pass as they are.
    """

    kind: ClassVar[str] = "pipeline"
    """What kind of arrangement it is, for people: chain, fan-out, map, ..."""

    fallbacks: Mapping[str, Any] = MappingProxyType({})
    """The nodes that stand in for others, see `_fallbacks.py`."""

    _keeps_time = False
    """Does it end by itself when the scope's deadline comes, with what it has?"""

    def __init__(self) -> None:
        super().__init__()
        self._options: dict[str, Options] = {}
        self._prepared = Plan()
        self._given: dict[str, str | None] | None = None  # by an operator: its nodes, and the names that people gave

    def forward(self, *unnamed: Any, **inputs: Any) -> Any:
        """Run it for a sync caller: on an event loop of the calling thread, or in a thread if a loop is running
        there.
        """
        if unnamed:
            raise self._unnamed(unnamed)
        with homeward():
            return run_sync(lambda: self.aforward(**inputs))

    async def aforward(self, *unnamed: Any, **inputs: Any) -> Any:
        """Run it. No task that it started is alive when this returns, raises or is cancelled."""
        if unnamed:
            raise self._unnamed(unnamed)
        # Each attribute of a Module is a Python call of DSPy's: the fewer are asked for here, the faster.
        return await _run.conduct(lambda frame: self._flow(inputs, frame), self, spare=self._spare())

    def _unnamed(self, unnamed: tuple[Any, ...]) -> BadInput:
        names = [f"{name}=..." for name in self.inputs] or ["question=..."]
        return BadInput(f"inputs go by name: pipeline({', '.join(names)}), got {unnamed[0]!r:.80} without one")

    def _spare(self) -> float:
        """Seconds that a call may take after the deadline of its scope."""
        if self._keeps_time:
            return math.inf
        return GRACE if (self._prepared or self._look()).late else 0.0

    async def stream(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        tokens: bool = False,
        results: bool = False,
        on: type[events.Event] | tuple[type[events.Event], ...] = (),
        **named: Any,
    ) -> AsyncGenerator[events.Event, None]:
        """Run it and yield its events in order, the last one a `RunFinished` with the result.

        `tokens`: also what models write, as they write it (`Token`, with the node's path); they are asked no faster
        than the reader takes it. `results`: also what each node returns, as soon as it does (`NodeResult`). `on`: only
        events of these classes; with `Token` or `NodeResult` among them those are told, too. `inputs`: a dict, for
        fields that are named like these options.

        Raises what the run raises, after its last event. Leaving early (`break`, `aclose()`, cancellation) cancels the
        run and leaves the caller alone; after `break` that happens when the iterator is collected, so wrap it in
        `contextlib.aclosing` where the moment matters. Other events that the reader doesn't take in time are kept.
        """
        from escalade.pipelines import _streams

        following = _streams.followed(self, {**(inputs or {}), **named}, tokens=tokens, results=results, on=on)
        async with contextlib.aclosing(following) as told:
            async for event in told:
                yield event

    def start(self, inputs: Mapping[str, Any] | None = None, /, **options: Any) -> Any:
        """Start a durable run: a `Run`, by which it is followed. Through the Runs of `escalade.configure(runs=...)`,
        which knows this pipeline by a name; options, such as `run_id`, and inputs as for `Runs.start`. Raises BadInput.
        """
        return scopes.runs().start(self, inputs, **options)

    async def astart(self, inputs: Mapping[str, Any] | None = None, /, **options: Any) -> Any:
        """`start`, without blocking the event loop."""
        return await scopes.runs().astart(self, inputs, **options)

    def draw(self, run: Profile | Iterable[events.Event] | None = None) -> Drawing:
        """A picture of it, as it is now: `.svg`, `.mermaid`, a tree for `rich.print`, `.save("it.svg")`; notebooks show
        it. `run`: a profile of a run, or its events, whose times and costs stand on the nodes, with the critical
        path marked.

        >>> from escalade.pipelines.chain import Chain
        >>> print(Chain(read=lambda text: text.split(), count=len).draw())
        Chain
        ├── read  function
        └── count  function len
        """
        from escalade.pipelines.drawing.drawing import Drawing

        return Drawing(self, run)

    def estimate(
        self,
        inputs: Mapping[str, Any] | None = None,
        /,
        *,
        sizes: Mapping[str, int] | None = None,
        **named: Any,
    ) -> Estimate:
        """What a run may cost and how long it may take, before it is run; see `estimate.py`. `inputs`: those that are
        known. `sizes`: how many items maps run over, by the name of their input or by their path. Raises BadInput.

        >>> from escalade.pipelines.chain import Chain
        >>> estimate = Chain(read=lambda text: text.split(), count=len).estimate(text="to be")
        >>> estimate.most, estimate.notes[0]
        (0, 'read: its own code: taken to cost nothing')
        """
        from escalade.pipelines.checking.estimate import estimate

        return estimate(self, {**(inputs or {}), **named}, sizes or {})

    # -- what a kind of pipeline says about itself

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        raise NotImplementedError

    def _targets(self) -> Mapping[str, Any]:
        """The nodes by name, as they are now: optimisers put others in their place."""
        raise NotImplementedError

    def _part(self, name: str) -> str:
        """What the node of this name is to the pipeline: a step, a branch, the join, the worker of a map, ..."""
        return "step"

    def _facts(self) -> dict[str, Any]:
        """What else there is to know about it, for people and estimates."""
        return {}

    def _title(self) -> str:
        return f"{type(self).__name__}({', '.join(list(self._targets())[:8])})"

    def _wants(self) -> Wants:
        return Wants(tuple(self._look().traffic.takes.required), rest=True)

    def _traffic(self, plan: Mapping[str, Prepared]) -> Traffic:
        """What it takes and gives, and what can't go well; see `checks.py`."""
        return Traffic()

    # -- its fields

    @property
    def inputs(self) -> Fields:
        """Names and types of the fields that it takes; `.optional` may be left out; Any for an unknown type.

        >>> from escalade import Chain
        >>> def words(text: str, most: int = 9) -> dict[str, list[str]]:
        ...     return {"words": text.split()[:most]}
        >>> print(Chain(words).inputs)
        text: str, most: int = ...
        """
        takes = self._look().traffic.takes
        return Fields({**takes.required, **takes.optional}, takes.optional, open=takes.rest)

    @property
    def outputs(self) -> Fields:
        """Names and types of the fields of its result, as far as they are known; `.open`: there may be others."""
        gives = self._look().traffic.gives
        return Fields(gives.fields, gives.sometimes, open=gives.open)

    def check(self) -> list[Finding]:
        """All that was found in it and in the pipelines in it: errors, which making it raises, and warnings.

        >>> from typing import TypedDict
        >>> from escalade import Chain
        >>> class Read(TypedDict):
        ...     words: list[str]
        ...     lines: int
        >>> def read(text: str) -> Read:
        ...     return {"words": text.split(), "lines": 1}
        >>> [str(finding) for finding in Chain(read, lambda words: words[0]).check()]
        ["warning: nobody uses 'lines' of node 'read'"]
        """
        return list(self._findings())

    def _findings(self) -> Iterator[Finding]:
        plan = self._look()
        yield from plan.traffic.findings
        for name, node in plan.items():
            if plan_of(node.target) is not None:
                segment = SEGMENTS.get(self._part(name), name)
                for finding in node.target._findings():
                    yield dataclasses.replace(finding, path=join(segment, finding.path))

    # -- nodes, looked at once

    def _ready(self, inputs: Mapping[str, Any]) -> Plan:
        """The plan, for a call. Raises a NodeError that is a BadInput for an input that is missing, before any runs."""
        plan = self._plan()
        if plan.needed and not plan.needed <= inputs.keys():
            raise self._lacking(plan, inputs)
        return plan

    def _lacking(self, plan: Plan, inputs: Mapping[str, Any]) -> BaseException:
        takes = plan.traffic.takes
        name = next(name for name in takes.required if name not in inputs)
        meant = close(name, [field for field in inputs if field not in takes.required], 0.6)
        hint = f"; did you mean {meant!r}?" if meant else ""
        path = takes.paths.get(name)
        who = "it" if path else f"this {self.kind}"
        error = BadInput(f"{who} needs {name!r}; the call gave: {', '.join(inputs) or 'no fields'}{hint}")
        return failed(path, error) if path else error

    def _plan(self) -> Plan:
        """The nodes, prepared. Raises BadInput where they don't fit together."""
        plan = self._look()
        if plan.error is not None:
            where = f" (at {plan.error.path!r})" if "/" in plan.error.path else ""
            raise BadInput(f"{plan.error.message}{where}")
        return plan

    def _look(self) -> Plan:
        """The nodes, prepared and checked; again where another module took a node's place, at any depth."""
        targets, prepared = self._targets(), self._prepared
        if len(prepared) == len(targets):
            for name, target in targets.items():
                known = prepared.get(name)
                if known is None or known.target is not target:
                    break
                if known.fallback is not None and not _fallbacks.current(known, name, self.fallbacks):
                    break
            else:
                if not prepared.inner or all(plan_of(inner) is known for inner, known in prepared.inner):
                    return prepared
        if id(self) in _looking.get():
            raise BadInput(f"a {self.kind} is a node of itself, at some depth: it would never end; use a Loop")
        before = _looking.set(_looking.get() | {id(self)})
        try:
            return self._look_anew(targets)
        finally:
            _looking.reset(before)

    def _look_anew(self, targets: Mapping[str, Any]) -> Plan:
        options = self._options
        adopted = _fallbacks.adopt(options)
        if adopted:  # an attribute only then, and after those of the nodes: optimisers go by the order
            self.fallbacks = {**self.fallbacks, **adopted}
        # A new dict, never a change to the old one: another thread may be running over it.
        fresh = Plan({name: prepare(name, target, options.get(name, NO_OPTIONS)) for name, target in targets.items()})
        for name in {key.partition("/")[0] for key in self.fallbacks}:
            _fallbacks.look(fresh[name], name, self.fallbacks)
        self._understand(fresh)
        self._prepared = fresh
        return fresh

    def _understand(self, plan: Plan) -> None:
        """What follows from the nodes."""
        inner = [(node.target, plan_of(node.target)) for node in plan.values() if node.module]
        plan.inner = tuple((target, known) for target, known in inner if known is not None)
        plan.late = any(target._keeps_time or known.late for target, known in plan.inner)
        plan.traffic = self._traffic(plan)
        plan.needed = frozenset(plan.traffic.takes.required)
        plan.error = next((one for one in plan.traffic.findings if one.level == ERROR), None)
        for name, node in plan.items():
            known = plan_of(node.target) if node.module else None
            if plan.error is None and known is not None and known.error is not None:
                segment = SEGMENTS.get(self._part(name), name)
                plan.error = dataclasses.replace(known.error, path=join(segment, known.error.path))

    def nodes(self, *, tag: str | None = None) -> list[Shape]:
        """What it is made of, at all depths, in order, itself not among them. `tag`: only nodes that have it.

        >>> from escalade import Chain, node
        >>> [found.path for found in Chain(a=node(len, tags="cheap"), b=lambda a: a).nodes(tag="cheap")]
        ['a']
        """
        return [found for found in shape_of(self).walk() if found.path and (tag is None or tag in found.options.tags)]

    def load_state(self, state: Any, **options: Any) -> None:
        """As `dspy.Module.load_state`. Raises BadInput for the state of another pipeline."""
        missing = [name for name, _ in self.named_parameters() if name not in state]
        if missing:
            raise BadInput(
                f"this is the state of another pipeline: it has nothing for {missing[0]!r}, only for "
                f"{', '.join(name for name in state if name != 'metadata') or 'nothing'}"
            )
        super().load_state(state, **options)

    def __repr__(self) -> str:
        return "\n".join((self._title(), *super().__repr__().splitlines()))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is derived: it points to the nodes of the original."""
        state: dict[str, Any] = super().__getstate__()
        state["_prepared"] = Plan()
        return state
