"""Attempts without an answer: who is to blame decides what becomes of them.

| what failed | in the table | afterwards |
| --- | --- | --- |
| the model or the program itself: a form that can't be read, a prompt that is too long | wrong | stays so |
| nobody answered: limits, timeouts, the network, an open circuit, a provider's error | wrong | `retry_failed` |
| nobody can answer: the key, the bill, the configuration, a permission, a price | not there: owed | the run ends |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from escalade.agents.climb import REFUSED
from escalade.errors import BadInput, BudgetExceeded, PermissionDenied, UnknownPrice
from escalade.registry.privacy.outlets import error_line

if TYPE_CHECKING:
    from escalade.agents.climb import Attempt
    from escalade.agents.escalate import Escalate

__all__ = ["check_retried", "check_usable", "error_kind", "unanswered"]

_LOCKED_OUT = {
    "LMAuthError": "put its key right",
    "LMBillingError": "see to its quota or its bill",
    "LMConfigurationError": "put its configuration right",
    "LMNotConfiguredError": "give it its key",
    "LMUnsupportedModelError": "name a model that the provider has",
}
"""What nobody will get an answer for before somebody has put it right, and what to do."""

_UNANSWERED = frozenset(
    {
        "RateLimited",
        "CircuitOpen",
        "DeadlineExceeded",
        "StoreUnavailable",
        "AuditUnavailable",
        "Overloaded",
        "NodeTimeout",
        "LMRateLimitError",
        "LMTimeoutError",
        "LMServerError",
        "LMTransportError",
        "LMLockTimeoutError",
        "LMProviderError",
        "LMUnexpectedError",
        "LMStreamAssemblyError",
        *_LOCKED_OUT,
    }
)


def unanswered(kind: str | None, only: str | None = None) -> bool:
    """Does an error of this kind mean that nobody answered? `only`: one kind of these."""
    return kind in _UNANSWERED and only in {None, kind}


def check_retried(only: str) -> None:
    """Raises BadInput for a kind of error that isn't made again."""
    if only not in _UNANSWERED:
        raise BadInput(
            f"retry_failed: {only!r} isn't made again: only what nobody answered is, which is one of "
            f"{', '.join(sorted(_UNANSWERED))}; asking a model until it is right would flatter it"
        )


def error_kind(error: BaseException) -> str:
    """The class of an error, as `errors.py` has it where it is one of ours in DSPy's form."""
    return next((c.__name__ for c in type(error).__mro__ if c.__module__ == "escalade.errors"), type(error).__name__)


def check_usable(program: Escalate, attempt: Attempt) -> None:
    """Raises what is no answer, and no wrong answer either: the study can't be made like this. What only somebody can
    put right is a BadInput that says what.
    """
    error = attempt.error
    if isinstance(error, PermissionDenied | UnknownPrice):
        raise error
    if isinstance(error, BudgetExceeded) and attempt.status == REFUSED:
        return  # DSPy knows it as an error of billing
    if error is not None and (what := _LOCKED_OUT.get(error_kind(error))) is not None:
        model = program.model_of(attempt.rung)
        raise BadInput(
            f"rung {program.rungs[attempt.rung].name!r}: model {model.name!r} ({model.id}) can't answer: "
            f"{error_line(error)}; {what} and run it again: what was recorded is kept, and this isn't counted as an "
            f"answer of the model"
        ) from error
