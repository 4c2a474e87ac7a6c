"""What the guard asks when a decision depends on arguments or on a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from escalade.errors import ApprovalRequired, ArgumentsDenied, PermissionDenied
from escalade.registry.access.conditions import Condition, finder
from escalade.registry.access.explain import with_defaults
from escalade.registry.approvals.requests import Asked
from escalade.registry.privacy.names import alias
from escalade.scopes import Decided, Entry, Scope, Ticket

Need = Literal["always"] | Condition | None
"""When a tool itself wants a person: never, always, or unless its condition is known not to hold."""


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
    def schema(self) -> Mapping[str, Any] | None: ...
    @property
    def schema_digest(self) -> str: ...


def look_closer(resource: Guarded, scope: Scope, entry: Entry, decided: Decided, values: object) -> Ticket | None:
    """Decide with the validated arguments; the ticket of an approval, where one is needed.

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
    return scope.approvals.ticket(
        Asked(
            tool=resource.name,
            version=resource.version,
            schema_digest=resource.schema_digest,
            arguments=args,
            principals=scope.principals,
            run_id=scope.run_id,
            policy_digest=entry.policy_digest,
            call_id=entry.call_id,
            rule=decided.rule,
        )
    )


def denied(
    resource: Guarded, scope: Scope, decided: Decided, kind: type[PermissionDenied] = PermissionDenied
) -> PermissionDenied:
    """The refusal of a policy."""
    return kind(f"{alias(scope.principal.user)!r} may not use {resource.kind} {resource.name!r}: {alias(decided.rule)}")


def _wants(need: Need, args: Mapping[str, Any]) -> bool:
    if isinstance(need, Condition):
        return need.holds(finder(args)) is not False
    return need == "always"
