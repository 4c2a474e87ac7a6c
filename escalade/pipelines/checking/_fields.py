"""What a node takes and gives, by name and type, as far as its signature or its annotations tell."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Awaitable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

import dspy
import pydantic

from escalade.pipelines._node import Prepared
from escalade.pipelines.checking._types import Record, alternatives, not_required, union

NOTHING: Any = object()
"""No bare value."""


@dataclass(frozen=True)
class Takes:
    """Name -> type of what a node needs, and of what it takes if it is there; `rest`: also anything else. `converts`:
    names of those that are written out for a model, or go through pydantic. `paths`: of the nodes of a pipeline that
    take them.
    """

    required: Mapping[str, Any] = field(default_factory=dict)
    optional: Mapping[str, Any] = field(default_factory=dict)
    rest: bool = False
    converts: frozenset[str] = frozenset()
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Gives:
    """Name -> type of the fields of a node's result. `sometimes`: those that may be missing. `open`: there may be
    others. `bare`: the type of a value that has no field names, NOTHING for a result that has. `whole`: the type of the
    result as it is.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    sometimes: frozenset[str] = frozenset()
    open: bool = False
    bare: Any = NOTHING
    whole: Any = Any


UNKNOWN = Gives(open=True, bare=Any)


def takes_of(node: Prepared) -> Takes:
    """What the node takes. For a pipeline, what it needs from outside."""
    known = plan_of(node.target)
    if known is not None:
        takes: Takes = known.traffic.takes
        return takes
    wants = node.wants
    types = _inputs(node)
    required = {name: types.get(name, Any) for name in wants.required}
    optional = {name: types.get(name, Any) for name in wants.optional}
    converted = node.signed or hasattr(node.target, "raw_function")  # a function under pydantic's validate_call
    return Takes(required, optional, wants.rest, frozenset({*required, *optional} if converted else ()))


def gives_of(node: Prepared) -> Gives:
    """What the node gives, or its fallback; UNKNOWN where nothing tells."""
    own = _gives_of(node)
    return own if node.fallback is None else one_of([own, gives_of(node.fallback)])


def _gives_of(node: Prepared) -> Gives:
    known = plan_of(node.target)
    if known is not None:
        gives: Gives = known.traffic.gives
        return gives
    if node.module:
        told = _of_signature(node.target)
        if told is not None:
            return told
    return _of_annotation(hints(_function(node.target)).get("return", Any), module=node.module)


def one_of(given: Iterable[Gives]) -> Gives:
    """What one of several nodes gives, whichever it is."""
    given = list(given)
    names = list(dict.fromkeys(name for one in given for name in one.fields))
    fields = {name: union(one.fields[name] for one in given if name in one.fields) for name in names}
    always = {name for name in names if all(name in one.fields and name not in one.sometimes for one in given)}
    bare = [one.bare for one in given if one.bare is not NOTHING]
    return Gives(
        fields,
        frozenset(names) - always,
        any(one.open for one in given),
        union(bare) if bare else NOTHING,
        union(one.whole for one in given),
    )


def plan_of(target: Any) -> Any:
    """The plan of a pipeline, None for any other node."""
    look = getattr(target, "_look", None) if isinstance(target, dspy.Module) else None
    return None if look is None else look()


def named(name: str, gives: Gives) -> Gives:
    """The same, where a bare value is called by the name of its node; what a dataclass or a model has are fields."""
    if gives.bare is NOTHING or gives.open:
        return gives
    return dataclasses.replace(gives, fields={**parts(gives.bare), name: gives.bare})


def parts(type_: Any) -> dict[str, Any]:
    """The fields of a dataclass or of a pydantic model, none for any other type."""
    cls = get_origin(type_) or type_
    if not isinstance(cls, type) or issubclass(cls, dspy.Type):
        return {}
    if issubclass(cls, pydantic.BaseModel):
        return {name: info.annotation for name, info in cls.model_fields.items()}
    if dataclasses.is_dataclass(cls):
        known = hints(cls)
        return {one.name: known.get(one.name, Any) for one in dataclasses.fields(cls)}
    return {}


def parts_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass or of a pydantic model, with their values; none of any other value."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if hasattr(value, one.name)}
    if hasattr(kind, "__pydantic_fields__") and not issubclass(kind, dspy.Type):
        return {name: getattr(value, name) for name in kind.model_fields if hasattr(value, name)}
    return {}


def hints(target: Any) -> dict[str, Any]:
    """The annotations of a function or class; Any for one that can't be resolved."""
    try:
        return typing.get_type_hints(target)
    except Exception:  # noqa: BLE001 - one of them names what isn't there, or isn't a type; the others may be fine
        return {name: _resolved(target, said) for name, said in getattr(target, "__annotations__", {}).items()}


def _resolved(target: Any, said: Any) -> Any:
    if not isinstance(said, str):
        return said
    one = type("_", (), {"__annotations__": {"it": said}, "__module__": getattr(target, "__module__", "")})
    try:
        return typing.get_type_hints(one, getattr(target, "__globals__", None))["it"]
    except Exception:  # noqa: BLE001 - it stays unknown
        return Any


def _function(target: Any) -> Any:
    """Where the annotations of a node stand."""
    if isinstance(target, dspy.Module):
        return getattr(type(target), "aforward", None) or getattr(type(target), "forward", None)
    while isinstance(target, functools.partial):
        target = target.func
    if inspect.isroutine(target) or hasattr(target, "__wrapped__"):
        return target
    return getattr(type(target), "__call__", None)  # noqa: B004 (its annotations are asked for)


def _inputs(node: Prepared) -> Mapping[str, Any]:
    if not node.signed:
        return hints(_function(node.target))
    target = node.target
    signature: Any = getattr(target, "signature", None)
    if not hasattr(signature, "input_fields"):
        signature = target.predict.signature
    return {name: info.annotation for name, info in signature.input_fields.items()}


def _of_signature(module: Any) -> Gives | None:
    """The outputs of DSPy's and of our own modules; None for a module whose forward may return anything."""
    if type(module).__module__.partition(".")[0] not in ("dspy", "escalade"):
        return None
    signature = getattr(module, "signature", None)
    exact = type(module) is dspy.Predict
    if not hasattr(signature, "output_fields"):
        signature = getattr(getattr(module, "predict", None), "signature", None)
        exact = type(module) is dspy.ChainOfThought
    if signature is None or not hasattr(signature, "output_fields"):
        return None
    fields = {name: info.annotation for name, info in signature.output_fields.items()}
    return Gives(fields, open=not exact, whole=Record(fields, open=not exact))


def _of_annotation(told: Any, *, module: bool) -> Gives:
    told = _awaited(told)
    if typing.is_typeddict(told):
        return Gives(hints(told), not_required(told), whole=told)
    if module or not all(_is_value(one) for one in alternatives(told)):
        return Gives(open=True, bare=Any, whole=told)
    return Gives(bare=told, whole=told)


def _awaited(told: Any) -> Any:
    while get_origin(told) in (Awaitable, Coroutine):
        told = get_args(told)[-1]
    return told


def _is_value(told: Any) -> bool:
    """Is it one value, certainly, and no fields by name?"""
    if get_origin(told) is typing.Literal:
        return True
    cls = get_origin(told) or told
    if told is Any or not isinstance(cls, type) or typing.is_typeddict(cls):
        return False
    return not issubclass(cls, (Mapping, dspy.Example)) and not issubclass(Mapping, cls)
