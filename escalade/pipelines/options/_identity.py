"""What a call of a node is known by: which node, with which code and prompts, on which inputs, with whose rights.

A function is known by its name, its code and what it closes over; a module by the code of its classes, its state as
DSPy saves it (instructions, demos, fields), its settings and the principals of its nodes; both by the model that
answers. What changes while the pipeline lives, prompts and models, is looked at in each call; code, and what it closes
over, only once, and not the functions that it calls by name. An object that nobody can look into, such as a client that
a function closes over, makes the node known by this very pipeline object: other processes, and other pipelines, then
find none of its results.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import os
import types
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dspy
from dspy.predict.parameter import Parameter

from escalade.pipelines.values import Codec, NotPlain
from escalade.registry.canonical import digest
from escalade.registry.governed import GovernedTool

if TYPE_CHECKING:
    from escalade.pipelines._node import Prepared
    from escalade.scopes import Scope

_FORMAT = "node/1"
_PLAIN = (str, int, float, bool, bytes, type(None))
_DEPTH = 8

_process = uuid.uuid4().hex
_numbers = itertools.count(1)


def key_of(prepared: Prepared, code: str, fields: dict[str, Any], scope: Scope | None, codec: Codec, per: str) -> str:
    """Equal for calls that may have each other's results. `code`: see `code_of`. Raises NotPlain where the inputs
    aren't plain data, or the policy has no digest.
    """
    codec.allow(*(type(value) for value in fields.values()))
    inputs = codec.digest(fields)
    return digest([_FORMAT, prepared.name, code, _prompts(prepared), inputs, _rights(scope, per)])


def code_of(target: Any) -> str:
    """What the target is made of, apart from its prompts."""
    found = _Found()
    found.add(target, 0)
    if found.opaque:
        found.hash.update(f"{_process}/{os.getpid()}/{next(_numbers)}".encode())
    return found.hash.hexdigest()


def _rights(scope: Scope | None, per: str) -> Any:
    if scope is None:
        return None
    policy: Any = getattr(scope.access, "digest", None)
    if not isinstance(policy, str):
        raise NotPlain("its access policy has no digest to know it by")
    whose = [[p.tenant, p.user if per == "user" else "", sorted(p.roles)] for p in scope.principals]
    return [whose, policy, scope.mode]


def _prompts(prepared: Prepared) -> Any:
    if not prepared.module:
        return [_model(dspy.settings.get("lm"))]
    told = hashlib.sha256()
    for name, predictor in prepared.target.named_sub_modules(Parameter):  # those that are compiled and frozen, too
        told.update(f"{name}\n{_state(predictor)}\n{_model(getattr(predictor, 'lm', None))}\n".encode())
    adapter = type(dspy.settings.get("adapter")).__name__
    return [told.hexdigest(), _model(dspy.settings.get("lm")), adapter]


def _state(parameter: Any) -> str:
    import orjson

    state = parameter.dump_state() if hasattr(parameter, "dump_state") else {}
    plain = {name: value for name, value in state.items() if name not in ("lm", "traces", "train")}
    fields = getattr(getattr(parameter, "signature", None), "fields", {})
    plain["types"] = {name: repr(field.annotation) for name, field in fields.items()}
    return orjson.dumps(plain, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def _model(lm: Any) -> str:
    if lm is None:
        return ""
    kwargs = {name: value for name, value in getattr(lm, "kwargs", {}).items() if name != "api_key"}
    return f"{type(lm).__qualname__} {getattr(lm, 'model', '')} {sorted((k, repr(v)) for k, v in kwargs.items())}"


class _Found:
    """A digest of code and settings. `opaque`: something in it can't be looked into."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.opaque = False
        self._seen: dict[int, tuple[int, Any]] = {}  # the objects, too: one that is gone leaves its id to another

    def add(self, value: Any, depth: int) -> None:
        """A function, a module, a class, or what they hold."""
        if isinstance(value, _PLAIN):
            self._note(type(value).__name__, repr(value))
        elif depth > _DEPTH:
            self.opaque = True
        elif id(value) in self._seen:
            self._note("again", str(self._seen[id(value)][0]))
        else:
            self._seen[id(value)] = len(self._seen), value
            self._look(value, depth + 1)

    def _note(self, *words: str) -> None:
        self.hash.update("\0".join(words).encode("utf-8", "surrogatepass") + b"\1")

    def _look(self, value: Any, depth: int) -> None:
        if isinstance(value, functools.partial):
            self._note("partial")
            self._all([value.func, value.args, value.keywords], depth)
        elif isinstance(value, types.MethodType):
            self._all([value.__func__, value.__self__], depth)
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif isinstance(value, types.CodeType):
            self._note("code", value.co_code.hex(), *value.co_names, *value.co_varnames)
            self._all(value.co_consts, depth)
        elif isinstance(value, tuple | frozenset):
            self._note(type(value).__name__)
            self._all(value if isinstance(value, tuple) else sorted(value, key=repr), depth)
        elif isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
            self._note(
                "named", getattr(value, "__module__", None) or "", getattr(value, "__qualname__", value.__name__)
            )
        elif isinstance(value, GovernedTool):
            self._note("tool", value.spec.label)
        elif isinstance(value, dspy.Module):
            self._module(value, depth)
        elif dataclasses.is_dataclass(value):
            self._note("data", type(value).__qualname__)
            self._all([getattr(value, field.name) for field in dataclasses.fields(value)], depth)
        else:
            self._note("object", type(value).__qualname__)
            self.opaque = True

    def _all(self, values: Any, depth: int) -> None:
        for value in values.items() if isinstance(values, dict) else values:
            self.add(value, depth)

    def _function(self, function: types.FunctionType, depth: int) -> None:
        self._note("function", function.__module__, function.__qualname__)
        self.add(function.__code__, depth)
        self._all([function.__defaults__, tuple((function.__kwdefaults__ or {}).items())], depth)
        self._all((cell.cell_contents for cell in function.__closure__ or () if _filled(cell)), depth)

    def _module(self, module: Any, depth: int) -> None:
        """A module: its class, and what it holds. Its predictors' state is looked at in each call."""
        cls = type(module)
        self._note("module", cls.__module__, cls.__qualname__)
        for method in _methods(cls):
            self.add(method.__code__, depth)
        for name, options in vars(module).get("_options", {}).items():
            self._note(str(name))
            self.add(options.principal, depth)  # what it may do decides what it finds
        if isinstance(module, dspy.Predict):
            self._note("config", repr(sorted(module.config.items(), key=repr)))
            return
        for name, value in _held(module):
            self._note(name)
            if isinstance(value, dict | list):
                self._note(type(value).__name__)
                self._all(value, depth)
            else:
                self.add(value, depth)


_OWN = frozenset({"_compiled", "callbacks", "history", "_prepared", "_options", "_given"})


def _held(module: Any) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(vars(module).items()):
        if name not in _OWN:
            yield name, value


def _methods(cls: type) -> Iterator[types.FunctionType]:
    """What a module's class and its bases define, as far as they aren't DSPy's."""
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] not in ("dspy", "builtins"):
            for _, value in sorted(vars(base).items()):
                found = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if isinstance(found, types.FunctionType):
                    yield found


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
