"""Nodes: what a pipeline is made of, what each wants as inputs, and how it is called.

A node is a `dspy.Module` (pipelines are such), an async function or a sync function. `prepare` looks at it once: which
fields it takes, whether it blocks a thread. At run time `Prepared.select` picks the fields and `Prepared.call` starts
it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dspy

from escalade.agents._threads import in_thread
from escalade.errors import BadInput
from escalade.pipelines.options._options import NO_OPTIONS, Node, Options, node, options, unwrap

__all__ = [
    "NO_OPTIONS",
    "Node",
    "Options",
    "Prepared",
    "Wants",
    "as_input",
    "check_concurrency",
    "check_target",
    "default_name",
    "fields_of",
    "free_name",
    "is_async",
    "named",
    "named_fields",
    "node",
    "options",
    "prepare",
    "stand_in",
    "unwrap",
]


@dataclass(frozen=True, slots=True)
class Wants:
    """The fields that a node takes: `required` and `optional` names, or also any other (`rest`).

    `texts`: fields of a signature that are text, for which a Prediction is written out.
    """

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    rest: bool = False
    texts: frozenset[str] = frozenset()
    positional: bool = False


@dataclass(slots=True)
class Prepared:
    """A node, looked at once. `module`: dspy.Module. `threaded`: it blocks, so it gets a thread. `shown`: the name of a
    fallback, for people. `memory`: see `_layers.py`.
    """

    name: str
    target: Any
    wants: Wants
    options: Options
    module: bool
    threaded: bool
    signed: bool = False
    shown: str = ""
    fallback: Prepared | None = None
    memory: Any = None
    call: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]] = field(init=False)
    """Start it with its fields; a coroutine."""
    only: str = field(init=False, default="")
    """The one field that it takes, as it is; "" for any other number of them."""

    def __post_init__(self) -> None:
        wants = self.wants
        if len(wants.required) == 1 and not (wants.optional or wants.rest or self.signed):
            self.only = wants.required[0]
        if self.threaded:
            self.call = functools.partial(_call_thread, self.target, self.wants.positional)
        elif self.module:
            self.call = functools.partial(_call_module, self.target)
        else:
            self.call = functools.partial(_call_function, self.target)

    def select(self, visible: Mapping[str, Any]) -> dict[str, Any]:
        """The node's fields out of the visible ones. Raises KeyError for a missing one."""
        wants = self.wants
        if wants.rest:
            for name in wants.required:
                visible[name]
            return dict(visible)
        chosen = {name: visible[name] for name in wants.required} if wants.required else {}
        if wants.optional:
            chosen.update({name: visible[name] for name in wants.optional if name in visible})
        return {name: as_input(value, name in wants.texts) for name, value in chosen.items()} if self.signed else chosen

    def alone(self, known: Iterable[str] = ()) -> str | None:
        """The one field that it wants besides the known ones, None when there are none or several."""
        missing = [name for name in self.wants.required if name not in known]
        return missing[0] if len(missing) == 1 else None


# Plain `target(**fields)` in a partial would not do: a task wants a coroutine, not any awaitable, and a target may be
# an object with an async __call__. One wrapper frame costs 0.1 us.


def _call_function(target: Any, fields: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    coroutine: Coroutine[Any, Any, Any] = target(**fields)
    return coroutine


def _call_module(target: Any, fields: dict[str, Any]) -> Coroutine[Any, Any, Any]:
    coroutine: Coroutine[Any, Any, Any] = target.acall(**fields)
    return coroutine


async def _call_thread(target: Any, positional: bool, fields: dict[str, Any]) -> Any:  # noqa: FBT001 (private)
    args, kwargs = (tuple(fields.values()), {}) if positional else ((), fields)
    result = await in_thread(target, args, kwargs)
    if inspect.isawaitable(result):  # a lambda or a partial that hides an async function
        result = await result
    return result


def prepare(name: str, target: Any, options: Options) -> Prepared:
    """Look at a node. Raises BadInput for what is no node."""
    if isinstance(target, dspy.Module):
        wants, signed = _wants_of_module(target)
        threaded = not (hasattr(target, "aforward") and inspect.iscoroutinefunction(target.aforward))
        return Prepared(name, target, wants, options, module=True, threaded=threaded, signed=signed)
    wants = _wants_of_function(target)
    return Prepared(name, target, wants, options, module=False, threaded=wants.positional or not is_async(target))


def stand_in(name: str, prepared: Prepared, target: Any, own: Node) -> Prepared:
    """The fallback of a node, looked at. Raises BadInput for one that wants other fields."""
    found = prepare("fallback", target, own.options)
    found.shown = own.name or default_name(target, 1, "fallback")
    prepared.fallback = found
    given, positional = prepared.wants, found.wants.positional and len(prepared.wants.required) == 1
    missing = [field for field in found.wants.required if field not in given.required]
    if missing and not given.rest and not positional:
        raise BadInput(
            f"the fallback {found.shown!r} of node {name!r} needs {missing[0]!r}; it gets what the node takes in any "
            f"case: {', '.join(given.required) or 'no fields'}"
        )
    return found


def is_async(target: Any) -> bool:
    """Is it an async function, or an object that is called as one?"""
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004


def _wants_of_module(module: Any) -> tuple[Wants, bool]:
    """Fields by the module's own word, the parameters of its forward, or, where that takes anything, its signature."""
    own = getattr(module, "_wants", None)
    if own is not None:
        return own(), False
    method = getattr(module, "aforward", None) or getattr(type(module), "forward", None)
    if method is None:
        raise BadInput(f"{type(module).__name__} has neither forward nor aforward")
    parameters = list(inspect.signature(method).parameters.values())
    if not hasattr(module, "aforward"):
        parameters = parameters[1:]  # the function of the class: asking the instance for `forward` makes DSPy warn
    wants = _wants_of_parameters(parameters)
    signature: Any = getattr(module, "signature", None)
    if not hasattr(signature, "input_fields"):
        # ChainOfThought and its kin take whatever their one predictor takes.
        signature = getattr(getattr(module, "predict", None), "signature", None)
    if not wants.rest or not hasattr(signature, "input_fields"):
        return wants, False
    inputs = signature.input_fields
    required = tuple(name for name, info in inputs.items() if info.is_required())
    optional = tuple(name for name in inputs if name not in required)
    texts = frozenset(name for name, info in inputs.items() if info.annotation is str)
    return Wants(required, optional, texts=texts), True


def _wants_of_function(target: Any) -> Wants:
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:  # a builtin that tells nothing: one value, by position
        return Wants(("value",), positional=True)
    return _wants_of_parameters(parameters)


def _wants_of_parameters(parameters: Iterable[inspect.Parameter]) -> Wants:
    required: list[str] = []
    optional: list[str] = []
    rest = positional = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            (required if parameter.default is parameter.empty else optional).append(parameter.name)
            positional |= parameter.kind is parameter.POSITIONAL_ONLY
    if positional:
        optional = []
    if positional and len(required) != 1:
        raise BadInput("a node takes its inputs by name; wrap a function with positional-only parameters in a lambda")
    return Wants(tuple(required), tuple(optional), rest, positional=positional)


def check_target(target: Any, where: str) -> None:
    """Raises BadInput for what can't be a node, such as a class or a value."""
    if isinstance(target, type) or not callable(target):
        hint = "; call it to make a module" if isinstance(target, type) else ""
        raise BadInput(f"{where}: expected a dspy.Module or a function, got {target!r}{hint}")


def check_concurrency(concurrency: object) -> None:
    """Raises BadInput unless it is None or an int of 1 or more."""
    if concurrency is not None and not (isinstance(concurrency, int) and concurrency >= 1):
        raise BadInput(f"concurrency: expected 1 or more, or None, got {concurrency!r}")


def named(found: Node, name: str, timeout: float | None = None) -> Node:
    """The node under a name, with a default timeout. Raises BadInput for a name that is no field name."""
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("dspy_"):
        raise BadInput(f"node name {name!r}: expected letters, digits and _, since it is also the name of a field")
    check_target(found.target, f"node {name!r}")
    if timeout is not None and found.options.timeout is None:
        found = replace(found, options=replace(found.options, timeout=options(timeout, None, name).timeout))
    return replace(found, name=name)


def default_name(target: Any, index: int, stem: str = "step") -> str:
    """`retrieve` for a function, `predict` for a dspy.Predict, `step3` for what has no name."""
    if isinstance(target, dspy.Module):
        return type(target).__name__.lower()
    while isinstance(target, functools.partial):
        target = target.func
    name = getattr(target, "__name__", "").strip("_")
    return name if name.isidentifier() else f"{stem}{index}"


def free_name(name: str, taken: Container[str]) -> str:
    """`predict`, then `predict_2`, ..."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def fields_of(result: Any) -> Mapping[str, Any] | None:
    """The named fields of a result: a Prediction's, an Example's or a dict's; None for a bare value."""
    if isinstance(result, dspy.Example):
        fields: Mapping[str, Any] = dict(result.items())
        return fields
    if isinstance(result, Mapping) and all(isinstance(key, str) for key in result):
        return result
    return None


def named_fields(name: str, result: Any) -> Mapping[str, Any]:
    """The result's own fields, or a bare value under its node's name."""
    given = fields_of(result)
    return {name: result} if given is None else given


def as_input(value: Any, text: bool) -> Any:  # noqa: FBT001 (private)
    """A branch's Prediction as a language model should read it: its one field, or its fields, as lines for a text."""
    if not isinstance(value, dspy.Prediction):
        return value
    fields = dict(value.items())
    if len(fields) == 1:
        return next(iter(fields.values()))
    return "\n".join(f"{name}: {item}" for name, item in fields.items()) if text else fields
