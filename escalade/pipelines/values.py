"""Values as JSON and back, exactly: what a durable run or a cache keeps of nodes' inputs and results.

    >>> codec = Codec()
    >>> codec.loads(codec.dumps({"pair": (1, 2.5), 3: {"x"}}))
    {'pair': (1, 2.5), 3: {'x'}}

Plain JSON stands for itself; anything else is `{"$": kind, "v": ...}`. Kinds: tuple, set, frozenset, dict (with other
keys than text), bytes, int (beyond 64 bits), float (nan, inf), datetime, date, time, timedelta, Decimal, Money, Enum,
dataclasses, pydantic models, DSPy's Prediction and Example and our own kinds of them. Classes are named by module;
reading looks the name up among those that this codec was given, and imports nothing but modules of escalade: a file
that was tampered with can name nothing else. Never a pickle. What can't come back as it was is refused when it is
written; except for exceptions, as in the statuses of a fan-out, which come back as a `RunError` with their message.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import functools
import hashlib
import importlib
import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import dspy
import orjson
import pydantic

from escalade.errors import BadInput, RunError
from escalade.money import Money

MARK = "$"
_DEPTH = 200
_SMALL = 2**63
_PLAIN = frozenset({str, bool, type(None)})


class NotPlain(BadInput):
    """The value isn't plain data: it can't be kept so that it comes back as it was. The message says what of it."""


class Codec:
    """Writes and reads values. `types`: classes (dataclasses, pydantic models, enums) that it may write and read, with
    all that their fields name; those of DSPy's own types are known.
    """

    def __init__(self, types: Iterable[Any] = ()) -> None:
        self._classes: dict[str, type] = {}
        self._seen: set[int] = set()
        self.allow(*_dspy_types(), *types)

    def allow(self, *types: Any) -> None:
        """Also these classes, or annotations that name classes."""
        for one in types:
            self._allow(one)

    def _allow(self, one: Any) -> None:
        for argument in typing.get_args(one):
            self._allow(argument)
        if not isinstance(one, type) or typing.get_origin(one) is not None or id(one) in self._seen:
            return
        if not _is_data(one):
            return
        self._seen.add(id(one))
        self._classes[_name(one)] = one
        for annotation in _annotations(one).values():
            self._allow(annotation)

    def _known(self, name: str) -> type | None:
        return self._classes.get(name) or _ours(name)

    def _class(self, name: str) -> type:
        """Raises NotPlain for a class that this codec doesn't know."""
        found = self._known(name)
        if found is None:
            raise NotPlain(f"of class {name}, which no node declares and types= doesn't name")
        return found

    # -- writing

    def dumps(self, value: Any) -> bytes:
        """The value as JSON. Raises NotPlain."""
        try:
            return orjson.dumps(self._write(value, 0))
        except (TypeError, UnicodeEncodeError) as error:  # lone surrogates; orjson's errors are TypeErrors
            raise NotPlain(f"not plain data: {error}") from None

    def digest(self, value: Any) -> str:
        """32 hex digits, the same for equal values whatever the order of fields and sets. Raises NotPlain."""
        try:
            told = orjson.dumps(self._write(value, 0), option=orjson.OPT_SORT_KEYS)
        except (TypeError, UnicodeEncodeError) as error:
            raise NotPlain(f"not plain data: {error}") from None
        return hashlib.blake2b(told, digest_size=16).hexdigest()

    def _write(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is int or kind is float:
            return _number(value)
        if depth > _DEPTH:
            raise NotPlain(f"nested more than {_DEPTH} levels deep, or within itself")
        if kind is list:
            return [self._write(item, depth + 1) for item in value]
        if kind is dict:
            return self._write_dict(value, depth)
        return self._write_marked(kind, value, depth + 1)

    def _write_marked(self, kind: type, value: Any, depth: int) -> Any:
        if kind in _FLAT:
            mark, told, _ = _FLAT[kind]
            return _marked(mark, told(value))
        if kind in _WRITERS:
            return _WRITERS[kind](self, value, depth)
        if isinstance(value, dspy.Example):
            return _write_example(self, value, depth)
        if isinstance(value, BaseException):
            return _marked("error", _write_error(value))
        return self._write_object(kind, value, depth)

    def _write_dict(self, value: dict[Any, Any], depth: int) -> Any:
        if MARK not in value and all(type(key) is str for key in value):
            return {key: self._write(item, depth + 1) for key, item in value.items()}
        pairs = [[self._write(key, depth + 1), self._write(item, depth + 1)] for key, item in value.items()]
        return _marked("dict", pairs)

    def _write_object(self, kind: type, value: Any, depth: int) -> Any:
        name = _name(kind)
        if self._known(name) is not kind:
            hint = "; annotate the node that returns it, or name the class in types=" if _is_data(kind) else ""
            raise NotPlain(f"of class {name}, which is not plain data{hint}")
        if issubclass(kind, enum.Enum):
            return {MARK: "enum", "c": name, "v": value.name}
        if issubclass(kind, pydantic.BaseModel):
            return {MARK: "model", "c": name, "v": self._write(_model_state(value), depth)}
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        more = {name for name in getattr(value, "__dict__", {}) if name not in fields}
        if more:
            raise NotPlain(f"a {_name(kind)} has attributes that are no fields: {', '.join(sorted(more))}")
        return {MARK: "data", "c": name, "v": self._write(fields, depth)}

    # -- reading

    def loads(self, kept: bytes | str) -> Any:
        """The value, a new one each time. Raises BadInput for what this codec didn't write or may not read."""
        try:
            return self._read(orjson.loads(kept))
        except BadInput:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
            raise BadInput(f"not a value as it is kept ({type(error).__name__}: {error})") from None

    def _read(self, told: Any) -> Any:
        kind = type(told)
        if kind is list:
            return [self._read(item) for item in told]
        if kind is not dict:
            return told
        if MARK not in told:
            return {key: self._read(item) for key, item in told.items()}
        return self._read_marked(told[MARK], told)

    def _read_marked(self, mark: str, told: dict[str, Any]) -> Any:
        if "c" in told:
            return self._read_object(mark, told)
        if mark == "prediction":
            return _read_example(self, told["p"], told["v"])
        if mark in _FLAT_READERS:
            return _FLAT_READERS[mark](told["v"])
        return _READERS[mark](self, told["v"])

    def _read_object(self, mark: str, told: dict[str, Any]) -> Any:
        cls: Any = self._class(told["c"])
        if mark == "enum" and issubclass(cls, enum.Enum):
            return cls[told["v"]]
        state = self._read(told["v"])
        if mark == "model" and issubclass(cls, pydantic.BaseModel):
            return _model(cls, state)
        names = {field.name for field in dataclasses.fields(cls)}
        if mark != "data" or set(state) != names:
            raise BadInput(f"a kept {told['c']} has the fields {sorted(state)}; the class has {sorted(names)}")
        made = object.__new__(cls)
        for name, value in state.items():
            object.__setattr__(made, name, value)  # no code of the class runs, and frozen ones are set, too
        return made


def _number(value: float) -> Any:
    """As it is, where JSON and a reader of it have such numbers."""
    if type(value) is int:
        return (
            value if -_SMALL <= value < _SMALL else _marked("int", hex(value))
        )  # Python reads no more than 4,300 decimal digits
    return value if math.isfinite(value) else _marked("float", repr(value))


def _marked(kind: str, value: Any) -> dict[str, Any]:
    return {MARK: kind, "v": value}


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _is_data(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) or issubclass(cls, enum.Enum | pydantic.BaseModel | dspy.Example)


@functools.cache
def _ours(name: str) -> Any:
    """A class of escalade itself, such as the Prediction that an agent returns."""
    module, _, qualname = name.partition(":")
    if name in ("dspy.primitives.prediction:Prediction", "dspy.primitives.example:Example"):
        return dspy.Prediction if qualname == "Prediction" else dspy.Example
    if not module.startswith("escalade.") or not qualname.isidentifier():
        return None
    try:
        found = getattr(importlib.import_module(module), qualname, None)
    except ImportError:
        return None
    return found if isinstance(found, type) and _is_data(found) and _name(found) == name else None


def _annotations(cls: type) -> dict[str, Any]:
    if issubclass(cls, enum.Enum | dspy.Example):
        return {}
    if issubclass(cls, pydantic.BaseModel):
        return {name: field.annotation for name, field in cls.model_fields.items()}
    try:
        return typing.get_type_hints(cls)
    except Exception:  # noqa: BLE001 - annotations that name what isn't there; their classes must be named by hand
        return {}


def declared(target: Any) -> list[Any]:
    """The annotations by which a node, a module or a function, declares what it takes and returns."""
    signature: Any = getattr(target, "signature", None) or getattr(getattr(target, "predict", None), "signature", None)
    found: list[Any] = []
    if hasattr(signature, "output_fields"):
        fields = {**signature.input_fields, **signature.output_fields}
        found = [field.annotation for field in fields.values()]
    function = getattr(target, "aforward", None) or target
    if isinstance(target, dspy.Module) and function is target:
        function = getattr(type(target), "forward", None)
    try:
        return [*found, *typing.get_type_hints(inspect.unwrap(function)).values()]
    except Exception:  # noqa: BLE001 - a builtin, a partial, an annotation of what isn't there
        return found


@functools.cache
def _dspy_types() -> tuple[type, ...]:
    from dspy import lm15

    shown = [
        getattr(dspy, name, None) for name in ("Image", "Audio", "File", "History", "Code", "ToolCalls", "Citations")
    ]
    parts = [getattr(lm15, name) for name in dir(lm15) if not name.startswith("_")]
    return tuple(one for one in (*shown, *parts) if isinstance(one, type) and _is_data(one))


# -- pydantic


def _model_state(value: pydantic.BaseModel) -> dict[str, Any]:
    return {
        "fields": dict(value.__dict__),
        "set": sorted(value.__pydantic_fields_set__),
        "extra": value.__pydantic_extra__,
        "private": value.__pydantic_private__,
    }


def _model(cls: Any, state: Mapping[str, Any]) -> Any:
    if not set(cls.model_fields) <= set(state["fields"]):
        raise BadInput(f"a kept {_name(cls)} has the fields {sorted(state['fields'])}; the class has others")
    made = cls.__new__(cls)
    object.__setattr__(made, "__dict__", state["fields"])
    object.__setattr__(made, "__pydantic_fields_set__", set(state["set"]))
    object.__setattr__(made, "__pydantic_extra__", state["extra"])
    object.__setattr__(made, "__pydantic_private__", state["private"])
    return made


# -- DSPy


def _write_example(codec: Codec, value: Any, depth: int) -> Any:
    state = vars(value)
    completions = state.get("_completions")
    kept = {name: item for name, item in state.items() if name not in ("_store", "_completions")}
    told = {"store": state["_store"], **{name: item for name, item in kept.items() if item is not None and item != []}}
    if completions is not None:
        told["completions"] = dict(completions.items())
    parts = [_name(part) for part in _parts(type(value)) if part is not dspy.Prediction]
    for name in parts:
        codec._class(name)
    return {MARK: "prediction", "p": parts, "v": codec._write(told, depth)}


def _parts(kind: Any) -> list[type]:
    """The classes that it was made of, at run time as the case may be."""
    made = vars(kind).get("_parts")
    return [kind] if made is None else [part for one in made for part in _parts(one)]


def _read_example(codec: Codec, parts: list[str], told: Any) -> Any:
    state = codec._read(told)
    classes: list[Any] = [codec._class(name) for name in parts] or [dspy.Prediction]
    made: Any = (dspy.Example if classes == [dspy.Example] else dspy.Prediction)()
    completions = state.pop("completions", None)
    if completions is not None:
        from dspy.primitives.prediction import Completions

        made._completions = Completions(completions)
    made._store = state.pop("store")
    if classes not in ([dspy.Example], [dspy.Prediction]):
        from escalade.pipelines._told import _both

        made.__class__ = functools.reduce(lambda theirs, ours: _both(ours, theirs), reversed(classes))
    vars(made).update(state)
    return made


def _write_error(value: BaseException) -> dict[str, Any]:
    return {
        "kind": getattr(value, "kind", "") or type(value).__name__,
        "message": str(value),
        "path": getattr(value, "path", ""),
    }


def _read_error(told: dict[str, str]) -> RunError:
    return RunError(told["message"], kind=told["kind"], path=told["path"])


# -- the rest


def _write_set(kind: str) -> Callable[[Codec, Any, int], Any]:
    def write(codec: Codec, value: Any, depth: int) -> Any:
        items = [codec._write(item, depth) for item in value]
        return _marked(kind, sorted(items, key=orjson.dumps))

    return write


def _told_time(value: dt.datetime | dt.time) -> list[Any]:
    zone = value.tzinfo
    if zone is None or type(zone) is dt.timezone:
        return [value.isoformat(), None, value.fold]
    named = getattr(zone, "key", None)
    if named is None:
        raise NotPlain(f"a {type(value).__name__} in a zone of class {_name(type(zone))}")
    return [value.replace(tzinfo=None).isoformat(), named, value.fold]


def _time(kind: Any) -> Callable[[Any], Any]:
    def read(told: Any) -> Any:
        text, zone, fold = told
        made = kind.fromisoformat(text)
        if zone is not None:
            from zoneinfo import ZoneInfo

            made = made.replace(tzinfo=ZoneInfo(zone))
        return made.replace(fold=fold)

    return read


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


_FLAT: dict[type, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: ("bytes", _base64, base64.b64decode),
    bytearray: ("bytearray", _base64, lambda told: bytearray(base64.b64decode(told))),
    Decimal: ("decimal", str, Decimal),
    Money: ("money", lambda value: str(int(value)), Money),
    dt.datetime: ("datetime", _told_time, _time(dt.datetime)),
    dt.time: ("time", _told_time, _time(dt.time)),
    dt.date: ("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.timedelta: (
        "timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda told: dt.timedelta(*told),
    ),
}
"""Kind, how it is written, how it is read: values without others in them."""

_WRITERS: dict[type, Callable[[Codec, Any, int], Any]] = {
    tuple: lambda codec, value, depth: _marked("tuple", [codec._write(item, depth) for item in value]),
    set: _write_set("set"),
    frozenset: _write_set("frozenset"),
}

_READERS: dict[str, Callable[[Codec, Any], Any]] = {
    "tuple": lambda codec, told: tuple(codec._read(item) for item in told),
    "set": lambda codec, told: {codec._read(item) for item in told},
    "frozenset": lambda codec, told: frozenset(codec._read(item) for item in told),
    "dict": lambda codec, told: {codec._read(key): codec._read(item) for key, item in told},
}

_FLAT_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda told: int(told, 0),
    "float": float,
    "error": _read_error,
    **{kind: read for kind, _, read in _FLAT.values()},
}
