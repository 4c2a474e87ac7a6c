"""Rules and roles, as read from what people wrote; and which rules a role has with all that it inherits.

"crm.*:read"                                                              a role may use what this matches
{"permit": "payments.charge:call", "when": {"amount": {"<=": 100}}}       … with such arguments
{"permit": "mail.send:call", "needs": "approval", "tenants": ["acme"]}    … once a person agrees, in these tenants
{"deny": "*:irreversible"}                                                … never, whoever grants it
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from escalade.errors import BadInput, UnknownName
from escalade.registry.access.conditions import Condition, parse_condition
from escalade.registry.canonical import canonical

EVERYBODY = "*"
"""The role that every principal has, if the policy defines it."""

CALL = "call"
_PATTERN = re.compile(r"[\w.*:/@-]+")
_ROLE_KEYS = ("inherits", "grants", "tenants", "description")
_RULE_KEYS = ("permit", "deny", "when", "tenants", "needs")

Tenants = frozenset[str] | None
"""The tenants that something holds in; None: in all of them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a role. `allows`: False for a denial. `approval`: only once a person has approved the very call."""

    role: str
    allows: bool
    pattern: str
    when: Condition | None = None
    tenants: Tenants = None
    approval: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is written in policies, in the long form."""
        written: dict[str, Any] = {"permit" if self.allows else "deny": self.pattern}
        if self.when is not None:
            written["when"] = self.when.to_json()
        if self.tenants is not None:
            written["tenants"] = sorted(self.tenants)
        if self.approval:
            written["needs"] = "approval"
        return written

    def __str__(self) -> str:
        who = "everybody is" if self.role == EVERYBODY else f"role {self.role!r}"
        does = (
            ("granted" if self.allows else "denied")
            if self.role == EVERYBODY
            else "grants"
            if self.allows
            else "denies"
        )
        where = "" if self.tenants is None else f" in {', '.join(sorted(self.tenants)) or 'no tenant'}"
        when = "" if self.when is None else f" when {self.when}"
        needs = ", with approval" if self.approval else ""
        return f"{who} {does} {self.pattern!r}{where}{when}{needs}"


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of rules, on top of those of the roles that it inherits."""

    name: str
    rules: tuple[Rule, ...]
    inherits: tuple[str, ...] = ()
    tenants: Tenants = None
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        """Canonical: neither the order of rules and parents nor the description decides anything."""
        written: dict[str, Any] = {"grants": sorted((rule.to_json() for rule in self.rules), key=canonical)}
        if self.inherits:
            written["inherits"] = sorted(self.inherits)
        if self.tenants is not None:
            written["tenants"] = sorted(self.tenants)
        return written


@dataclass(frozen=True, slots=True)
class Held:
    """A rule as somebody has it: by which chain of roles, and in which tenants all of them hold."""

    rule: Rule
    tenants: Tenants
    chain: tuple[str, ...]

    def holds_in(self, tenant: str) -> bool:
        return self.tenants is None or tenant in self.tenants

    def __str__(self) -> str:
        by = f" (inherited by {self.chain[0]})" if len(self.chain) > 1 else ""
        return f"{self.rule}{by}"


def parse_role(name: Any, written: Any) -> Role:
    """A role as written: a list of rules, or a mapping of `inherits`, `grants`, `tenants`. Raises BadInput."""
    if not isinstance(name, str) or not name:
        raise BadInput(f"{name!r} is not the name of a role")
    where = f"role {name!r}"
    if not isinstance(written, Mapping):
        return Role(name, _rules(name, written))
    _check_keys(written, _ROLE_KEYS, where)
    return Role(
        name,
        _rules(name, written.get("grants", ())),
        inherits=_names(written.get("inherits", ()), f"{where}: inherits"),
        tenants=_tenants(written.get("tenants"), where),
        description=str(written.get("description", "")),
    )


def held_rules(roles: Mapping[str, Role]) -> dict[str, tuple[Held, ...]]:
    """For each role its rules and all inherited ones. Raises BadInput for a cycle, UnknownName for a parent."""
    found: dict[str, tuple[Held, ...]] = {}

    def visit(name: str, path: tuple[str, ...]) -> tuple[Held, ...]:
        if name in path:
            raise BadInput(f"role {name!r} inherits itself: {' -> '.join((*path[path.index(name) :], name))}")
        if name not in roles:
            raise UnknownName(f"role that {path[-1]!r} inherits:", name, list(roles))
        if name not in found:
            role = roles[name]
            inherited = [held for parent in role.inherits for held in visit(parent, (*path, name))]
            found[name] = _held(role, inherited)
        return found[name]

    for name in roles:
        visit(name, ())
    return found


def _held(role: Role, inherited: list[Held]) -> tuple[Held, ...]:
    own = [Held(rule, both(rule.tenants, role.tenants), (role.name,)) for rule in role.rules]
    theirs = [Held(held.rule, both(held.tenants, role.tenants), (role.name, *held.chain)) for held in inherited]
    once = {(id(held.rule), held.tenants): held for held in reversed([*own, *theirs])}  # the first of equals stays
    return tuple(reversed(once.values()))


def names_of(permission: str, effect: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a call: those by which it can be granted, those by which it can be denied.

    A tool with a permission of its own making ("payments:refund") is granted by that name alone, and denied by its
    effect as well: `*:irreversible` means every tool.
    """
    if not effect:
        return (permission,), (permission,)
    resource, _, action = permission.rpartition(":")
    by_effect = (permission, f"{resource or permission}:{effect}")
    return by_effect if action == CALL else (permission,), by_effect


def both(one: Tenants, two: Tenants) -> Tenants:
    """The tenants in both."""
    if one is None or two is None:
        return two if one is None else one
    return one & two


def _rules(role: str, written: Any) -> tuple[Rule, ...]:
    if isinstance(written, str | Mapping) or not isinstance(written, Iterable):
        kind = "the string" if isinstance(written, str) else "the mapping" if isinstance(written, Mapping) else ""
        raise BadInput(f"role {role!r}: expected a list of permissions, got {kind} {written!r}".replace("  ", " "))
    return tuple(rule for one in written for rule in _rule(role, one))


def _rule(role: str, written: Any) -> list[Rule]:
    where = f"role {role!r}"
    if not isinstance(written, Mapping):
        return [Rule(role, allows=True, pattern=_pattern(role, written))]
    _check_keys(written, _RULE_KEYS, where)
    if ("permit" in written) == ("deny" in written):
        raise BadInput(f"{where}: a rule says either 'permit' or 'deny', got {dict(written)!r}")
    allows = "permit" in written
    patterns = written["permit" if allows else "deny"]
    needs = written.get("needs")
    if needs not in {None, "approval"} or (needs and not allows):
        raise BadInput(f"{where}: only a 'permit' needs something, and that is 'approval'; got {needs!r}")
    when = None
    if "when" in written:
        when = parse_condition(written["when"], f"{where}: when")
    tenants = _tenants(written.get("tenants"), where)
    listed = _names(patterns, f"{where}: {'permit' if allows else 'deny'}", kind="permissions")
    if not listed:
        raise BadInput(f"{where}: a rule without a permission decides nothing")
    return [Rule(role, allows, _pattern(role, one), when, tenants, needs == "approval") for one in listed]


def _pattern(role: str, pattern: Any) -> str:
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        raise BadInput(f"role {role!r}: {pattern!r} is not a permission; write it like 'crm.*:call'")
    if ":" not in pattern and not pattern.endswith("*"):  # denies nothing, and nobody would notice
        raise BadInput(
            f"role {role!r}: {pattern!r} has no action and would match nothing; "
            f"write '{pattern}:call', or '{pattern}:*'"
        )
    return pattern


def _tenants(written: Any, where: str) -> Tenants:
    return None if written is None else frozenset(_names(written, f"{where}: tenants"))


def _names(written: Any, where: str, kind: str = "names") -> tuple[str, ...]:
    listed = [written] if isinstance(written, str) else written
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in listed):
        raise BadInput(f"{where}: expected a list of {kind}, got {written!r}")
    return tuple(sorted(listed) if isinstance(listed, set | frozenset) else listed)


def _check_keys(written: Mapping[Any, Any], known: tuple[str, ...], where: str) -> None:
    for key in written:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise BadInput(f"{where}: unknown key {key!r}{hint} (known: {', '.join(known)})")
