"""Our errors in the forms that DSPy needs. Both are subclasses: `except BudgetExceeded` catches them all the same.

`for_dspy`: DSPy replaces any exception out of an engine that isn't one of its own `LMError`s by an `LMUnexpectedError`,
and retries some. A refusal that is an `LMError` as well crosses that boundary by identity and is never retried.

`for_model`: ReAct and ReActV2 show a failing tool's exception to the model with five frames of traceback, each with
paths of this machine. An error that a governed tool raises has none to show, and is one line long.
"""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any, TypeVar

from escalade.errors import BudgetExceeded, EscaladeError

E = TypeVar("E", bound=EscaladeError)


def for_dspy(error: E) -> E:
    """The same error, also a `dspy.LMError` that DSPy doesn't retry. `__cause__` is the original."""
    kind: Any = type(error)
    cls: type[E] = _both(kind)
    if isinstance(error, cls):
        return error
    twin: E = Exception.__new__(cls)
    Exception.__init__(twin, *error.args)
    twin.__dict__.update(_lm_fields(), **error.__dict__)
    twin.__dict__["message"] = str(error)
    twin.__cause__ = error
    return twin


def for_model(error: E) -> E:
    """The same error, in one line and without a traceback in `__traceback__` (debuggers and loggers have theirs)."""
    kind: Any = type(error)
    cls: type[E] = _untraced(kind)
    if isinstance(error, cls):
        return error
    twin: E = Exception.__new__(cls)
    Exception.__init__(twin, " ".join(str(error).split()))
    twin.__dict__.update(error.__dict__)
    return twin


@functools.cache
def _untraced(cls: Any) -> Any:
    if hasattr(cls, "_shown_to_models"):
        return cls
    return _subclass(cls, (cls,), _untraced, __traceback__=_NO_TRACEBACK, _shown_to_models=True)


def _set_traceback(error: BaseException, trace: TracebackType | None) -> None:
    vars(BaseException)["__traceback__"].__set__(error, trace)


_NO_TRACEBACK = property(lambda _: None, _set_traceback)


@functools.cache
def _both(cls: Any) -> Any:
    from dspy.utils.exceptions import LMBillingError, LMError

    if issubclass(cls, LMError):
        return cls
    base = LMBillingError if issubclass(cls, BudgetExceeded) else LMError
    return _subclass(cls, (cls, base), _both)


def _subclass(cls: Any, bases: tuple[Any, ...], make: Any, **body: Any) -> Any:
    plain = getattr(cls, "_plain", cls)
    names = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__str__": _text, "__reduce__": _reduced}
    return type(cls.__name__, bases, {**names, "_plain": plain, "_make": staticmethod(make), **body})


@functools.cache
def _lm_fields() -> dict[str, object]:
    """The attributes that a DSPy error carries, at their defaults, whatever this DSPy version calls them."""
    from dspy.utils.exceptions import LMError

    return {**vars(LMError("")), "code": "refused"}


def _reduced(self: Any) -> tuple[Any, ...]:
    """Pickled by the class that can be imported, and made a twin again on the other side."""
    return _remade, (self._make, self._plain, self.args), self.__dict__.copy()


def _remade(make: Any, cls: Any, args: tuple[Any, ...]) -> EscaladeError:
    error: EscaladeError = Exception.__new__(make(cls))
    Exception.__init__(error, *args)
    return error


def _text(self: Exception) -> str:
    return str(self.args[0]) if self.args else type(self).__name__
