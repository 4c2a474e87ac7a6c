"""A result that also knows how it came about, and stays what it was: a Prediction, an `Escalated`, an `AgentAnswer`."""

from __future__ import annotations

import copy
import functools
from typing import Any, TypeVar, cast

import dspy

P = TypeVar("P", bound=dspy.Prediction)


def told(kind: type[P], result: dspy.Prediction, **known: Any) -> P:
    """A copy of `result` that is of class `kind` too, and has the attributes `known`.

    The original is left alone: it may stand in a cache or in a trace. Fields are shared, not copied.
    """
    again, ours, theirs = copy.copy(result), cast("Any", kind), cast("Any", type(result))
    again.__class__ = _both(ours, theirs)
    again._store = dict(again._store)
    vars(again).update(known)
    return cast("P", again)


@functools.lru_cache(maxsize=256)
def _both(ours: Any, theirs: Any) -> Any:
    if issubclass(theirs, ours):
        return theirs
    if issubclass(ours, theirs):
        return ours
    body = {"__module__": theirs.__module__, "__doc__": theirs.__doc__, "__reduce__": _reduce, "_parts": (ours, theirs)}
    return type(theirs.__name__, (ours, theirs), body)


def _reduce(result: Any) -> tuple[Any, ...]:
    """The class is made at run time, so it is made again where the pickle is read."""
    return _again, result._parts, vars(result).copy()


def _again(ours: Any, theirs: Any) -> Any:
    kind = _both(ours, theirs)
    return kind.__new__(kind)
