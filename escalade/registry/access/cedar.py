"""Policies in Cedar, for those who have them: the same protocol as `Roles`. Needs the `cedar` extra (`cedarpy`).

    permit (principal in Role::"analyst", action in Action::"call", resource in Namespace::"crm");
    permit (principal in Role::"clerk", action in Action::"call", resource == Tool::"payments.charge")
        when { context has amount && context.amount <= 100 };
    @needs("approval")
    permit (principal in Tenant::"acme", action in Action::"write", resource == Tool::"mail.send");

What a request has:

    principal   User::"tenant/user", in Role::"..." for each role and in Tenant::"..."; attributes user, tenant, roles
    action      Action::"read", "write" or "irreversible" for tools, each in Action::"call"; otherwise the action itself
    resource    Tool::"crm.search" or Model::"big", in Namespace::"crm"; attributes name, effect
    context     the arguments by name: numbers with a fraction are decimals of 4 digits, a null is left out

Cedar skips a policy that fails, even one that forbids. Here an error in any policy denies, and so does an argument that
Cedar can't express. A tool is seen when it would be allowed but for what is asked of the context.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from escalade.errors import BadInput
from escalade.registry.access.conditions import finder
from escalade.registry.canonical import canonical, digest
from escalade.scopes import Decided, Principal

_CACHED = 8192
_EFFECTS = ("read", "write", "irreversible")


class CedarAccess:
    """An access policy in Cedar. `entities`: of your own, in Cedar's JSON; `schema`: of Cedar, checked at once.

    Raises BadInput for policies that can't be used, ImportError without `cedarpy`.
    """

    def __init__(
        self, policies: str, entities: Iterable[Mapping[str, Any]] = (), schema: str | dict[str, Any] | None = None
    ) -> None:
        cedar = _cedar()
        self._parsed = _parsed(cedar, policies)
        if schema is not None:
            checked = cedar.validate_policies(policies, schema)
            if not checked.validation_passed:
                raise BadInput(f"the Cedar policies don't fit their schema: {_line(checked.errors)}")
        self._cedar, self._entities = cedar, [dict(entity) for entity in entities]
        self._parents = {_named(one["uid"]): [*map(_named, one.get("parents", ()))] for one in self._entities}
        self._annotations = {n: one.get("annotations", {}) for n, one in self._parsed["staticPolicies"].items()}
        self.digest = digest({"cedar": self._parsed, "entities": self._entities, "schema": schema})
        self._roles = _roles_in([self._parsed, self._entities])
        self._policies = cedar.PolicySet.from_json_str(json.dumps(self._parsed))
        self._visible = cedar.PolicySet.from_json_str(json.dumps(_but_for_context(self._parsed)))
        self._on_context = any(_mentions_context(one) for one in self._parsed["staticPolicies"].values())
        self.decide = functools.lru_cache(_CACHED)(self._decide)
        self._decide_call = functools.lru_cache(_CACHED)(self._with_context)

    @property
    def roles(self) -> list[str]:
        """Names of all roles that policies or entities mention, sorted."""
        return sorted(self._roles)

    @property
    def empty(self) -> bool:
        """Does no policy permit anything?"""
        return all(one["effect"] != "permit" for one in self._parsed["staticPolicies"].values())

    def check_roles(self, roles: frozenset[str]) -> None:
        """Raises nothing: to Cedar, a role that nothing mentions is an entity like any other, with no permissions."""

    def roles_of(self, principal: Principal) -> frozenset[str]:
        """The principal's roles and all that he is in by them, by his tenant or by himself, as the entities say."""
        found, left = set(), _groups(principal) | {("User", f"{principal.tenant}/{principal.user}")}
        while left:
            found |= left
            left = {parent for one in left for parent in self._parents.get(one, ())} - found
        return frozenset(name for kind, name in found if kind == "Role")

    decide: Callable[..., Decided]

    def decide_call(self, principal: Principal, permission: str, effect: str, args: Mapping[str, Any]) -> Decided:
        """May the principal do this with these arguments?"""
        find = finder(args)
        try:
            context = {name: _cedar_value(find((name,))) for name in args}
        except ValueError as error:
            return Decided(False, f"Cedar can't express the arguments: {error}")
        known = {name: value for name, value in context.items() if value is not None}
        return self._decide_call(principal, permission, effect, canonical(known))

    def decide_any(
        self, principals: tuple[Principal, ...], permission: str, effect: str, schema: Mapping[str, Any] | None
    ) -> bool:
        """May all of them do this with some arguments or other? May say yes in doubt."""
        return all(self.decide(principal, permission, effect).allowed for principal in principals)

    def _decide(self, principal: Principal, permission: str, effect: str = "") -> Decided:
        decided = self._asked(self._visible, principal, permission, effect, {})
        if not decided.allowed or not self._on_context:
            return decided
        return Decided(True, decided.rule, closer=True, approval=decided.approval)

    def _with_context(self, principal: Principal, permission: str, effect: str, context: bytes) -> Decided:
        return self._asked(self._policies, principal, permission, effect, json.loads(context))

    def _asked(
        self, policies: Any, principal: Principal, permission: str, effect: str, context: dict[str, Any]
    ) -> Decided:
        request, entities = _request(principal, permission, effect, context)
        result = self._cedar.is_authorized(request, policies, _merged(entities, self._entities))
        reasons, errors = sorted(result.diagnostics.reasons), result.diagnostics.errors
        if errors:
            return Decided(False, f"a Cedar policy failed: {_line(errors)}")
        named = ", ".join(self._annotations[one].get("id", one) for one in reasons)
        if not result.allowed:
            return Decided(
                False, f"Cedar forbids it by {named}" if named else f"no Cedar policy permits {permission!r}"
            )
        approval = any(self._annotations[one].get("needs") == "approval" for one in reasons)
        return Decided(True, f"Cedar permits it by {named}", approval=approval)


def _cedar() -> Any:
    try:
        import cedarpy
    except ImportError as error:
        raise ImportError("policies in Cedar need cedarpy: `pip install escalade[cedar]`") from error
    return cedarpy


def _parsed(cedar: Any, policies: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(cedar.policies_to_json_str(policies))
    except ValueError as error:
        raise BadInput(f"the Cedar policies can't be read: {_line([error])}") from None
    if parsed.get("templates"):
        raise BadInput("templates of Cedar policies have nothing to link them here; write them out")
    for name, one in parsed["staticPolicies"].items():
        if one["action"].get("op") == "==" and one["action"]["entity"]["id"] == "call":
            raise BadInput(f'Cedar policy {name}: `action == Action::"call"` is no tool\'s action; write `action in`')
    return parsed


def _but_for_context(parsed: dict[str, Any]) -> dict[str, Any]:
    """The policies, with all in favour of the asker that the context might say."""
    kept = {}
    for name, one in parsed["staticPolicies"].items():
        if not _mentions_context(one):
            kept[name] = one
        elif one["effect"] == "permit":
            kept[name] = {**one, "conditions": [c for c in one["conditions"] if not _mentions_context(c)]}
    return {**parsed, "staticPolicies": kept}


def _mentions_context(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("Var") == "context" or any(map(_mentions_context, part.values()))
    return isinstance(part, list) and any(map(_mentions_context, part))


def _roles_in(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {str(part["id"])} if part.get("type") == "Role" and "id" in part else set()
        return own.union(*map(_roles_in, part.values()))
    return set().union(*map(_roles_in, part)) if isinstance(part, list) else set()


def _request(
    principal: Principal, permission: str, effect: str, context: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    resource, _, action = permission.rpartition(":")
    kind, name = ("Model", resource.removeprefix("model.")) if resource.startswith("model.") else ("Tool", resource)
    user = _uid("User", f"{principal.tenant}/{principal.user}")
    done = _uid("Action", effect if effect in _EFFECTS and action == "call" else action)
    groups = name.split(".")[:-1]
    spaces = [_uid("Namespace", ".".join(groups[: n + 1])) for n in range(len(groups))]
    above = [_uid(*group) for group in sorted(_groups(principal))]
    who = {"user": principal.user, "tenant": principal.tenant, "roles": sorted(principal.roles)}
    entities: list[dict[str, Any]] = [
        {"uid": user, "attrs": who, "parents": above},
        {"uid": done, "attrs": {}, "parents": [_uid("Action", "call")] if done["id"] in _EFFECTS else []},
        {"uid": _uid(kind, name), "attrs": {"name": name, "effect": effect}, "parents": spaces},
    ]
    return {"principal": user, "action": done, "resource": _uid(kind, name), "context": context}, entities


def _merged(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of an entity that both know, ours has the last word on attributes, and the parents of both."""
    found = {canonical(one["uid"]): one for one in theirs}
    for one in ours:
        known = found.get(canonical(one["uid"]), {})
        attrs, parents = {**known.get("attrs", {}), **one["attrs"]}, [*known.get("parents", []), *one["parents"]]
        found[canonical(one["uid"])] = {**one, "attrs": attrs, "parents": parents}
    return list(found.values())


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _named(uid: Mapping[str, Any]) -> tuple[str, str]:
    """The type and the name, which Cedar's JSON may have under "__entity"."""
    plain = uid.get("__entity", uid)
    return str(plain.get("type", "")), str(plain.get("id", ""))


def _groups(principal: Principal) -> set[tuple[str, str]]:
    return {("Tenant", principal.tenant), *(("Role", role) for role in principal.roles)}


def _cedar_value(value: Any) -> Any:
    """JSON of Cedar. Raises ValueError for what it has no type for; None stands for nothing."""
    if isinstance(value, Mapping):
        inside = {str(key): _cedar_value(one) for key, one in value.items()}
        return {key: one for key, one in inside.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_cedar_value(one) for one in value if one is not None]
    if isinstance(value, float | Decimal):
        return _decimal(Decimal(repr(value)) if isinstance(value, float) else value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} has more than 64 bits")
    if value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"a {type(value).__name__} has no type in Cedar")


def _decimal(number: Decimal) -> Any:
    if not number.is_finite() or number != round(number, 4) or abs(number) >= Decimal(2**63) / 10**4:
        raise ValueError(f"{number} is no decimal of 4 digits")
    return {"__extn": {"fn": "decimal", "arg": f"{number:.4f}"}}


def _line(errors: Iterable[Any]) -> str:
    return " ".join("; ".join(map(str, errors)).split())
