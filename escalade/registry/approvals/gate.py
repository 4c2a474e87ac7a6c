"""What the guard asks when a decision depends on arguments or on a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from escalade.errors import ApprovalRequired, ArgumentsDenied, PermissionDenied
from escalade.registry.access.conditions import Condition, finder
from escalade.registry.access.explain import with_defaults
from escalade.registry.approvals.requests import Asked
from escalade.registry.idempotency import step_path
from escalade.registry.privacy.names import alias
from escalade.scopes import Decided, Desk, Entry, Scope, Ticket

Need = Literal["always"] | Condition | None
"""When a tool itself wants a person: never, always, or unless its condition is known not to hold."""


_RUNS = frozenset({"live", "record", "live-read-only"})
"""Modes in which a tool that is used `once` may have an answer of its own."""


class Guarded(Protocol):
    """What the gate needs to know of a resource."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def permission(self) -> str: ...
    @property
    def effect(self) -> str: ...
    @property
    def approval(self) -> Need: ...
    @property
    def once(self) -> bool: ...
    @property
    def schema(self) -> Mapping[str, Any] | None: ...
    @property
    def schema_digest(self) -> str: ...


def look_closer(resource: Guarded, scope: Scope, entry: Entry, decided: Decided, values: object) -> Consent | None:
    """Decide with the validated arguments; a person's consent, where one is needed.

    Raises ArgumentsDenied, PermissionDenied, ApprovalRequired, ApprovalDenied, InvalidArguments.
    """
    args = with_defaults(resource.schema, values if isinstance(values, Mapping) else {})
    if decided.closer:
        decided = scope.permits(resource.permission, resource.effect, args)
        entry.rule = decided.rule
        if not decided.allowed:
            raise denied(resource, scope, decided, ArgumentsDenied)
    if not decided.approval and not _wants(resource.approval, args):
        return None
    if resource.kind != "tool":
        raise PermissionDenied(f"{resource.kind} {resource.name!r} can't be approved call by call: {decided.rule}")
    if scope.approvals is None:
        raise ApprovalRequired(f"{resource.name} needs a person's approval, and nobody can be asked here")
    asked = Asked(
        tool=resource.name,
        version=resource.version,
        schema_digest=resource.schema_digest,
        arguments=args,
        principals=scope.principals,
        run_id=scope.run_id,
        policy_digest=entry.policy_digest,
        call_id=entry.call_id,
        rule=decided.rule,
        step=tuple(step_path()) if resource.once else (),
    )
    return Consent(scope.approvals, asked, again=(resource.once or scope.journal is not None) and scope.mode in _RUNS)


class Consent:
    """A person's consent to one call. An approval is good for one answer, wherever it comes from: the tool itself, a
    cache, a cassette, a dry run. The answer of a call that is made `once`, or that a durable run has finished, is had
    again for the approval that it took.

    `again`: this very call may have been made already, so that an approval which was spent will do for now: until it is
    known whether there is an answer, nobody is asked. Raises ApprovalRequired, ApprovalDenied, InvalidArguments.
    """

    def __init__(self, desk: Desk, asked: Asked, *, again: bool) -> None:
        self._desk, self._asked = desk, asked
        self._ticket = None if again and desk.given(asked) else desk.ticket(asked)

    def ticket(self, source: str) -> Ticket:
        """What this answer takes. `source`: where it comes from, "" for the tool. Raises as the class does."""
        spent = self._desk.spent(self._asked) if source in {"once", "journal"} else None
        return spent or self._ticket or self._desk.ticket(self._asked)


def denied(
    resource: Guarded, scope: Scope, decided: Decided, kind: type[PermissionDenied] = PermissionDenied
) -> PermissionDenied:
    """The refusal of a policy."""
    return kind(f"{alias(scope.principal.user)!r} may not use {resource.kind} {resource.name!r}: {alias(decided.rule)}")


def _wants(need: Need, args: Mapping[str, Any]) -> bool:
    if isinstance(need, Condition):
        return need.holds(finder(args)) is not False
    return need == "always"
