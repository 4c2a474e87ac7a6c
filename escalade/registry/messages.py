"""What models read when a tool call ends without a result: one line, the same whichever way they called.

    rate_limited: tool 'crm.search@1.2.0' is limited to 5/s; try again in 0.2 s [retryable=yes, retry_after=0.2s]

A code, what happened, a hint where one helps, whether and when another try is worth while, what the budget has left.
No traceback, no path, no address, no secret. A tool that one may not use is an unknown tool: the line for both is the
same, and so tells nothing. Of a tool's own exception the model reads its class and its first line, redacted.

`shown(error, spec)` is the exception that a governed tool raises: of the same class as the original (`except
RateLimited` and `except ValueError` work as without us), with the line as its text. Developers find the original and
its traceback in `__cause__`; DSPy, which would format both for the model, finds neither there.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from escalade import errors
from escalade.errors import EscaladeError, ToolFailed
from escalade.registry.privacy import redactor
from escalade.scopes import current

if TYPE_CHECKING:
    from escalade.registry.tools import ToolSpec

LONGEST = 300
"""Characters of a text or a hint."""

NEVER_RAN = "never_ran"
"""The attribute of an error that was raised before the tool ran."""

_SCANNED = 4_000
_URL = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,15}://[^\s'\"]+")
_PATH = re.compile(
    r"(?<![\w./\\<])(?:~|[A-Za-z]:)?(?:[/\\]+[\w.+@%$-]+)+[/\\]?"  # absolute, on any system
    r"|(?<![\w./\\-])[\w./\\-]+\.pyc?\b"
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a model is told. `retry_after`: seconds, None when unknown or never. `budget_left`: as "$0.95", "" without
    a budget, and while nobody knows.
    """

    code: str
    text: str
    hint: str = ""
    retryable: bool = False
    retry_after: float | None = None
    budget_left: str = ""

    @property
    def line(self) -> str:
        """All of it, in one line."""
        facts = [f"retryable={'yes' if self.retryable else 'no'}"]
        if self.retry_after is not None:
            facts.append(f"retry_after={_seconds(self.retry_after)}s")
        if self.budget_left:
            facts.append(f"budget_left={self.budget_left}")
        return f"{self.code}: {self.text}{'; ' if self.hint else ''}{self.hint} [{', '.join(facts)}]"


_KINDS: tuple[tuple[type[EscaladeError], str, bool, str], ...] = (
    (errors.ArgumentsDenied, "not_allowed", False, "other arguments may be allowed"),
    (errors.ApprovalRequired, "approval_required", True, "a person decides; go on with something else until then"),
    (errors.ApprovalDenied, "approval_denied", False, "don't ask for the same again"),
    (errors.RateLimited, "rate_limited", True, ""),
    (errors.CircuitOpen, "unavailable", True, ""),
    (errors.Overloaded, "overloaded", True, ""),
    (errors.StoreUnavailable, "unavailable", True, ""),
    (errors.AuditUnavailable, "unavailable", True, ""),
    (errors.ToolRetired, "retired", False, "use another tool"),
    (errors.BudgetExceeded, "budget_exceeded", False, "finish with what you have"),
    (errors.UnknownPrice, "unknown_price", False, ""),
    (errors.DeadlineExceeded, "deadline_exceeded", False, "finish with what you have"),
    (errors.ModeForbids, "not_in_this_mode", False, ""),
    (errors.NotRecorded, "not_recorded", False, ""),
    (errors.Quarantined, "quarantined", False, "use another tool"),
    (errors.InvalidArguments, "invalid_arguments", True, "correct the arguments"),
    (errors.ToolTimeout, "timeout", False, ""),
    (errors.OutcomeUnknown, "outcome_unknown", False, "look whether it was done before you go on"),
    (errors.ScopeError, "no_scope", False, ""),
    (errors.Refused, "refused", False, ""),
)
_GENERIC: dict[type[EscaladeError], str] = {
    errors.StoreUnavailable: "a store that this call needs can't be reached",
}
"""Texts in the place of those that say where things are on this machine."""


def unknown(name: str) -> Told:
    """For a tool that there is not, and for one that one may not use."""
    return Told("unknown_tool", f"Unknown tool: {scrubbed(name)}", "use another tool, or do without it")


def told(error: BaseException, spec: ToolSpec) -> Told:
    """What a model is told of an error out of the tool."""
    before: Told | None = getattr(error, "told", None)
    if before is not None:  # out of a tool that the tool uses
        if before.code != "unknown_tool":
            return before
        return _failed(error, spec, "it may not use a tool that it needs", again=False)
    if isinstance(error, errors.PermissionDenied) and not isinstance(error, errors.ArgumentsDenied):
        return unknown(spec.model_name)
    for kind, code, retryable, hint in _KINDS:
        if isinstance(error, kind):
            again = retryable or (code == "timeout" and _harmless(spec))
            text = _GENERIC.get(kind) or scrubbed(str(error))
            after = getattr(error, "retry_after", None)
            return Told(code, text, hint or _careful(code, spec), again, after, _left())
    if isinstance(error, EscaladeError):
        after = getattr(error, "retry_after", None)
        again = after is not None or (isinstance(error, ToolFailed) and _harmless(spec))
        return _failed(error, spec, scrubbed(str(error)), again=again, after=after)
    text = f"{scrubbed(type(error).__name__)}: {scrubbed(str(error))}".rstrip(": ")
    return _failed(error, spec, text, again=_harmless(spec))


def shown(error: Exception, spec: ToolSpec) -> EscaladeError:
    """An exception to raise in its place, from it: of the same class, with the line as its text."""
    said = told(error, spec)
    twin = _twin(type(error))
    if isinstance(error, EscaladeError):
        twin.__dict__.update(error.__dict__)
        twin.__dict__.pop("__notes__", None)  # whatever the tool wrote there: the original has it
    else:
        twin.__dict__["original"] = error
    twin.__dict__["told"] = said
    twin.args = (said.line,)
    return twin


def scrubbed(text: str) -> str:
    """The first line without secrets, personal data, paths and addresses, at most 300 characters. Never raises."""
    first = " ".join(next((line for line in text.splitlines() if line.strip()), "").split())
    if len(first) > _SCANNED:
        return "(a message too long to show)"  # cut, it might end within a secret, which nothing would recognise
    plain = _PATH.sub("<path>", _URL.sub("<url>", redactor.default().redact(first).text))
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 3]}..."


def _failed(error: BaseException, spec: ToolSpec, text: str, *, again: bool, after: float | None = None) -> Told:
    hint = "" if again else _careful("tool_failed", spec)
    hint = "it did not run" if getattr(error, NEVER_RAN, False) is True else hint
    return Told("tool_failed", text, hint, again, after, _left())


def _harmless(spec: ToolSpec) -> bool:
    return spec.side_effects in {"none", "read"}


def _careful(code: str, spec: ToolSpec) -> str:
    """A write that failed half-way may have happened."""
    if code not in {"timeout", "tool_failed"} or _harmless(spec):
        return ""
    return "it may have taken effect all the same: look before you repeat it"


def _left() -> str:
    scope = current()
    try:
        left = None if scope is None else scope.left
    except errors.StoreUnavailable:  # what happened is told all the same
        return ""
    return "" if left is None else str(left)


def _seconds(seconds: float) -> str:
    """Rounded up, so that who waits that long has waited long enough."""
    return str(math.ceil(seconds)) if seconds >= 10 else f"{math.ceil(seconds * 100) / 100:g}"


# ----------------------------------------------------------------------------------------------------- the exception


def _twin(kind: Any) -> EscaladeError:
    """An exception of a class like `kind` that DSPy can't take apart."""
    try:
        made: Any = _class(kind)
        twin: EscaladeError = made.__new__(made)
    except Exception:  # noqa: BLE001 - somebody's class with conditions of its own: ours will do
        made = _class(ToolFailed)
        twin = made.__new__(made)
    return twin


@functools.lru_cache(512)
def _class(kind: Any) -> Any:
    plain = getattr(kind, "_plain", kind) if issubclass(kind, EscaladeError) else kind
    bases = (plain,) if issubclass(plain, EscaladeError) else (ToolFailed, plain)
    hidden = issubclass(plain, errors.PermissionDenied) and not issubclass(plain, errors.ArgumentsDenied)
    name = "UnknownTool" if hidden else bases[0].__name__
    body = {
        "__module__": errors.__name__,
        "__qualname__": name,
        "__doc__": bases[0].__doc__,
        "__str__": _text,
        "__reduce__": _reduced,
        "_plain": plain,
        **{slot: _hidden(slot) for slot in ("__traceback__", "__cause__", "__context__")},
    }
    if issubclass(plain, SyntaxError):  # formatted with the line of the file
        bases = (ToolFailed,)
    try:
        return type(name, bases, body)
    except TypeError:  # classes that Python can't combine
        return type(name, (ToolFailed,), body)


def _hidden(slot: str) -> property:
    """The exception's own slot, except that DSPy finds None there."""
    own: Any = vars(BaseException)[slot]
    return property(lambda self: None if _read_by_dspy() else own.__get__(self), own.__set__)


def _read_by_dspy() -> bool:
    """Is it DSPy that formats this exception, by itself or by way of `traceback`?"""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") == "traceback" and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dspy"


def _text(self: Exception) -> str:
    return str(self.args[0]) if self.args else type(self).__name__


def _reduced(self: Any) -> tuple[Any, ...]:
    """Pickled without the original, which may hold anything, and with a class that can be imported."""
    fields = {name: value for name, value in vars(self).items() if name != "original"}
    return _remade, (self._plain if issubclass(self._plain, EscaladeError) else ToolFailed, self.args), fields


def _remade(kind: Any, args: tuple[Any, ...]) -> EscaladeError:
    twin = _twin(kind)
    twin.args = args
    return twin
