"""Chain: one node after the other, fields handed on by name."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ClassVar

import dspy

from escalade import events
from escalade.errors import BadInput, ScopeError
from escalade.pipelines import _node, _run
from escalade.pipelines._errors import failed, text
from escalade.pipelines.checking import checks
from escalade.pipelines.checking._fields import parts_of
from escalade.pipelines.checking._traffic import Traffic
from escalade.pipelines.pipeline import Pipeline


class Chain(Pipeline):
    """Runs its steps in order.

    Each step takes, by name, what it wants of the fields that are visible: the chain's inputs, and then what each step
    returned, the later hiding the earlier. A step that returns a Prediction, an Example or a dict adds its fields; a
    bare value becomes a field with the step's name, and, unless it is None, what a next step gets for its one missing
    field.
    Of a dataclass or a pydantic model that a step returned, the fields are visible besides. Returns the last step's
    result, as a Prediction. An `optional` step is left out when it fails, and when it would leave too little
    money or time to those after it (`pressure.py`); no later one may need what it gives.

    `steps`: modules or functions, in order; those given by keyword have that name. `timeout`: seconds for each step
    that has none of its own. `inputs`: the names of the fields that the call gives, or a dict of their types; without
    it they are found out (`chain.inputs`), and a field that nobody gives is taken for one where that can be.

    Raises BadInput for what is no node, and for steps that can't follow each other, as far as their signatures or
    annotations tell (see `checks.py`); when called, before any step runs, a NodeError that is a BadInput for an input
    that is missing.

    >>> def words(text: str) -> dict:
    ...     return {"words": text.split()}
    >>> def count(words: list[str]) -> int:
    ...     return len(words)
    >>> Chain(words, count)(text="to be or not").count
    4
    """

    kind: ClassVar[str] = "chain"

    def __init__(
        self,
        *steps: Any,
        timeout: float | None = None,
        inputs: Mapping[str, Any] | Iterable[str] | None = None,
        **named: Any,
    ) -> None:
        super().__init__()
        self._declared = None if inputs is None else _declared(inputs)
        self.steps: dict[str, Any] = {}
        for index, step in enumerate(steps, 1):
            found = _node.unwrap(step)
            name = found.name or _node.free_name(_node.default_name(found.target, index), self.steps)
            self._add(found, name, timeout)
        for name, step in named.items():
            self._add(_node.unwrap(step), name, timeout)
        if not self.steps:
            raise BadInput("a Chain needs at least one step")
        self._lenient = any(own.optional for own in self._options.values())
        self._plan()  # what is no node is refused here and not at the first call

    def _add(self, found: _node.Node, name: str, timeout: float | None) -> None:
        if name in self.steps:
            raise BadInput(f"two steps are named {name!r}; name one of them with node(..., name=...)")
        found = _node.named(found, name, timeout)
        self.steps[name], self._options[name] = found.target, found.options

    def _targets(self) -> Mapping[str, Any]:
        steps: dict[str, Any] = self.steps
        return steps

    def _traffic(self, plan: Mapping[str, _node.Prepared]) -> Traffic:
        return checks.of_chain(plan, self._declared)

    async def _flow(self, inputs: dict[str, Any], frame: _run.Frame) -> Any:
        visible, before, bare, result = dict(inputs), "", False, None
        plan = self._ready(inputs)
        node = _run.node if frame.scope is None or not self._lenient else self._under_pressure(plan, visible)
        for name, step in plan.items():
            try:
                fields = _fields(step, visible, before, bare=bare)
                result = await node(step, fields, frame)
            except BaseException as error:
                if step.options.optional and _left_out(name, error, frame):
                    continue
                failure = failed(name, error)
                if failure is error:
                    raise
            else:
                given = _node.fields_of(result)
                visible.update(_bare(name, result) if given is None else given)
                before, bare = name, given is None and result is not None
                continue
            raise failure  # outside of the except block, which would add the original a second time, as context
        if isinstance(result, dspy.Prediction):
            return result
        return dspy.Prediction(**(_node.named_fields(before, result) if before else {}))

    def _under_pressure(
        self, plan: Mapping[str, _node.Prepared], visible: dict[str, Any]
    ) -> Callable[..., Awaitable[Any]]:
        """Runs the steps, and notes how long they take; optional ones unless they would cost the others too much."""
        from escalade.pipelines.options import pressure

        names, nodes = list(plan), list(plan.values())

        async def run(step: _node.Prepared, fields: dict[str, Any], frame: _run.Frame) -> Any:
            if step.options.optional:
                later = nodes[names.index(step.name) + 1 :]
                refused = pressure.left_out([(step, fields)], later, visible, frame.scope)
                if refused:
                    return await pressure.without(step, fields, frame, None, refused[step.name])
            began = time.perf_counter()
            result = await _run.node(step, fields, frame)
            pressure.note(step, time.perf_counter() - began)
            return result

        return run


def _left_out(name: str, error: BaseException, frame: _run.Frame) -> bool:
    """Can the chain do without an optional step that ended so?"""
    if not isinstance(error, Exception) or isinstance(error, ScopeError):
        return False
    if frame.scope is not None and frame.scope.time_left() <= 0:
        return False
    frame.failed = False  # nothing that is to be kept from beginning
    frame.tell(events.NodeSkipped, name, why=text(error))
    if frame.scope is not None:
        frame.scope.note_partial()
    return True


def _declared(inputs: Any) -> dict[str, Any]:
    """Names and types of the inputs."""
    if isinstance(inputs, Mapping):
        declared = dict(inputs)
    elif isinstance(inputs, Iterable) and not isinstance(inputs, str):
        declared = dict.fromkeys(inputs, Any)
    else:
        raise BadInput(f"inputs: expected names, as in ['question'], or a dict of names and types, got {inputs!r}")
    for name in declared:
        if not isinstance(name, str) or not name.isidentifier():
            raise BadInput(f"inputs: {name!r} can't be the name of a field")
    return declared


def _bare(name: str, result: Any) -> dict[str, Any]:
    """A value without field names, under the name of its step, and what it has as fields of its own."""
    return {**parts_of(result), name: result}


def _fields(step: _node.Prepared, visible: dict[str, Any], before: str, *, bare: bool) -> dict[str, Any]:
    """What the step gets. `bare`: the step before gave one value without a name."""
    try:
        return step.select(visible)
    except KeyError as missing:
        field = missing.args[0]
    if bare and step.wants.required and step.alone(visible) == field:
        return step.select({**visible, field: visible[before]})
    origin = f"node {before!r}" if before else "the call"
    raise BadInput(f"it needs {field!r}; visible after {origin} are: {', '.join(visible) or 'no fields'}")
