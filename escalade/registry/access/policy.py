"""Roles: who may use what. Deny by default, denials win, and the rule that decided has a name.

A permission is `resource:action`, like `crm.search:call` or `model.big:call`. What a tool does to the world is an
action, too: whoever may `crm.*:read` may call the tools of crm that only read (side effects "none" or "read"),
`crm.*:write` is for those that write, `crm.*:irreversible` for those that can't be undone, and `crm.*:call` for all of
them. A denial of any of these names of a call denies it. `crm.*:approve` is for people who approve calls.

Of all rules of all roles of a principal, inherited ones included: a denial that applies decides; else one permission is
enough; and if any of those that apply needs approval, the call does. More roles never allow less, unless they deny.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from escalade.errors import BadInput, UnknownName
from escalade.registry.access.conditions import Condition, Test, finder
from escalade.registry.access.index import Index
from escalade.registry.access.near import tell_slips
from escalade.registry.access.rules import EVERYBODY, Held, Role, Rule, held_rules, names_of, parse_role
from escalade.registry.canonical import digest
from escalade.scopes import Decided, Principal

if TYPE_CHECKING:
    from escalade.registry.access.explain import Explanation

_CACHED = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides about one permission for the holders of the same roles in the same tenant.

    `denials`, `grants`: rules that match and hold in the tenant. `decided`: what there is to say before the arguments
    are known.
    """

    permission: str
    denials: tuple[Held, ...]
    grants: tuple[Held, ...]
    decided: Decided

    def decide(self, args: Mapping[str, Any]) -> Decided:
        """What there is to say about these arguments."""
        if not self.decided.closer:
            return self.decided
        find = finder(args)
        for denial in self.denials:
            met = _met(denial.rule.when, find)
            if met is not False:
                return Decided(False, f"{denial}{'' if met else ', which these arguments do not rule out'}")
        granted: Held | None = None
        approval = False
        for grant in self.grants:
            met = _met(grant.rule.when, find)
            if met and granted is None:
                granted = grant
            # What can't be ruled out to need a person needs one.
            approval = approval or (grant.rule.approval and met is not False)
        if granted is None:
            return Decided(False, f"not with these arguments: {'; '.join(map(str, self.grants))}")
        return Decided(True, str(granted), approval=approval)

    @property
    def tests(self) -> list[Test]:
        """All comparisons that it may make."""
        return [test for held in (*self.denials, *self.grants) if held.rule.when for test in held.rule.when.tests]


class Roles:
    """An access policy made of roles: a list of rules for each, or a mapping with what it inherits. Immutable.

    >>> policy = Roles(
    ...     {
    ...         "reader": ["crm.*:read"],
    ...         "clerk": {
    ...             "inherits": ["reader"],
    ...             "grants": [{"permit": "payments.charge:call", "when": {"amount": {"<=": 100}}}],
    ...         },
    ...     }
    ... )
    >>> policy.decide(Principal(roles={"clerk"}), "crm.search:call", "read")
    Decided(allowed=True, rule="role 'reader' grants 'crm.*:read' (inherited by clerk)")
    >>> policy.decide_call(Principal(roles={"clerk"}), "payments.charge:call", "write", {"amount": 500}).allowed
    False

    The role "*" is everybody's. `digest`: SHA-256 of what decides; equal policies have equal digests. Raises BadInput,
    which names the role.
    """

    def __init__(self, roles: Mapping[str, Iterable[Any] | Mapping[str, Any]]) -> None:
        if not isinstance(roles, Mapping):
            raise BadInput(f'expected roles and what they may do, like {{"analyst": ["crm.*:call"]}}, got {roles!r}')
        self._roles: dict[str, Role] = {name: parse_role(name, written) for name, written in roles.items()}
        self._held = held_rules(self._roles)
        self._inherited = _inherited(self._roles)
        self._indexed: dict[frozenset[str], tuple[tuple[Held, ...], Index]] = {}
        self._plans: dict[tuple[frozenset[str], str | None, str, str], Plan] = {}
        self._reached: dict[Any, tuple[bool, Mapping[str, Any] | None]] = {}
        tell_slips(self.rules())
        self._tenants = {t for held in self._held.values() for h in held if h.tenants is not None for t in h.tenants}

    @classmethod
    def load(cls, path: str | Path) -> Roles:
        """A policy from a YAML, JSON or TOML file; `policy.schema.json` beside this module describes it.

        Raises BadInput, which names the file, the line where it can, and the role.
        """
        from escalade.registry.access.files import load_policy

        return load_policy(path)

    @property
    def roles(self) -> list[str]:
        """Names of all roles, sorted."""
        return sorted(self._roles)

    @property
    def empty(self) -> bool:
        """Is there no rule that allows anything to anybody?"""
        return not any(held.rule.allows for rules in self._held.values() for held in rules)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical form, 64 hex digits."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The canonical form, which `load` would read as the same policy."""
        return {"version": 1, "roles": {name: self._roles[name].to_json() for name in self.roles}}

    def check_roles(self, roles: frozenset[str]) -> None:
        """Raises UnknownName for a role that does not exist."""
        for role in sorted(roles):
            if role not in self._roles:
                raise UnknownName("role", role, self.roles)

    def roles_of(self, principal: Principal) -> frozenset[str]:
        """The principal's roles and all that they inherit, with everybody's if there is one."""
        own = principal.roles | ({EVERYBODY} & self._roles.keys())
        return own.union(*(self._inherited.get(role, frozenset()) for role in own))

    def decide(self, principal: Principal, permission: str, effect: str = "") -> Decided:
        """May the principal do this, with some arguments or other, and by which rule? See `scopes.Access`."""
        tenant = principal.tenant if principal.tenant in self._tenants else None
        plan = self._plans.get((principal.roles, tenant, permission, effect))
        return (self.plan(principal, permission, effect) if plan is None else plan).decided

    def decide_call(self, principal: Principal, permission: str, effect: str, args: Mapping[str, Any]) -> Decided:
        """May the principal do this with these arguments?"""
        return self.plan(principal, permission, effect).decide(args)

    def decide_any(
        self, principals: tuple[Principal, ...], permission: str, effect: str, schema: Mapping[str, Any] | None
    ) -> bool:
        """Are there arguments that fit the schema and with which all of them may do this?

        Exact for comparisons; where regular expressions meet, it may say yes though there are none.
        """
        from escalade.registry.access.reach import reachable

        who = tuple((p.roles, p.tenant if p.tenant in self._tenants else None) for p in principals)
        key = (who, permission, effect, id(schema))
        found = self._reached.get(key)
        if found is None:
            answer = reachable([self.plan(principal, permission, effect) for principal in principals], schema)
            found = answer, schema  # kept, so that nothing else gets its id
            _remember(self._reached, key, found)
        return found[0]

    def explain(self, principal: Principal, tool: Any, args: Mapping[str, Any] | None = None) -> Explanation:
        """Why, or why not: the rule that decided, what else was looked at, and what it would take.

        `tool`: a ToolSpec, a GovernedTool, or a permission.
        """
        from escalade.registry.access.explain import explain

        return explain(self, principal, tool, args)

    def rules(self) -> list[Rule]:
        """The rules of all roles, as written."""
        return [rule for role in self._roles.values() for rule in role.rules]

    def held(self, principal: Principal) -> tuple[Held, ...]:
        """The rules of the principal's roles, inherited ones included, in any tenant."""
        return self._of(principal.roles)[0]

    def plan(self, principal: Principal, permission: str, effect: str = "") -> Plan:
        """All that decides about a permission for a principal."""
        tenant = principal.tenant if principal.tenant in self._tenants else None
        key = (principal.roles, tenant, permission, effect)
        plan = self._plans.get(key)
        if plan is None:
            plan = _plan(principal, permission, self.matching(principal, permission, effect))
            _remember(self._plans, key, plan)
        return plan

    def matching(self, principal: Principal, permission: str, effect: str = "") -> list[Held]:
        """The rules of the principal's roles that speak of this permission, in any tenant."""
        held, index = self._of(principal.roles)
        granted, denied = names_of(permission, effect)
        numbers = {n for name in granted for n in index.find(name)}
        denials = {n for name in denied for n in index.find(name) if not held[n].rule.allows}
        return [held[n] for n in sorted(numbers | denials)]

    def _of(self, roles: frozenset[str]) -> tuple[tuple[Held, ...], Index]:
        found = self._indexed.get(roles)
        if found is None:
            names = [name for name in sorted(roles | {EVERYBODY}) if name in self._held]
            held = tuple(rule for name in names for rule in self._held[name])
            found = held, Index(one.rule.pattern for one in held)
            _remember(self._indexed, roles, found)
        return found

    def __repr__(self) -> str:
        return f"<Roles {', '.join(self.roles) or 'none'}; {self.digest[:12]}>"


@functools.cache  # each scope without a policy has it
def everything_allowed() -> Roles:
    """The policy of a notebook or a script of one's own: the role `owner` may do everything."""
    return Roles({"owner": ["*"]})


def _plan(principal: Principal, permission: str, matching: list[Held]) -> Plan:
    here = [held for held in matching if held.holds_in(principal.tenant)]
    denials = tuple(held for held in here if not held.rule.allows)
    grants = tuple(held for held in here if held.rule.allows)
    return Plan(permission, denials, grants, _before_arguments(principal, permission, denials, grants, matching))


def _before_arguments(
    principal: Principal, permission: str, denials: tuple[Held, ...], grants: tuple[Held, ...], matching: list[Held]
) -> Decided:
    always = next((denial for denial in denials if denial.rule.when is None), None)
    if always is not None:
        return Decided(False, str(always))
    if not grants:
        held = ", ".join(sorted(principal.roles)) or "no role"
        elsewhere = any(one.rule.allows for one in matching)
        return Decided(False, f"nothing grants {permission!r} to {held}{' in this tenant' if elsewhere else ''}")
    plain = [grant for grant in grants if grant.rule.when is None]
    closer = bool(denials) or not plain or any(grant.rule.when and grant.rule.approval for grant in grants)
    first = plain[0] if plain else grants[0]
    return Decided(True, str(first), closer=closer, approval=any(grant.rule.approval for grant in plain))


def _inherited(roles: Mapping[str, Role]) -> dict[str, frozenset[str]]:
    """Each role with all that it inherits. There are no cycles."""
    found: dict[str, frozenset[str]] = {}

    def visit(name: str) -> frozenset[str]:
        if name not in found:
            found[name] = frozenset({name}).union(*map(visit, roles[name].inherits))
        return found[name]

    for name in roles:
        visit(name)
    return found


def _met(when: Condition | None, find: Any) -> bool | None:
    return True if when is None else when.holds(find)


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """Bounded by forgetting everything: a process that asks 65,536 different questions has other worries."""
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value
