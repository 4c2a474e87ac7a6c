"""What a failing node raises, and how it gets the path of the node.

A failure is a `NodeError`, with the original as its `__cause__`, and at the same time of the original's class where
Python can build such a class: `except NodeError`, `except ValueError` and `except dspy.ContextWindowExceededError` all
catch what they name, and so do DSPy's optimisers, which look for `AdapterParseError`. An ExceptionGroup never leaves a
pipeline: the first failure is the one that cancelled the others, so it is the one that is raised.

Refusals of the guard (`Refused`), `ScopeError`, cancellation and everything that is no `Exception` pass by identity; a
refusal gets the path as its `path`, and as a note, which a traceback prints.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import Any, cast

from escalade.errors import EscaladeError, NodeError, NodeTimeout, Refused, ScopeError


class Failure(NodeError):
    """A NodeError that can be told which nodes it passes on its way out. `reason`: its message without the path."""

    reason: str

    def __str__(self) -> str:
        return f"node {self.path!r}: {self.reason}"  # KeyError and OSError would print themselves otherwise

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made at run time, so it is made again where the pickle is read.
        return _again, (self.path, self.reason, self.__cause__, isinstance(self, NodeTimeout))


def join(head: str, tail: str) -> str:
    """The path of node `tail` in node `head`."""
    if not head or not tail:
        return head or tail
    return head + tail if tail.startswith("[") else f"{head}/{tail}"


def failed(path: str, error: BaseException) -> BaseException:
    """What to raise for `error`, which left the node `path` (relative to the pipeline that raises)."""
    if not isinstance(error, Exception):
        return error
    if isinstance(error, Failure):
        error.path = join(path, error.path)
        return error
    if isinstance(error, (Refused, ScopeError)):
        _note(error, path)
        return error
    return _build(path, _reason(error), error)


def timed_out(path: str, seconds: float) -> NodeTimeout:
    """The node `path` gave no result within its own timeout of `seconds`. It is a TimeoutError too."""
    reason = f"no result within its timeout of {seconds:g} s"
    late: Any = _fill(_mixed(NodeTimeout, TimeoutError), path, reason)
    return cast("NodeTimeout", late)


def text(error: BaseException) -> str:
    """`"ValueError: boom"`, for events."""
    if isinstance(error, Failure):
        kind = "NodeTimeout" if isinstance(error, NodeTimeout) else type(error.__cause__ or error).__name__
        return f"{kind}: {error.__cause__ or error.reason}"
    return f"{type(error).__name__}: {error}"


def _reason(error: BaseException) -> str:
    said = str(error)
    if isinstance(error, EscaladeError) and said:
        return said  # a sentence of ours
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _note(error: EscaladeError, path: str) -> None:
    """Refusals keep their identity; the path says where. Each level puts its node in front."""
    mark, inner = "in node ", error.path
    error.path = join(path, inner)
    notes = getattr(error, "__notes__", [])
    if mark + inner in notes:
        notes[notes.index(mark + inner)] = mark + error.path
    else:
        error.add_note(mark + error.path)


def _build(path: str, reason: str, error: Exception) -> Failure:
    try:
        kind: Any = type(error)
        failure = _fill(_mixed(Failure, kind), path, reason)
        _carry(error, failure)
    except Exception:  # noqa: BLE001  # an unusual class: final, or of a layout that doesn't mix; the cause remains
        failure = _fill(Failure, path, reason)
    failure.__cause__ = error
    return failure


def _fill(kind: type[Failure], path: str, reason: str) -> Failure:
    failure = kind.__new__(kind, path, reason)
    failure.args = (path, reason)
    failure.path, failure.reason = path, reason
    return failure


def _carry(error: Exception, failure: Failure) -> None:
    """Give the failure the original's own attributes, such as `errno` or `retry_after`."""
    for name, value in vars(error).items():
        if name not in ("path", "reason", "__notes__"):
            setattr(failure, name, value)
    for kind in type(error).__mro__:
        if kind is Exception:
            break
        for name, member in vars(kind).items():
            slot = isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType))
            if slot and not name.startswith("_") and name not in ("path", "reason"):
                with contextlib.suppress(AttributeError, TypeError):
                    setattr(failure, name, getattr(error, name))


@functools.lru_cache(maxsize=256)
def _mixed(ours: Any, theirs: Any) -> Any:
    """A class that is ours and theirs. Raises TypeError where Python can't build one."""
    bases: tuple[type, ...] = (ours, theirs) if issubclass(ours, Failure) else (Failure, ours, theirs)
    if issubclass(Failure, theirs):
        bases = (Failure,) if issubclass(Failure, ours) else (Failure, ours)
    return type(theirs.__name__, bases, {"__module__": theirs.__module__, "__doc__": theirs.__doc__})


def _again(path: str, reason: str, cause: Exception | None, late: bool) -> Failure:  # noqa: FBT001 (for pickle only)
    if late:
        return _fill(_mixed(NodeTimeout, TimeoutError), path, reason)
    return _fill(Failure, path, reason) if cause is None else _build(path, reason, cause)
