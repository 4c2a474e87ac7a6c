"""Every error of escalade, drawn as a tree.

    EscaladeError
     ├── BadInput                what you handed in can't be used (also a ValueError; exit code 2 in the CLI)
     │    ├── UnknownName        no policy, tool, model, role, rung, column … of that name
     │    ├── DuplicateVersion   that name and version is registered already
     │    ├── IncompatibleVersion  a version breaks what its number promises; `changes`, `needed`
     │    ├── LockDrift          a version isn't the one that was locked; `differences`
     │    ├── DataError          a data set that can't be evaluated as it is
     │    │    └── Censored      a policy goes where nothing was recorded; `policy`, `share`
     │    ├── RunConflict        a durable run of that id was asked for something else
     │    ├── PipelineChanged    a durable run can't go on: its pipeline is arranged in another way now
     │    ├── NoPolicy           a principal, and no access policy that says what he may do
     │    └── UnknownPrice       an unpriced resource under a budget
     ├── ScopeError
     │    ├── NoScope            a governed call outside of any scope
     │    └── ScopeClosed        a governed call in a scope that has ended
     ├── Refused                 the guard said no: nothing ran, nothing was debited
     │    ├── PermissionDenied   no role of the caller allows it
     │    │    └── ArgumentsDenied  … with these arguments; with others he may
     │    ├── ApprovalRequired   a person has to approve this very call first; `request_id`
     │    ├── ApprovalDenied     a person said no to this very call; `request_id`
     │    ├── RateLimited        a rate limit is full; `retry_after` seconds
     │    ├── CircuitOpen        the breaker of the resource is open; `retry_after` seconds
     │    ├── BudgetExceeded     it doesn't fit the budget
     │    ├── DeadlineExceeded   the scope's time is up
     │    ├── StoreUnavailable   the store of budgets or limits can't be reached or written
     │    ├── AuditUnavailable   the use can't be recorded, so it does not happen
     │    ├── Overloaded         as many uses as the resource takes at once are running
     │    ├── ModeForbids        the scope's mode doesn't let it run (live-read-only, dry-run)
     │    ├── NotRecorded        a replay was asked for a call that its cassette doesn't have
     │    ├── Quarantined        an imported tool is no longer what was pinned
     │    ├── ToolRetired        the version is past its sunset date
     │    └── ForeignModel       a language model that doesn't go through the gateway
     ├── ToolError               a tool could not be used as asked
     │    ├── InvalidArguments   the arguments don't fit the tool's input schema
     │    ├── ToolFailed         the tool's own code raised; `original` is what it raised
     │    ├── OutcomeUnknown     an earlier call, which must not be made twice, was cut off
     │    └── ToolTimeout        the tool exceeded its own timeout
     ├── NodeError               a pipeline node failed; names the node, `__cause__` is the failure
     │    └── NodeTimeout        a pipeline node exceeded its own timeout
     ├── JoinFailed              too few branches ended well; `statuses`, `causes` by name
     ├── RunError                a durable run ended without a result, or waits; `status`, `kind`, `path`
     └── AuditIncomplete         an audit log was closed and lacks rows, or checkpoints at its anchors

Refusals that cross DSPy's engine boundary are raised as a subclass that is also a `dspy.LMError` (DSPy
would replace any other exception by its own); `except BudgetExceeded` catches them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class EscaladeError(Exception):
    """Root of everything that escalade raises on purpose.

    `path`: of the pipeline node that it came out of, such as "views/facts"; "" outside of pipelines. Errors survive
    pickle and copy with message and fields, whatever their `__init__` asks for: they cross processes.
    """

    path: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args), self.__dict__.copy()


def _rebuilt(cls: type[EscaladeError], args: tuple[Any, ...]) -> EscaladeError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    return error


class BadInput(EscaladeError, ValueError):
    """What was handed in can't be used; the message says what was expected and what to do."""


def one_of(option: str, value: object, choices: Sequence[str | None]) -> None:
    """Raises BadInput for an option that isn't one of its few values: a guard that is misspelt must not be off.

    >>> one_of("gate", "refsue", ("refuse", "off"))
    Traceback (most recent call last):
    escalade.errors.BadInput: gate: expected 'refuse' or 'off', got 'refsue'
    """
    if value not in choices:
        *others, last = (repr(choice) for choice in choices)
        raise BadInput(f"{option}: expected {', '.join(others)} or {last}, got {value!r}")


class UnknownName(BadInput):
    """A name that nothing answers to. `known`: those that something answers to; None: they aren't listed.

    >>> str(UnknownName("policy", "treshold", ["threshold", "oracle"]))
    "unknown policy 'treshold'; did you mean 'threshold'? (known: oracle, threshold)"
    """

    def __init__(self, kind: str, name: str, known: list[str] | tuple[str, ...] | None = ()) -> None:
        import difflib

        self.kind, self.name, self.known = kind, name, sorted(known or ())
        close = difflib.get_close_matches(name, self.known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listed = f" (known: {', '.join(self.known)})" if self.known else ""
        listed = listed if listed or known is None else " (none is known)"
        super().__init__(f"unknown {kind} {name!r}{hint}{listed}")


class DuplicateVersion(BadInput):
    """The name and version is registered already: versions are immutable, publish a new one."""


class IncompatibleVersion(BadInput):
    """A version breaks what its number promises. `changes`: what breaks; `needed`: the version it would have to be."""

    def __init__(self, message: str, changes: tuple[str, ...] = (), needed: str = "") -> None:
        super().__init__(message)
        self.changes, self.needed = changes, needed


class LockDrift(BadInput):
    """A version isn't the one that was locked. `differences`: one line each."""

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class DataError(BadInput):
    """A data set that can't be evaluated as it is: a missing column, no rows, missing outcomes."""


class Censored(DataError):
    """A policy goes where nothing was recorded, so that nobody knows what it would have come to.

    `policy`: its name. `share`: of the questions on which that happens, 0..1.
    """

    def __init__(self, message: str, *, policy: str = "", share: float = 1.0) -> None:
        super().__init__(message)
        self.policy, self.share = policy, share


class RunConflict(BadInput):
    """There is a durable run of that id, and it was asked for something else: other inputs, or another pipeline."""


class PipelineChanged(BadInput):
    """A durable run can't go on as it began: its pipeline is arranged in another way now. The message says how."""


class NoPolicy(BadInput):
    """There is a principal, and no access policy that says what he may do."""


class UnknownPrice(BadInput):
    """An unpriced resource under a budget. Unknown is never zero: set a price, or lift the budget."""


class ScopeError(EscaladeError):
    """A governed call without a usable scope."""


class NoScope(ScopeError):
    """A governed call outside of any scope."""

    def __init__(self, what: str = "a governed call") -> None:
        super().__init__(
            f'{what} needs a scope: wrap it in `with escalade.scope(budget="1.00"):`, '
            f'or install a default once with `escalade.configure(budget="1.00")`'
        )


class ScopeClosed(ScopeError):
    """A governed call in a scope that has ended, by a thread or a task that outlived it."""


class Refused(EscaladeError):
    """The guard said no. Nothing ran and nothing was debited.

    `retry_after`: seconds until it may be worth another try, None when it is not known or never.
    """

    retry_after: float | None = None


class PermissionDenied(Refused):
    """No role of the caller allows the permission."""


class ArgumentsDenied(PermissionDenied):
    """The caller may use it, but not with these arguments."""


class ApprovalRequired(Refused):
    """A person has to approve this very call first. `request_id`: of the request that waits for a decision, "" where
    nobody can be asked.
    """

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class ApprovalDenied(Refused):
    """A person said no to this very call; the message has the reason. `request_id`: of the request that was denied."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class RateLimited(Refused):
    """A rate limit is full for the next `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CircuitOpen(Refused):
    """The resource failed too often of late and is left alone for `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BudgetExceeded(Refused):
    """The reservation doesn't fit a budget.

    `account`: name of the account that refused. `limit`, `left`, `asked`: nano-dollars, None when not applicable.
    """

    def __init__(
        self,
        message: str,
        *,
        account: str | None = None,
        limit: int | None = None,
        left: int | None = None,
        asked: int | None = None,
    ) -> None:
        super().__init__(message)
        self.account, self.limit, self.left, self.asked = account, limit, left, asked

    def again(self) -> BudgetExceeded:
        """A fresh copy to raise: one exception object must not be raised by several threads."""
        return BudgetExceeded(str(self), account=self.account, limit=self.limit, left=self.left, asked=self.asked)


class DeadlineExceeded(Refused):
    """The scope's time is up. A use that was running when time ran out is ended too, and its money is settled."""


class StoreUnavailable(Refused):
    """The store that budgets or limits are kept in can't be reached or written: closed, until it can again."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuditUnavailable(Refused):
    """The use can't be recorded, so it does not happen: disk full, database gone, a full queue, a closed log.

    `retry_after`: seconds until the log tries again by itself, None when it never will. `reason`: what went wrong, for
    operators; the message has no paths, since models are shown it.
    """

    def __init__(self, message: str, retry_after: float | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.retry_after, self.reason = retry_after, reason

    def again(self) -> AuditUnavailable:
        """A fresh copy to raise: one exception object must not be raised by several threads."""
        return AuditUnavailable(str(self), self.retry_after, self.reason)


class Overloaded(Refused):
    """As many uses as the resource takes at once are running, and none ended in time; or the line for it is full."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModeForbids(Refused):
    """The scope's mode doesn't let it run: a write where only reading is live, a dry run without a dry answer."""


class NotRecorded(Refused):
    """A replay was asked for a call that its cassette doesn't have; it never guesses."""


class Quarantined(Refused):
    """An imported tool is no longer what was pinned: its server changed it. The message has the difference."""


class ToolRetired(Refused):
    """The version is past its sunset date. The message names the replacement, where there is one."""


class ForeignModel(Refused):
    """A language model that doesn't go through the gateway was called inside a scope."""


class ToolError(EscaladeError):
    """A tool could not be used as asked."""


class InvalidArguments(ToolError):
    """The arguments don't fit the tool's input schema; the tool was not called.

    `arguments`: which ones, by their names in the schema; empty for one that the schema doesn't have.
    """

    arguments: tuple[str, ...] = ()


class ToolFailed(ToolError):
    """The tool's own code raised an exception; where Python allows it, this is one of that class, too.

    The message is fit for models: one line, without paths and secrets. `original`: what was raised, for developers.
    `retry_after`: seconds, where the tool's own server said so.
    """

    original: BaseException | None = None
    retry_after: float | None = None


class OutcomeUnknown(ToolError):
    """This very call was cut off before (timeout, cancellation, death): it may have been done, and isn't repeated."""


class ToolTimeout(ToolError):
    """The tool exceeded its own timeout. What it was doing may still go on in a thread; its money is settled."""


class NodeError(EscaladeError):
    """A pipeline node failed. `path` names it; `__cause__` is what it raised."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"node {path!r}: {message}")
        self.path = path


class NodeTimeout(NodeError):
    """A pipeline node exceeded its own timeout."""


class JoinFailed(EscaladeError):
    """Too few branches of a fan-out, a map or a race ended well. `statuses`: how each ended, by name or index."""

    def __init__(self, message: str, statuses: dict[Any, Any] | None = None) -> None:
        super().__init__(message)
        self.statuses = statuses or {}

    @property
    def causes(self) -> dict[Any, BaseException]:
        """What the branches raised, by name or index."""
        return {name: status.error for name, status in self.statuses.items() if status.error is not None}


class RunError(EscaladeError):
    """A durable run has no result: it failed, was cancelled, or waits for a person.

    `run_id`; `status`: failed, cancelled, waiting; `kind`: class of the error that it failed with, "" for none; `path`:
    of the node that failed.
    """

    def __init__(
        self, message: str, *, run_id: str = "", status: str = "failed", kind: str = "", path: str = ""
    ) -> None:
        super().__init__(message)
        self.run_id, self.status, self.kind, self.path = run_id, status, kind, path


class AuditIncomplete(EscaladeError):
    """The log was closed and lacks something: `unrecorded` rows, or `undelivered` checkpoints of the anchors."""

    def __init__(self, message: str, *, unrecorded: int = 0, undelivered: int = 0) -> None:
        super().__init__(message)
        self.unrecorded, self.undelivered = unrecorded, undelivered
