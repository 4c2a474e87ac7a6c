"""Map: one node over the items of a list, however long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping, Sized
from typing import Any, ClassVar

import dspy

from escalade.agents._pipe import Pipe, carried
from escalade.errors import BadInput
from escalade.pipelines import _node, _run
from escalade.pipelines._bridge import THREADS
from escalade.pipelines._gather import Gathering
from escalade.pipelines._group import each
from escalade.pipelines._node import Prepared
from escalade.pipelines.checking import checks
from escalade.pipelines.checking._traffic import Traffic
from escalade.pipelines.joined import Joined, joined
from escalade.pipelines.joins import ALL, BranchStatus, Fold, check_fold, rule
from escalade.pipelines.pipeline import Pipeline

CONCURRENCY = 1000
"""Items at once unless told otherwise: 1,000 waiting nodes take 2 MB. Model providers have limits of their own."""

EVERY = range(sys.maxsize)
"""The indices of all items."""


class Map(Pipeline):
    """Runs `worker` once per item of the input `over`, and returns `Prediction(results=[...])` in the items' order.

    A worker gets the other inputs too, by name. An item is handed over as the field `item`; without it, a dspy.Example
    (its inputs), a Prediction or a dict as its fields, and any other value as the one field of the worker that no other
    input fills. At most `concurrency` items are in work (of a worker that blocks a thread: 64), and an item is drawn
    when there is a place for it, so a generator or an async iterator of any length will do. The first item that fails
    cancels the others.

    `errors="keep"`: an item that fails has None as its result, and `result.statuses[index]` says why. `quorum`,
    `first`, `until`, `partial`, `within` and `least` are as in `FanOut`, with an item's index as its name: when it is
    enough, no further item is drawn, and those without a result have None. `reduce`: a function (accumulated, index,
    result), async or not, that folds each result as it arrives, beginning with a copy of `initial`; no results are kept
    then, and the field `reduced` is what has become of it.

    `worker`: a module or function. `over`: name of the input. `timeout`: seconds per item. Raises BadInput.

    >>> async def square(x: int) -> int:
    ...     return x * x
    >>> Map(square, over="xs")(xs=[1, 2, 3]).results
    [1, 4, 9]
    """

    kind: ClassVar[str] = "map"

    def __init__(
        self,
        worker: Any,
        over: str = "items",
        *,
        item: str | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        errors: str = "raise",
        quorum: int | None = None,
        first: int | None = None,
        until: Callable[[Mapping[int, Any]], Any] | None = None,
        partial: bool = False,
        within: float | None = None,
        least: int | None = None,
        reduce: Callable[[Any, int, Any], Any] | None = None,
        initial: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(over, str):
            raise BadInput(f"Map: over is the name of the input that has the items, such as 'pages', got {over!r:.80}")
        _node.check_concurrency(concurrency)
        found = _node.named(_node.unwrap(worker), "worker", timeout)
        self.worker = found.target
        self._options["worker"] = found.options
        self.over, self.item, self.concurrency = over, item, concurrency
        self._rule = rule(
            quorum=quorum, first=first, until=until, partial=partial, within=within, least=least, errors=errors
        )
        check_fold(reduce, initial)
        self.reduce, self.initial = reduce, initial
        self._lenient = found.options.optional
        self._plain = self._rule == ALL and not self._lenient
        self._keeps_time = self._rule.partial
        self._plan()

    def _targets(self) -> Mapping[str, Any]:
        return {"worker": self.worker}

    def _part(self, name: str) -> str:
        return name  # the worker

    def _facts(self) -> dict[str, Any]:
        return {"over": self.over, "concurrency": self.concurrency or CONCURRENCY, **self._rule.facts()}

    def _traffic(self, plan: Mapping[str, Prepared]) -> Traffic:
        return checks.of_map(plan["worker"], self.over, self.item, reduced=self.reduce is not None)

    async def as_completed(self, **inputs: Any) -> AsyncGenerator[tuple[int, Any], None]:
        """Run it and yield `(index, result)` as the items finish.

        No more than `concurrency` results wait to be taken, so memory stays flat over any number of items. Where
        failures are kept, the result of an item that failed is its `BranchStatus`; a fold is left out. Raises what the
        run raises. Leaving early cancels what is in work, as in `stream`.
        """
        pipe = Pipe(self.concurrency or CONCURRENCY)

        async def done(index: int, result: Any) -> None:
            await pipe.put((index, result))

        async def ended(index: int, status: BranchStatus, result: Any) -> None:
            await pipe.put((index, result if status.ok else status))

        async def flow(frame: _run.Frame) -> None:
            if self._plain:
                await self._spread(inputs, frame, done)
            else:
                await self._gather(inputs, frame, None, ended)

        work = _run.conduct(flow, self, spare=self._spare())
        async with contextlib.aclosing(carried(pipe, work)) as finished:
            async for pair in finished:
                yield pair

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        fold = None if self.reduce is None else Fold(self.reduce, self.initial)
        if not self._plain:
            return await self._ruled(inputs, frame, fold)
        if fold is not None:
            await self._spread(inputs, frame, fold.add)
            return fold.prediction()
        found: dict[int, Any] = {}
        count = await self._spread(inputs, frame, found.__setitem__)
        result = Joined(results=[found[index] for index in range(count)])
        result._count = count
        return result

    async def _ruled(self, inputs: dict[str, Any], frame: _run.Frame, fold: Fold | None) -> Joined:
        gathering = await self._gather(inputs, frame, fold)
        found = gathering.results
        results = dspy.Prediction(results=[found.get(index) for index in range(gathering.count)])
        return joined(results if fold is None else fold.prediction(), gathering.statuses)

    async def _gather(
        self,
        inputs: dict[str, Any],
        frame: _run.Frame,
        fold: Fold | None,
        done: Callable[[int, BranchStatus, Any], Awaitable[None]] | None = None,
    ) -> Gathering:
        """Run the worker over the items by a rule, or where one can do without an item. `done`: takes what comes."""
        worker = self._plan()["worker"]
        items, shared = self._split(inputs)
        self._ready(inputs)
        frame.of = len(items) if isinstance(items, Sized) else None
        fields = _Fields(worker, self.item, shared)

        def start(index: int, item: Any, own: _run.Frame, trace: list[Any] | None) -> Coroutine[Any, Any, Any]:
            if own.direct(worker):
                return _run.plain(worker, fields(item), (own.step, index), own)
            return _run.supervise(worker, fields(item), own, _path(index), trace, index)

        gathering = Gathering(
            frame, self._rule, start, path=_path, limit=self._limit(worker), fold=fold, store=done is None, done=done,
            optional=EVERY if self._lenient else (),
        )  # fmt: skip
        await gathering.gather(items)
        return gathering

    async def _spread(
        self, inputs: dict[str, Any], frame: _run.Frame, done: Callable[[int, Any], Awaitable[None] | None]
    ) -> int:
        """Run the worker over the items; their number."""
        worker = self._plan()["worker"]
        items, shared = self._split(inputs)
        self._ready(inputs)
        frame.of = len(items) if isinstance(items, Sized) else None
        fields = _Fields(worker, self.item, shared)
        direct = frame.direct(worker)
        traces: list[list[Any] | None] = []

        def start(index: int, item: Any) -> Coroutine[Any, Any, Any]:
            if direct:
                return _run.plain(worker, fields(item), (frame.step, index), frame)
            if frame.trace is not None:
                traces.append([])
            trace = traces[index] if traces else None
            return _run.supervise(worker, fields(item), frame, _path(index), trace, index)

        try:
            return await each(items, self._limit(worker), start, done, _path)
        finally:
            frame.merge(traces)

    def _limit(self, worker: Prepared) -> int:
        limit: int = self.concurrency or CONCURRENCY
        return min(limit, THREADS) if worker.threaded and self.concurrency is None else limit

    def _split(self, inputs: dict[str, Any]) -> tuple[Iterable[Any] | AsyncIterable[Any], dict[str, Any]]:
        """The items and the other inputs. Raises BadInput."""
        over = self.over
        if over not in inputs:
            raise BadInput(f"Map over {over!r}: the call gave: {', '.join(inputs) or 'no fields'}")
        items = inputs[over]
        if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, (Iterable, AsyncIterable)):
            raise BadInput(f"Map over {over!r}: expected a list or another iterable of items, got {items!r:.80}")
        return items, {name: value for name, value in inputs.items() if name != over}


def _path(index: int) -> str:
    return f"[{index}]"


class _Fields:
    """What the worker gets for an item: decided once per call where possible, since there may be 100,000 items."""

    __slots__ = ("_item", "_plain", "_shared", "_worker")

    def __init__(self, worker: Prepared, item: str | None, shared: dict[str, Any]) -> None:
        self._worker, self._item, self._shared = worker, item, shared
        only = item or worker.alone(shared)
        # The usual case, one field and nothing else to pass, without looking anything up per item.
        taken = {*worker.wants.required, *worker.wants.optional}
        simple = only is not None and not worker.signed and not worker.wants.rest and taken.isdisjoint(shared)
        self._plain = only if simple else None

    def __call__(self, item: Any) -> dict[str, Any]:
        named = None if self._item else self._spread(item)
        if named is None and self._plain is not None:
            return {self._plain: item}
        if named is None:
            only = self._item or self._worker.alone(self._shared)
            if only is None:
                wanted = ", ".join(self._worker.wants.required) or "any field"
                raise BadInput(f"which field is the item? The worker takes {wanted}: say it with Map(..., item=...)")
            named = {only: item}
        try:
            return self._worker.select({**self._shared, **named})
        except KeyError as missing:
            gave = ", ".join((*self._shared, *named)) or "no fields"
            error = BadInput(f"the worker needs {missing.args[0]!r}; the call and the item gave: {gave}")
        raise error

    def _spread(self, item: Any) -> Mapping[str, Any] | None:
        """The item's own fields, None where it is one value."""
        if isinstance(item, dspy.Prediction):
            return _node.fields_of(item)
        if isinstance(item, dspy.Example):
            has_inputs = getattr(item, "_input_keys", None) is not None
            return _node.fields_of(item.inputs() if has_inputs else item)
        return item if isinstance(item, dict) else None
