"""Pipeline: what `Chain`, `FanOut` and `Map` have in common. A pipeline is a `dspy.Module`, so it nests in any."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import dspy

from escalade import events
from escalade.pipelines import _fallbacks, _run, _streams
from escalade.pipelines._bridge import run_sync
from escalade.pipelines._node import NO_OPTIONS, Options, Prepared, Wants, prepare
from escalade.pipelines._operators import Operators
from escalade.pipelines.shape import Shape, shape_of


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
    """Does it end by itself when the scope's deadline comes?"""

    def __init__(self) -> None:
        super().__init__()
        self._options: dict[str, Options] = {}
        self._prepared: dict[str, Prepared] = {}
        self._given: dict[str, str | None] | None = None  # by an operator: its nodes, and the names that people gave

    def forward(self, **inputs: Any) -> Any:
        """Run it for a sync caller: on an event loop of the calling thread, or in a thread if a loop is running
        there.
        """
        return run_sync(lambda: self.aforward(**inputs))

    async def aforward(self, **inputs: Any) -> Any:
        """Run it. No task that it started is alive when this returns, raises or is cancelled."""
        return await _run.conduct(lambda frame: self._flow(inputs, frame), self._title(), keeps_time=self._keeps_time)

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
        following = _streams.followed(self, {**(inputs or {}), **named}, tokens=tokens, results=results, on=on)
        async with contextlib.aclosing(following) as told:
            async for event in told:
                yield event

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
        return Wants(rest=True)

    # -- nodes, looked at once

    def _plan(self) -> dict[str, Prepared]:
        """The nodes, prepared; again where another module took a node's place."""
        targets, prepared = self._targets(), self._prepared
        if len(prepared) == len(targets):
            for name, target in targets.items():
                known = prepared.get(name)
                if known is None or known.target is not target:
                    break
                if known.fallback is not None and not _fallbacks.current(known, name, self.fallbacks):
                    break
            else:
                return prepared
        options = self._options
        adopted = _fallbacks.adopt(options)
        if adopted:  # an attribute only then, and after those of the nodes: optimisers go by the order
            self.fallbacks = {**self.fallbacks, **adopted}
        # A new dict, never a change to the old one: another thread may be running over it.
        fresh = {name: prepare(name, target, options.get(name, NO_OPTIONS)) for name, target in targets.items()}
        for name in {key.partition("/")[0] for key in self.fallbacks}:
            _fallbacks.look(fresh[name], name, self.fallbacks)
        self._prepared = fresh
        return fresh

    def nodes(self, *, tag: str | None = None) -> list[Shape]:
        """What it is made of, at all depths, in order, itself not among them. `tag`: only nodes that have it.

        >>> from escalade import Chain, node
        >>> [found.path for found in Chain(a=node(len, tags="cheap"), b=lambda a: a).nodes(tag="cheap")]
        ['a']
        """
        return [found for found in shape_of(self).walk() if found.path and (tag is None or tag in found.options.tags)]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is derived: it points to the nodes of the original."""
        state: dict[str, Any] = super().__getstate__()
        state["_prepared"] = {}
        return state
