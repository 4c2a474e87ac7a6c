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
from decimal import Decimal
from typing import Any

import dspy

from escalade.errors import BadInput
from escalade.money import Money
from escalade.pipelines._bridge import in_thread
from escalade.pipelines._operators import Operators
from escalade.scopes import Principal


@dataclass(frozen=True, slots=True)
class Options:
    """How one node is run. `timeout`: seconds. `budget`: nano-dollars, or `share` of what the scope has left (0 to
    1). `principal`: in whose name.
    """

    timeout: float | None = None
    budget: Money | None = None
    share: float | None = None
    principal: Principal | None = None

    @property
    def narrows(self) -> bool:
        """Does it need a scope of its own?"""
        return self.budget is not None or self.share is not None or self.principal is not None

    @property
    def empty(self) -> bool:
        return self.timeout is None and not self.narrows


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Node(Operators):
    """A module or function with options, made by `node(...)`."""

    target: Any
    name: str | None = None
    options: Options = NO_OPTIONS


def node(
    target: Any,
    *,
    name: str | None = None,
    timeout: float | None = None,
    budget: str | Decimal | Money | float | None = None,
    principal: Principal | None = None,
) -> Node:
    """`target`, a module or function, with options, to be put into a pipeline.

    `name`: its name in paths and, in a `Chain`, the field that takes a bare value. `timeout`: seconds from its start,
    then `NodeTimeout`; the scope's deadline holds besides. `budget`: what it may spend, as dollars (`"0.05"`) or as a
    float share of what the scope has left when it starts (`0.25`). `principal`: whose agent it is; it may do what both
    the caller and the principal may. Raises BadInput.

    >>> node(len, timeout=2.0).options.timeout
    2.0
    """
    return Node(target, name, replace(options(timeout, budget, name or "node"), principal=principal))


def options(timeout: float | None, budget: object, name: str) -> Options:
    """Checked options. Raises BadInput."""
    if timeout is not None and not timeout > 0:
        raise BadInput(f"timeout of {name!r}: expected more than 0 seconds, got {timeout!r}")
    if isinstance(budget, float):
        if not 0 < budget <= 1:
            raise BadInput(
                f"budget of {name!r}: a float is a share between 0 and 1, got {budget!r}; write dollars as text"
            )
        return Options(timeout, None, budget)
    return Options(timeout, None if budget is None else Money.of(budget), None)


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
    """A node, looked at once. `module`: dspy.Module. `threaded`: it blocks, so it gets a thread."""

    name: str
    target: Any
    wants: Wants
    options: Options
    module: bool
    threaded: bool
    signed: bool = False
    call: Callable[[dict[str, Any]], Coroutine[Any, Any, Any]] = field(init=False)
    """Start it with its fields; a coroutine."""

    def __post_init__(self) -> None:
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
    return Prepared(name, target, wants, options, module=False, threaded=wants.positional or not _is_async(target))


def _is_async(target: Any) -> bool:
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


def unwrap(item: Any) -> Node:
    """A Node for whatever was handed in."""
    return item if isinstance(item, Node) else Node(item)


def named(found: Node, name: str, timeout: float | None = None) -> Node:
    """The node under a name, with a default timeout. Raises BadInput for a name that is no field name."""
    if not name.isidentifier() or name.startswith("dspy_"):
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
