"""Does a function use a model or a tool? Looked up in what its code can reach: globals, closures, defaults, objects.

Libraries aren't looked into, other than the one that the function itself is of: what they call, they were given by code
that is. What is made up while it runs (`getattr`, `eval`, an import by a computed name) can't be seen.
"""

from __future__ import annotations

import builtins
import functools
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any

import dspy

MOST = 20_000
"""Objects that are looked at, about 1 us each; a function that reaches more is unknown."""

_PLAIN = (str, bytes, int, float, complex, bool, types.NoneType, types.EllipsisType)
_HELD = (list, tuple, set, frozenset)


@functools.cache
def _users() -> tuple[type, ...]:
    """What calls models and tools, or finds those that do."""
    from escalade.agents.gateway import Gateway
    from escalade.registry.catalogue import Registry
    from escalade.registry.governed import GovernedTool

    return (dspy.Module, dspy.BaseLM, dspy.Tool, type(dspy.settings), GovernedTool, Registry, Gateway)


def reached(target: Any) -> str:
    """Why nobody knows what a call of it costs, "" where nothing in it uses a model or a tool."""
    try:
        return next((f"its code uses {_name(one)}" for one in users_of(target)), "")
    except OverflowError:
        return "its code reaches more than can be looked at"


def users_of(target: Any) -> Iterator[Any]:
    """Tools, modules, models and what finds them, as far as code and objects lead there. Raises OverflowError for more
    than `MOST` objects.
    """
    own, users = _package(target), _users()
    seen: dict[int, Any] = {}  # the objects, too: one that is gone leaves its id to another
    waiting = list(_parts(target, own))  # a module is asked for what it holds, not for being one
    while waiting:
        one = waiting.pop()
        if isinstance(one, _PLAIN) or id(one) in seen:
            continue
        seen[id(one)] = one
        if len(seen) > MOST:
            raise OverflowError
        if isinstance(one, users) or (isinstance(one, type) and issubclass(one, users)):
            yield one
        else:
            waiting.extend(_parts(one, own))


def _parts(one: Any, own: str) -> Iterator[Any]:
    """What it is made of, one step further."""
    if isinstance(one, functools.partial):
        yield from (one.func, *one.args, *one.keywords.values())
    elif isinstance(one, types.MethodType):
        yield from (one.__func__, one.__self__)
    elif isinstance(one, types.FunctionType):
        if not _of_library(one.__module__, own):
            yield from _of_function(one)
    elif isinstance(one, Mapping):
        yield from list(one.values())
    elif isinstance(one, _HELD):
        yield from list(one)
    elif isinstance(one, type):
        yield from _methods(one, own)
    elif not isinstance(one, types.ModuleType):
        yield from list(getattr(one, "__dict__", {}).values())
        yield from _methods(type(one), own)


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from _named(function.__code__, function.__globals__)


def _named(code: types.CodeType, known: Mapping[str, Any]) -> Iterator[Any]:
    """What the names in it stand for; of modules, what it may take from them."""
    for name in code.co_names:
        found = known.get(name, sys.modules.get(name) if not hasattr(builtins, name) else None)
        if isinstance(found, types.ModuleType):
            given = {*vars(found), *getattr(found, "__all__", ())}  # some names are imported by whoever asks first
            yield from (getattr(found, part, None) for part in code.co_names if part in given)
        else:
            yield found
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _named(inner, known)


def _methods(cls: type, own: str) -> Iterator[Any]:
    """What a class and its bases define, as far as they are no library's."""
    for base in cls.__mro__:
        if not _of_library(base.__module__, own):
            for value in list(vars(base).values()):
                yield getattr(value, "fget", None) or getattr(value, "__func__", value)


def _of_library(module: str | None, own: str) -> bool:
    """Is it of Python, of DSPy, of escalade, or installed, and not of the package that is looked at?"""
    package = "builtins" if module is None else module.partition(".")[0]
    if package in {"builtins", "escalade", "dspy"}:
        return True
    file = getattr(sys.modules.get(str(module)), "__file__", None)
    return package != own and file is not None and file.startswith(_libraries())


def _package(target: Any) -> str:
    while isinstance(target, functools.partial):
        target = target.func
    return str(getattr(target, "__module__", None)).partition(".")[0]


@functools.cache
def _libraries() -> tuple[str, ...]:
    return tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _name(one: Any) -> str:
    from escalade.registry.governed import GovernedTool

    if isinstance(one, GovernedTool):
        return f"the tool {one.spec.label}"
    return (one if isinstance(one, type) else type(one)).__name__
