"""Our errors in a form that crosses DSPy's engine boundary by identity.

DSPy replaces any exception that isn't one of its own `LMError`s by an `LMUnexpectedError`, and retries some. So a
refusal is raised there as a subclass of both: `except BudgetExceeded` catches it, DSPy passes it on and never retries
it.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from escalade.errors import BudgetExceeded, EscaladeError

E = TypeVar("E", bound=EscaladeError)


def for_dspy(error: E) -> E:
    """The same error, also a `dspy.LMError` that DSPy doesn't retry. `__cause__` is the original."""
    cls: type[E] = _both(type(error))
    if isinstance(error, cls):
        return error
    twin: E = Exception.__new__(cls)
    Exception.__init__(twin, *error.args)
    twin.__dict__.update(_lm_fields(), **error.__dict__)
    twin.__dict__["message"] = str(error)
    twin.__cause__ = error
    return twin


@functools.cache
def _both(cls: Any) -> Any:
    from dspy.utils.exceptions import LMBillingError, LMError

    if issubclass(cls, LMError):
        return cls
    base = LMBillingError if issubclass(cls, BudgetExceeded) else LMError
    body = {
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
        "__str__": _text,
        "__reduce__": _reduced,
        "_plain": cls,
    }
    return type(cls.__name__, (cls, base), body)


@functools.cache
def _lm_fields() -> dict[str, object]:
    """The attributes that a DSPy error carries, at their defaults, whatever this DSPy version calls them."""
    from dspy.utils.exceptions import LMError

    return {**vars(LMError("")), "code": "refused"}


def _reduced(self: Any) -> tuple[Any, ...]:
    """Pickled by the class that can be imported, and made a twin again on the other side."""
    return _remade, (self._plain, self.args), self.__dict__.copy()


def _remade(cls: type[EscaladeError], args: tuple[Any, ...]) -> EscaladeError:
    error: EscaladeError = Exception.__new__(_both(cls))
    Exception.__init__(error, *args)
    return error


def _text(self: Exception) -> str:
    return str(self.args[0]) if self.args else type(self).__name__
